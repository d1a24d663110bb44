/** Runs the commands of docs/OPERATIONS.md and docs/NBD.md as they stand there. */

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { nbdSource } from '../../src/nbd.ts';
import { IMAGE_BYTES, imageBytes, makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { certify, makeAuthority } from '../support/certificates.ts';
import { DocumentShell } from '../support/document-shell.ts';
import { blockOf } from '../support/documents.ts';
import { makeBlockDevice, obstacleToVolumes } from '../support/loop-volume.ts';
import { S3RVER_KEYS, startS3rver } from '../support/s3rver.ts';
import { type Site, startSite } from '../support/site.ts';
import { describeWith } from '../support/tools.ts';

const OPERATIONS = 'docs/OPERATIONS.md';
const NBD = 'docs/NBD.md';
const BLOCK = 4096;
const WAIT = { timeout: 60_000 };

/** A folder with an image, which a server has at `url`. */
async function world(): Promise<{ folder: string; url: string; at(name: string): string; shell: DocumentShell }> {
  const folder = temporaryDirectory();
  makeImage(folder, 'image.raw');
  const site: Site = await startSite({ folders: { '/': folder } });
  onTestFinished(() => site.close());
  return { folder, url: `${site.url}/`, at: (name) => join(folder, name), shell: new DocumentShell(folder) };
}

/** Reads the whole export of a server that listens at a socket, or writes to it. */
async function withExport<T>(
  uri: string,
  use: (source: Awaited<ReturnType<typeof nbdSource>>) => Promise<T>,
): Promise<T> {
  const source = await nbdSource(uri);
  try {
    return await use(source);
  } finally {
    await source.close();
  }
}

const readExport = (uri: string, length = IMAGE_BYTES): Promise<Uint8Array> =>
  withExport(uri, async (source) => {
    const bytes = new Uint8Array(length);
    await source.read(bytes, 0);
    return bytes;
  });

/** Writes to a running export, with a program that we did not write. */
function writeExport(uri: string, offset: number, byte: number, length = BLOCK): void {
  const code = `h.pwrite(bytearray([${byte}]) * ${length}, ${offset}); h.flush()`;
  // The system's Python has the module.
  execFileSync('/usr/bin/nbdsh', ['-u', uri, '-c', code], { env: { ...process.env, PATH: '/usr/bin:/bin' } });
}

test('the boot order of a first machine serves a second one, and a copy', async () => {
  const { url, at, shell } = await world();
  const replaced = { 'https://example.org/': url, serve: `serve --socket ${at('s')} --rate 64k` };
  await shell.run(blockOf(OPERATIONS, 'order').replace(/^copyondemand copy/m, 'copyondemand copy --quiet'), {
    replaced,
    async after(command) {
      if (!command.includes('serve')) return;
      expectBytes(await readExport(`nbd+unix:///?socket=${at('s')}`), imageBytes());
      await shell.stop();
    },
  });
  expectBytes(readFileSync(at('third.raw')), imageBytes());
  const [head, size, first] = readFileSync(at('image.order'), 'utf8').split('\n');
  const example = blockOf(OPERATIONS, 'order-file').split('\n');
  expect(head).toBe(example[0]);
  expect(size).toBe(`size ${IMAGE_BYTES}`);
  for (const line of [first, ...example.slice(2, 4)]) expect(line).toMatch(/^\d+ \d+ \d+$/);
});

test('a running copy is asked and steered', async () => {
  const { url, at, shell } = await world();
  await shell.run(`copyondemand serve ${url}image.raw disk.raw --socket ${at('s')} --rate 64k`);
  const outputs: string[] = [];
  // The screen would stay: here it is a pipe, and its first line is enough.
  await shell.run(blockOf(OPERATIONS, 'control'), {
    replaced: { '--watch': '--watch | head -n 1' },
    after: (_, output) => outputs.push(output),
  });
  expect(outputs).toHaveLength(5);
  expect(JSON.parse(outputs[1]!)).toMatchObject({ target: 'disk.raw' });
  const status = JSON.parse(await shell.run('copyondemand status disk.raw --json')) as Record<string, unknown>;
  expect(status).toMatchObject({ paused: false, rateBytesPerSecond: 20 * 2 ** 20 });
});

test('copies of a group share a rate', async () => {
  const { url, at, shell } = await world();
  makeImage(at('.'), 'a.raw', 1);
  makeImage(at('.'), 'b.raw', 2);
  const replaced = {
    'https://example.org/': url,
    ' a.raw': ' a.disk',
    ' b.raw': ' b.disk',
    serve: `serve --socket ${at('s')}`,
  };
  await shell.run(blockOf(OPERATIONS, 'groups'), { replaced });
  expectBytes(await readExport(`nbd+unix:///?socket=${at('s')}`), imageBytes(2));
  await expect.poll(() => readFileSync(at('a.disk')).equals(imageBytes(1)), WAIT).toBe(true);
});

describeWith(['qemu-img', 'qemu-nbd', 'nbdsh'], 'backups', () => {
  test('a snapshot is taken while the disk is served, and copied elsewhere', async () => {
    const { url, at, shell } = await world();
    mkdirSync(at('backup'));
    await shell.run(`copyondemand serve ${url}image.raw disk.raw --socket ${at('s')}`);
    await shell.run(blockOf(OPERATIONS, 'snapshot'), { replaced: { '/backup/': `${at('backup')}/` } });
    const restored = at('backup/disk.raw.backup');
    await shell.run(`copyondemand copy --quiet ${url}image.raw ${restored}`);
    expectBytes(readFileSync(restored), imageBytes());
  });

  test('increments are made and restored', async () => {
    const { url, at, shell } = await world();
    mkdirSync(at('backup'));
    const uri = `nbd+unix:///?socket=${at('s')}`;
    await shell.run(`copyondemand serve ${url}image.raw disk.raw --socket ${at('s')}`);
    expectBytes(await readExport(uri), imageBytes());
    await expect
      .poll(async () => (await shell.run('copyondemand status disk.raw --json')).includes('"state":"hydrated"'), WAIT)
      .toBe(true);
    const expected = imageBytes();
    const replaced = { '/backup/': `${at('backup')}/`, '/run/backup.sock': at('b') };
    let day = 0;
    await shell.run(blockOf(OPERATIONS, 'increments'), {
      replaced,
      after(command) {
        if (!/snapshot/.test(command) || day === 2) return;
        // What the next increment has.
        writeExport(uri, (3 + day) * BLOCK, 7 + day);
        expected.fill(7 + day, (3 + day) * BLOCK, (4 + day) * BLOCK);
        day++;
      },
    });
    let tuesday: Uint8Array | undefined;
    await shell.run(blockOf(OPERATIONS, 'restore'), {
      replaced,
      async after(command) {
        if (!command.startsWith('qemu-nbd')) return;
        await expect.poll(() => existsSync(at('b')), WAIT).toBe(true);
        tuesday = await readExport(`nbd+unix:///?socket=${at('b')}`);
        await shell.stop();
      },
    });
    expectBytes(readFileSync(at('restored.raw')), expected);
    expect([tuesday![3 * BLOCK], tuesday![4 * BLOCK]]).toEqual([7, imageBytes()[4 * BLOCK]]);
  });
});

test('a manifest verifies a copy, a service, and a copy that was made', async () => {
  const { url, at, shell } = await world();
  const replaced: Record<string, string> = {
    'https://example.org/': url,
    'copyondemand copy': 'copyondemand copy --quiet',
    serve: `serve --socket ${at('s')}`,
  };
  await shell.run(blockOf(OPERATIONS, 'manifest'), {
    replaced,
    after(command, output) {
      // The first command prints the root, which a reader puts into the last one.
      if (/ manifest image/.test(command)) replaced['ROOT'] = /[0-9a-f]{64}/.exec(output)![0];
      if (/ copy /.test(command)) replaced[' disk.raw'] = ' other.raw';
    },
  });
  expectBytes(await readExport(`nbd+unix:///?socket=${at('s')}`), imageBytes());
  await shell.stop();
  expectBytes(readFileSync(at('disk.raw')), imageBytes());

  // A new version of the image differs in one block.
  const newer = imageBytes().fill(9, 5 * BLOCK, 6 * BLOCK);
  writeFileSync(at('new.raw'), newer);
  writeFileSync(at('old.raw'), imageBytes());
  await shell.run('copyondemand manifest new.raw new.manifest');
  await shell.run(blockOf(OPERATIONS, 'seed'), { replaced: { 'https://example.org/': url, ' new.raw': ' copy.raw' } });
  expectBytes(readFileSync(at('copy.raw')), newer);

  await shell.run(blockOf(OPERATIONS, 'verify'), { replaced: { 'https://example.org/': url } });
});

const obstacle = obstacleToVolumes();

describe.skipIf(obstacle !== undefined)(
  `a volume as the target${obstacle === undefined ? '' : ` (${obstacle})`}`,
  () => {
    describeWith(['losetup'], 'of a service', () => {
      test('is served, asked and finished', async () => {
        const { url, at, shell } = await world();
        mkdirSync(at('metadata'));
        const device = makeBlockDevice(new Uint8Array(IMAGE_BYTES).fill(3));
        await shell.run(blockOf(OPERATIONS, 'volume'), {
          replaced: {
            'https://example.org/': url,
            '/dev/vg/vm1': device,
            '/var/lib/copyondemand': at('metadata'),
            serve: `serve --socket ${at('s')}`,
          },
          async after(command) {
            if (!/ status /.test(command)) return;
            const uri = `nbd+unix:///?socket=${at('s')}`;
            expectBytes(await readExport(uri), imageBytes());
            const status = `copyondemand status ${device} --metadata ${at('metadata/vm1')} --json`;
            await expect.poll(async () => (await shell.run(status)).includes('"state":"hydrated"'), WAIT).toBe(true);
            await shell.stop();
          },
        });
        expectBytes(readFileSync(device), imageBytes());
      });
    });
  },
);

test('an object of S3 is copied', async () => {
  const { at } = await world();
  const { origin, put } = await startS3rver();
  await put('disk.raw', imageBytes());
  const shell = new DocumentShell(temporaryDirectory(), {
    AWS_ACCESS_KEY_ID: S3RVER_KEYS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: S3RVER_KEYS.secretAccessKey,
    AWS_ENDPOINT_URL: origin,
  });
  await expectThreeCopies(shell, at, 's3', { 'http://minio:9000': origin });
});

/** Runs three commands of docs/OPERATIONS.md that make `disk.raw`, each of them for another file. */
async function expectThreeCopies(
  shell: DocumentShell,
  at: (name: string) => string,
  block: string,
  replaced: Readonly<Record<string, string>>,
): Promise<void> {
  let copy = 0;
  const all: Record<string, string> = { ...replaced, ' disk.raw': ` ${at('0')}`, ' copy ': ' copy --quiet ' };
  await shell.run(blockOf(OPERATIONS, block), {
    replaced: all,
    after() {
      expectBytes(readFileSync(at(`${copy}`)), imageBytes());
      all[' disk.raw'] = ` ${at(`${++copy}`)}`;
    },
  });
  expect(copy).toBe(3);
}

describeWith(['nbdkit', 'openssl'], 'a server of NBD', () => {
  test('is the source of a copy, also over a socket and with TLS', async () => {
    const { at, shell } = await world();
    await makeAuthority(at('.'), 'ca');
    await certify(at('.'), 'server', at('.'));
    const ports = [await freePort(), await freePort()];
    const kit = 'nbdkit -f --exit-with-parent -r';
    await shell.run(`${kit} -i 127.0.0.1 -p ${ports[0]} file image.raw &`);
    await shell.run(`${kit} -U ${at('s')} file image.raw &`);
    const tls = `--tls=require --tls-certificates=${at('.')}`;
    await shell.run(`${kit} -i 127.0.0.1 -p ${ports[1]} ${tls} file image.raw &`);
    await expectThreeCopies(shell, at, 'nbd-sources', {
      'nbd://host/': `nbd://127.0.0.1:${ports[0]}/`,
      'nbds://host/': `nbds://localhost:${ports[1]}/`,
      '/run/nbd.sock': at('s'),
      '/etc/pki/nbd': at('.'),
    });
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

describeWith(['nbdsh', 'nbdinfo', 'qemu-img'], 'the export', () => {
  const SIZE = 64 * 2 ** 20;

  /** The outputs that a document shows after `$ command`. */
  const outputOf = (code: string): string => code.replaceAll(/^\$ .*\n/gm, '');

  test('tells its state, and what was modified, as documented', async () => {
    const { url, at, shell } = await world();
    writeFileSync(at('large.raw'), new Uint8Array(SIZE).fill(1));
    const uri = `nbd+unix:///?socket=${at('s')}`;
    const replaced = { '/run/disk.sock': at('s') };
    await shell.run(`copyondemand serve ${url}large.raw disk.raw --socket ${at('s')} --no-hydrate`);
    await readExport(uri);
    const state = blockOf(NBD, 'state');
    await expect.poll(() => shell.run(state, { replaced }), WAIT).toBe(outputOf(state));
    writeExport(uri, 2 * 2 ** 20, 5, 2 * BLOCK);
    const modified = blockOf(NBD, 'modified');
    expect(await shell.run(modified, { replaced })).toBe(outputOf(modified));
    const map = JSON.parse(await shell.run(blockOf(NBD, 'qemu-map'), { replaced })) as { data: boolean }[];
    expect(map.map(({ data }) => data)).toEqual([true, false, true]);
  });

  test('is served, and converted by QEMU', async () => {
    const { url, at, shell } = await world();
    const replaced = {
      'https://images.example/disk.raw': `${url}image.raw`,
      '/var/lib/vm/': at(''),
      '/run/disk.sock': at('s'),
    };
    await shell.run(blockOf(NBD, 'serve'), { replaced });
    const [machine, convert] = blockOf(NBD, 'qemu')
      .replaceAll(/ *\\\n\s*/g, ' ')
      .trim()
      .split('\n');
    await shell.run(convert!, { replaced });
    await shell.run('qemu-img convert -O raw disk.qcow2 converted.raw');
    expectBytes(readFileSync(at('converted.raw')), imageBytes());
    // The machine's options, in a machine that ends at once.
    const options = machine!.replace('qemu-system-x86_64 …', 'qemu-system-x86_64 -display none -S -monitor stdio');
    await shell.run(`echo quit | ${options}`, { replaced });
  });
});

describeWith(['nbdfuse', 'fusermount3', '/dev/fuse'], 'nbdfuse', () => {
  test('shows the export as a file', async () => {
    const { url, at, shell } = await world();
    execFileSync('truncate', ['-s', '8M', at('ext4.raw')]);
    execFileSync('mke2fs', ['-q', '-t', 'ext4', at('ext4.raw')], { env: { ...process.env, PATH: '/usr/sbin:/sbin' } });
    mkdirSync(at('disk'));
    await shell.run(`copyondemand serve ${url}ext4.raw copy.raw --socket ${at('s')}`);
    const replaced = { '/tmp/disk': at('disk'), '/run/disk.sock': at('s') };
    await shell.run(blockOf(NBD, 'nbdfuse'), {
      replaced,
      async after(command) {
        if (!command.startsWith('nbdfuse')) return;
        await expect.poll(() => execFileSync('ls', [at('disk')], { encoding: 'utf8' }), WAIT).toBe('nbd\n');
      },
    });
  });
});

describeWith(['openssl', 'nbdinfo', 'qemu-img'], 'TLS', () => {
  test('the export is read with certificates', async () => {
    const { url, at, shell } = await world();
    await makeAuthority(at('.'), 'ca');
    mkdirSync(at('client'));
    await certify(at('.'), 'server', at('.'));
    await certify(at('.'), 'client', at('client'));
    copyFileSync(at('ca-cert.pem'), at('client/ca-cert.pem'));
    const replaced: Record<string, string> = {
      'serve …': `serve ${url}image.raw disk.raw --quiet --json`,
      '0.0.0.0': '127.0.0.1 --port 0',
      '/etc/pki/client': at('client'),
    };
    await shell.run(blockOf(NBD, 'tls'), {
      replaced,
      after(_, output) {
        const port = /nbds?:\/\/[^:/]*:(\d+)/.exec(output)?.[1];
        if (port === undefined) return;
        replaced['nbds://server/'] = `nbds://localhost:${port}/`;
        replaced['file.host=server,file.port=10809'] = `file.host=localhost,file.port=${port}`;
      },
    });
  });
});
