/** The NBD client against servers of other projects. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { type NbdSourceOptions, nbdSource } from '../../src/nbd.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { type JsonEvent, runCommand, startCommand } from '../cli/command.ts';
import { makeSparse } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { describeWith, toolPath } from '../support/tools.ts';

const MIB = 2 ** 20;

function run(program: string, ...args: string[]): void {
  const { status, stdout, stderr } = spawnSync(toolPath(program) ?? program, args, { encoding: 'utf8' });
  expect(status, `${program} ${args.join(' ')}: ${stdout}${stderr}`).toBe(0);
}

/** Starts a server on the socket and waits until the server accepts. Stops the server at the end of the test. */
async function start(program: string, socket: string, args: readonly string[]): Promise<ChildProcess> {
  const server = spawn(toolPath(program)!, args, { stdio: 'ignore' });
  const ended = once(server, 'exit');
  onTestFinished(async () => {
    server.kill('SIGKILL');
    await ended;
  });
  for (;;) {
    if (server.exitCode !== null) throw new Error(`${program} ended with ${server.exitCode}`);
    const probe = connect(socket);
    const accepts = await new Promise<boolean>((resolve) => {
      probe.once('connect', () => resolve(true));
      probe.once('error', () => resolve(false));
    });
    // The server speaks first. Closing the connection before its greeting would make it log an error.
    if (accepts) await once(probe, 'data');
    probe.destroy();
    if (accepts) return server;
    await sleep(20);
  }
}

function nbdkit(socket: string, ...args: string[]): Promise<ChildProcess> {
  return start('nbdkit', socket, ['-f', '--exit-with-parent', '-U', socket, ...args]);
}

function qemuNbd(socket: string, ...args: string[]): Promise<ChildProcess> {
  return start('qemu-nbd', socket, ['--persistent', '--shared=8', '--read-only', '-k', socket, ...args]);
}

async function open(uri: string, options: NbdSourceOptions = {}) {
  const source = await nbdSource(uri, options);
  onTestFinished(() => source.close());
  return source;
}

async function readAll(source: Awaited<ReturnType<typeof nbdSource>>): Promise<Uint8Array> {
  const into = new Uint8Array(source.size);
  await source.read(into, 0);
  return into;
}

/** An image of 64 MiB with one MiB of data at 0, 20 and 63 MiB. */
function sparseImage(directory: string): { path: string; bytes: Uint8Array } {
  const path = makeSparse(join(directory, 'image'), 64 * MIB);
  const bytes = new Uint8Array(64 * MIB);
  const fd = openSync(path, 'r+');
  for (const at of [0, 20, 63]) {
    const data = seededRandom(at + 1).fill(new Uint8Array(MIB));
    writeSync(fd, data, 0, MIB, at * MIB);
    bytes.set(data, at * MIB);
  }
  closeSync(fd);
  return { path, bytes };
}

/** The bytes that nbdkit's log filter saw being read. */
function readBytes(log: string): number {
  return [...readFileSync(log, 'utf8').matchAll(/ Read .*count=(0x[0-9a-f]+) \.\.\./g)].reduce(
    (sum, [, count]) => sum + Number(count),
    0,
  );
}

/** NBD has no identity. The only line on stderr says so. */
const NO_IDENTITY = expect.stringMatching(/^copyondemand: warning: nbd.+ is an NBD export, .+ --sha256\n$/) as string;

describeWith(['nbdkit'], 'from nbdkit', () => {
  test('copies a sparse image without fetching its holes', async () => {
    const directory = temporaryDirectory();
    const { path, bytes } = sparseImage(directory);
    const [socket, log] = [join(directory, 's'), join(directory, 'log')];
    await nbdkit(socket, '--filter=log', 'file', path, `logfile=${log}`);
    // Without a look at the first and last bytes.
    const flags = ['--format', 'raw', '--json'];
    const result = await runCommand(['copy', `nbd+unix:///?socket=${socket}`, join(directory, 'disk'), ...flags]);
    expect(result).toMatchObject({ exitCode: 0, stderr: NO_IDENTITY });
    expect(readBytes(log)).toBe(3 * MIB);
    expectBytes(readFileSync(join(directory, 'disk')), bytes);
  });

  test('copies an image of zeros in memory without a read', async () => {
    const directory = temporaryDirectory();
    const [socket, log] = [join(directory, 's'), join(directory, 'log')];
    await nbdkit(socket, '--filter=log', 'memory', '1G', `logfile=${log}`);
    const flags = ['--format', 'raw', '--quiet'];
    const result = await runCommand(['copy', `nbd+unix:///?socket=${socket}`, join(directory, 'disk'), ...flags]);
    expect(result).toMatchObject({ exitCode: 0, stderr: NO_IDENTITY });
    expect(readBytes(log)).toBe(0);
  });

  test.each([
    { name: 'without structured replies', args: ['--no-sr'] },
    { name: 'that is slow', args: ['--filter=delay', 'rdelay=20ms'] },
    { name: 'with 20 % failing reads', args: ['--filter=error', 'error-pread=EIO', 'error-pread-rate=20%'] },
    {
      name: 'with blocks of 4096 bytes',
      args: ['--filter=blocksize-policy', 'blocksize-minimum=4096', 'blocksize-error-policy=error'],
    },
    {
      name: 'with requests of at most 64 KiB',
      args: [
        '--filter=blocksize-policy',
        'blocksize-maximum=64k',
        'blocksize-preferred=4k',
        'blocksize-error-policy=error',
      ],
    },
    { name: 'that handles one request at a time', args: ['--filter=noparallel'] },
    { name: 'without extents', args: ['--filter=noextents'] },
  ])('reads any range correctly from a server $name', async ({ args }) => {
    const directory = temporaryDirectory();
    const bytes = seededRandom(9).fill(new Uint8Array(4 * MIB));
    const path = join(directory, 'image');
    writeFileSync(path, bytes);
    const socket = join(directory, 's');
    await nbdkit(
      socket,
      ...args.filter((arg) => arg.startsWith('-')),
      'file',
      path,
      ...args.filter((arg) => !arg.startsWith('-')),
    );
    const source = await open(`nbd+unix:///?socket=${socket}`, { retry: { baseDelayMs: 1 } });
    expectBytes(await readAll(source), bytes);
    const random = seededRandom(4);
    await Promise.all(
      Array.from({ length: 30 }, async () => {
        const offset = random.below(bytes.length);
        const into = new Uint8Array(1 + random.below(Math.min(100_000, bytes.length - offset)));
        await source.read(into, offset);
        expectBytes(into, bytes.subarray(offset, offset + into.length));
      }),
    );
    const streamed: Uint8Array[] = [];
    for await (const piece of source.stream!(1, bytes.length - 1)) streamed.push(piece.slice());
    expectBytes(Buffer.concat(streamed), bytes.subarray(1));
    const extents = (await source.extents?.(0, bytes.length)) ?? [{ length: bytes.length, zero: false }];
    expect(extents).toEqual([{ length: bytes.length, zero: false }]);
  });

  test('reports the extents of data and holes to the byte', async () => {
    const socket = join(temporaryDirectory(), 's');
    await nbdkit(socket, 'data', '@0x10000 1 2 3 @0x30000 4', 'size=1M');
    const source = await open(`nbd+unix:///?socket=${socket}`);
    const extents = await source.extents!(0, MIB);
    const zeros = await Promise.all(
      extents.map(async ({ length, zero }, index) => {
        const into = new Uint8Array(length);
        await source.read(
          into,
          extents.slice(0, index).reduce((sum, run) => sum + run.length, 0),
        );
        return !zero || into.every((byte) => byte === 0);
      }),
    );
    expect(extents.some(({ zero }) => zero)).toBe(true);
    expect(zeros).not.toContain(false);
  });

  test('refuses the oldstyle handshake with its reason', async () => {
    const socket = join(temporaryDirectory(), 's');
    await nbdkit(socket, '-o', 'memory', '1M');
    await expect(nbdSource(`nbd+unix:///?socket=${socket}`)).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringContaining('oldstyle'),
    });
  });
});

describeWith(['qemu-nbd', 'qemu-img'], 'from qemu-nbd', () => {
  test('copies a named export with its holes; another name is not found', async () => {
    const directory = temporaryDirectory();
    const { path, bytes } = sparseImage(directory);
    const qcow = join(directory, 'image.qcow2');
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', path, qcow);
    const socket = join(directory, 's');
    await qemuNbd(socket, '-x', 'the disk', '-f', 'qcow2', qcow);
    const uri = (name: string) => `nbd+unix:///${name}?socket=${socket}`;
    const result = await runCommand(['copy', uri('the%20disk'), join(directory, 'disk'), '--json']);
    expect(result).toMatchObject({ exitCode: 0, stderr: NO_IDENTITY });
    expectBytes(readFileSync(join(directory, 'disk')), bytes);
    const done = JSON.parse(result.stdout.trim().split('\n').at(-1)!) as { sourceBytes: number };
    expect(done.sourceBytes).toBe(3 * MIB);
    await expect(nbdSource(uri('other'))).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
  });

  test('resumes a copy when the server is killed and restarted', async () => {
    const directory = temporaryDirectory();
    const path = join(directory, 'image');
    const bytes = seededRandom(2).fill(new Uint8Array(32 * MIB));
    writeFileSync(path, bytes);
    const socket = join(directory, 's');
    const server = await qemuNbd(socket, '-f', 'raw', path);
    const target = join(directory, 'disk');
    const rate = join(directory, 'rate');
    writeFileSync(rate, '4M');
    let copied: () => void;
    const halfway = new Promise<void>((resolve) => (copied = resolve));
    const copy = startCommand(['copy', `nbd+unix:///?socket=${socket}`, target, '--json', '--rate-file', rate], {
      onLine: (line) => {
        const event = JSON.parse(line) as JsonEvent;
        if (event.event === 'progress' && (event['bytes'] as number) > 0) copied();
      },
    });
    await halfway;
    server.kill('SIGKILL');
    await once(server, 'exit');
    rmSync(socket, { force: true });
    writeFileSync(rate, 'unlimited');
    await qemuNbd(socket, '-f', 'raw', path);
    expect(await copy.result).toMatchObject({ exitCode: 0, stderr: NO_IDENTITY });
    expectBytes(readFileSync(target), bytes);
  });
});

/** Makes an authority, a server certificate for localhost and a client certificate, under the names nbdkit expects. */
function makeCertificates(directory: string): void {
  const at = (name: string) => join(directory, name);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  run(
    'openssl',
    'req',
    '-x509',
    ...key,
    '-days',
    '2',
    '-subj',
    '/CN=test authority',
    '-keyout',
    at('ca-key.pem'),
    '-out',
    at('ca-cert.pem'),
  );
  for (const who of ['server', 'client']) {
    const name = who === 'server' ? 'localhost' : 'client';
    writeFileSync(at(`${who}.ext`), `subjectAltName=DNS:${name}\n`);
    run('openssl', 'req', ...key, '-subj', `/CN=${name}`, '-keyout', at(`${who}-key.pem`), '-out', at(`${who}.csr`));
    const signing = [
      '-CA',
      at('ca-cert.pem'),
      '-CAkey',
      at('ca-key.pem'),
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      at(`${who}.ext`),
    ];
    run('openssl', 'x509', '-req', '-in', at(`${who}.csr`), ...signing, '-out', at(`${who}-cert.pem`));
  }
}

describeWith(['nbdkit', 'openssl'], 'over TLS', () => {
  test('reads an export with the right certificates only', async () => {
    const [directory, others, without] = [temporaryDirectory(), temporaryDirectory(), temporaryDirectory()];
    makeCertificates(directory);
    makeCertificates(others);
    writeFileSync(join(without, 'ca-cert.pem'), readFileSync(join(directory, 'ca-cert.pem')));
    const socket = join(directory, 's');
    await nbdkit(
      socket,
      '--tls=require',
      `--tls-certificates=${directory}`,
      '--tls-verify-peer',
      'data',
      '1 2 3',
      'size=1M',
    );
    const uri = (scheme: string, folder?: string) =>
      `${scheme}+unix:///?socket=${socket}${folder === undefined ? '' : `&tls-certificates=${folder}`}`;

    const into = new Uint8Array(4);
    const source = await open(uri('nbds', directory));
    await source.read(into, 0);
    expect([...into]).toEqual([1, 2, 3, 0]);
    expect((await source.extents!(0, MIB)).some(({ zero }) => zero)).toBe(true);

    const refused = (says: RegExp) => ({ code: 'COD_SOURCE_IO', message: expect.stringMatching(says) });
    await expect(nbdSource(uri('nbd'))).rejects.toMatchObject(refused(/requires TLS: use nbds:/));
    await expect(nbdSource(uri('nbds'))).rejects.toMatchObject(refused(/the TLS connection failed/));
    await expect(nbdSource(uri('nbds', others))).rejects.toMatchObject(refused(/the TLS connection failed/));
    await expect(nbdSource(uri('nbds', directory), { tls: { servername: 'elsewhere' } })).rejects.toMatchObject(
      refused(/the TLS connection failed/),
    );
    await expect(nbdSource(uri('nbds', without), { retry: { attempts: 2 } })).rejects.toMatchObject(
      refused(/TLS connection failed|require a client certificate/),
    );
    await expect(nbdSource(uri('nbds', temporaryDirectory()))).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
  });

  test('fails on a server without TLS', async () => {
    const socket = join(temporaryDirectory(), 's');
    await nbdkit(socket, '--tls=off', 'memory', '1M');
    await expect(nbdSource(`nbds+unix:///?socket=${socket}`)).rejects.toMatchObject({
      message: expect.stringContaining('does not offer TLS'),
    });
    expect(existsSync(socket)).toBe(true);
  });
});
