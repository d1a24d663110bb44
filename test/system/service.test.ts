/** `serve` under a service manager: sockets that are handed over, messages, unit files, containers. */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { MAIN, runCommand, startCommand } from '../cli/command.ts';
import { imageBytes, makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { blockOf } from '../support/documents.ts';
import { mustRun, startProgram } from '../support/programs.ts';
import { PYTHON, SocketHolder, startManager } from '../support/service-parent.ts';
import { describeWith } from '../support/tools.ts';

const UNITS = fileURLToPath(new URL('../../examples/systemd', import.meta.url));

async function copyOf(uri: string, directory: string, name = 'read'): Promise<Uint8Array> {
  const path = join(directory, name);
  await mustRun('nbdcopy', uri, path);
  return new Uint8Array(readFileSync(path));
}

describeWith([PYTHON, 'nbdcopy'], 'a parent hands sockets over', () => {
  test('a unix socket and a port are served, and are left to the parent', async () => {
    const directory = temporaryDirectory();
    const path = join(directory, 'a socket');
    const args = ['serve', makeImage(directory), join(directory, 'disk')];
    const holder = await SocketHolder.start([path, '0'], args);
    const first = await holder.serve();
    expect(first.uri).toBe(`nbd+unix:///?socket=${path.replace(' ', '%20')}`);
    expectBytes(await copyOf(first.uri, directory), imageBytes());
    expectBytes(await copyOf(`nbd://127.0.0.1:${holder.ports[0]}/`, directory, 'again'), imageBytes());
    process.kill(first.pid, 'SIGTERM');
    expect(await first.ended()).toBe(0);
    expect(existsSync(path)).toBe(true);
    const second = await holder.serve();
    expectBytes(await copyOf(second.uri, directory, 'third'), imageBytes());
  });

  test('a port alone is announced', async () => {
    const directory = temporaryDirectory();
    const args = ['serve', makeImage(directory), join(directory, 'disk'), '--export', 'disk'];
    const holder = await SocketHolder.start(['0'], args);
    const { uri } = await holder.serve();
    expect(uri).toBe(`nbd://127.0.0.1:${holder.ports[0]}/disk`);
  });
});

test.each([
  {
    name: 'an address beside a socket that was handed over',
    env: { LISTEN_FDS: '1' },
    flags: ['--port', '0'],
    code: 2,
    says: 'handed over',
  },
  { name: 'an invalid number of sockets', env: { LISTEN_FDS: 'x' }, flags: [], code: 2, says: 'LISTEN_FDS' },
  {
    name: 'a descriptor that is no socket',
    env: { LISTEN_FDS: '1' },
    flags: [],
    code: 1,
    says: 'COD_TARGET_IO: listen at descriptor 3',
  },
])('refuses $name before a copy begins', async ({ env, flags, code, says }) => {
  const directory = temporaryDirectory();
  const args = ['serve', makeImage(directory), join(directory, 'disk'), ...flags];
  // `sh` becomes the server, so that it can know its process id.
  const script = 'exec 3</dev/null; LISTEN_PID=$$ exec "$0" "$@"';
  const child = spawn('sh', ['-c', script, process.execPath, MAIN, ...args], { env: { ...process.env, ...env } });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [exitCode] = await once(child, 'close');
  expect(stderr).toContain(says);
  expect(exitCode).toBe(code);
  expect(readdirSync(directory)).toEqual(['image']);
});

test('sockets of another process are not taken', async () => {
  const directory = temporaryDirectory();
  const socket = join(directory, 's');
  let listening!: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const server = startCommand(['serve', makeImage(directory), join(directory, 'disk'), '--socket', socket], {
    env: { LISTEN_FDS: '1', LISTEN_PID: '1' },
    onLine: () => listening(),
  });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await ready;
  expect(existsSync(socket)).toBe(true);
});

describeWith(['systemd-socket-activate', 'nbdcopy'], 'systemd-socket-activate', () => {
  test('starts the server at the first client, which waits and is served', async () => {
    const directory = temporaryDirectory();
    const socket = join(directory, 's');
    const args = ['-l', socket, process.execPath, MAIN, 'serve', makeImage(directory), join(directory, 'disk')];
    const { child } = startProgram('systemd-socket-activate', ...args);
    onTestFinished(() => void child.kill('SIGKILL'));
    let stderr = '';
    await new Promise<void>((resolve) => {
      child.stderr!.on('data', (text: string) => (stderr += text).includes('Listening on') && resolve());
    });
    expectBytes(await copyOf(`nbd+unix:///?socket=${socket}`, directory), imageBytes());
  });
});

describeWith([PYTHON, 'systemd-notify'], 'a service manager learns', () => {
  test('when clients can connect, how far the copy is, that the server is alive, and that it ends', async () => {
    const directory = temporaryDirectory();
    const notify = join(directory, 'notify');
    const manager = await startManager(notify);
    const args = ['serve', makeImage(directory), join(directory, 'disk'), '--socket', join(directory, 's'), '--quiet'];
    const env = { NOTIFY_SOCKET: notify, WATCHDOG_USEC: '200000' };
    const server = startCommand(args, { env });
    onTestFinished(() => void server.child.kill('SIGKILL'));
    expect(await manager.seen(/READY=1/)).toMatch(/^READY=1\nSTATUS=.*disk: .*MiB/);
    await manager.seen(/WATCHDOG=1/);
    await manager.seen(/STATUS=.*disk: hydrated, .*1 MiB of 1 MiB/);
    server.child.kill('SIGTERM');
    expect(await server.result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(manager.all().at(-1)).toMatch(/^STOPPING=1\n/);
  });

  test('a missing manager does no harm', async () => {
    const directory = temporaryDirectory();
    const args = ['serve', makeImage(directory), join(directory, 'disk'), '--socket', join(directory, 's')];
    const server = startCommand(args, {
      env: { NOTIFY_SOCKET: join(directory, 'nothing') },
      onLine: () => server.child.kill('SIGTERM'),
    });
    const { exitCode, stderr } = await server.result;
    expect(exitCode).toBe(0);
    expect(stderr.match(/NOTIFY_SOCKET is set, but/g)).toHaveLength(1);
  });
});

describeWith(['systemd-analyze'], 'the unit files of examples/systemd', () => {
  /** Returns what `systemd-analyze verify` finds in the units, with an instance of the template. */
  function verify(edit: (text: string) => string): string {
    const directory = temporaryDirectory();
    cpSync(UNITS, directory, { recursive: true });
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      writeFileSync(path, edit(readFileSync(path, 'utf8')).replaceAll('/usr/bin/copyondemand', '/bin/true'));
    }
    const units = ['copyondemand.service', 'copyondemand@disk.service', 'copyondemand@disk.socket'];
    for (const unit of units.slice(1)) cpSync(join(directory, unit.replace('disk', '')), join(directory, unit));
    const env = { ...process.env, SYSTEMD_UNIT_PATH: `${directory}:` };
    const paths = units.map((unit) => join(directory, unit));
    const { stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...paths], { env });
    return `${stdout}${stderr}`;
  }

  test('have no fault', () => {
    expect(verify((text) => text)).toBe('');
  });

  test('would not hide a fault', () => {
    expect(verify((text) => text.replace('WatchdogSec', 'WatchDogSec'))).toContain('WatchDogSec');
  });
});

describeWith([PYTHON, 'qemu-io'], 'an upgrade', () => {
  test('behind a held socket gives the guest no I/O error', async () => {
    const directory = temporaryDirectory();
    const socket = join(directory, 's');
    // The copy is not complete before the end, so that each server has work.
    const args = ['serve', makeImage(directory), join(directory, 'disk'), '--rate', '64k', '--quiet'];
    const holder = await SocketHolder.start([socket], args);
    const server = `driver=nbd,server.type=unix,server.path=${socket},reconnect-delay=60`;
    let current = await holder.serve();
    const guest = startProgram(
      'stdbuf',
      '-oL',
      'qemu-io',
      '--image-opts',
      `driver=raw,file.${server.replaceAll(',', ',file.')}`,
    );
    onTestFinished(() => void guest.child.kill('SIGKILL'));
    let output = '';
    let onOutput: () => void = () => undefined;
    guest.child.stdout!.on('data', (text: string) => {
      output += text;
      onOutput();
    });
    let commands = 0;
    /** Resolves when QEMU has done the command. It takes one at a time from a pipe. */
    const run = async (command: string) => {
      guest.child.stdin!.write(`${command}\n`);
      commands++;
      while ((output.match(/ops; /g) ?? []).length < commands)
        await new Promise<void>((resolve) => (onOutput = resolve));
    };
    for (const [block, signal] of (['SIGTERM', 'SIGKILL'] as const).entries()) {
      const range = `-P ${block + 1} ${block * 4096} 4096`;
      await run(`write ${range}`);
      process.kill(current.pid, signal);
      await current.ended();
      // The guest asks while no server runs.
      const read = run(`read ${range}`);
      current = await holder.serve();
      await read;
    }
    guest.child.stdin!.end('quit\n');
    const { exitCode, stdout, stderr } = await guest.outcome;
    expect(`${stdout}${stderr}`).not.toMatch(/error|fail|verif/i);
    expect(exitCode).toBe(0);
  });
});

/** The command of the container that serves, from the Kubernetes recipe, with the paths of this machine. */
function recipe(directory: string, image: string): readonly string[] {
  const yaml = blockOf('docs/NBD.md', 'kubernetes');
  const list = (key: string) => new RegExp(`^ *${key}: \\[(.*)\\]$`, 'm').exec(yaml)![1]!.split(', ');
  const place: Readonly<Record<string, string>> = {
    '/usr/local/lib/node_modules/copyondemand/dist/cli/main.js': MAIN,
    'https://images.example/disk.raw': image,
    '/copy/disk.raw': join(directory, 'copy', 'disk.raw'),
    '/run/nbd/disk.sock': join(directory, 'nbd', 'disk.sock'),
  };
  return [...list('command'), ...list('args')].map((word) => place[word] ?? word);
}

test('the Kubernetes recipe: its own command survives a kill for lack of memory, and ends in order', async () => {
  const directory = temporaryDirectory();
  for (const name of ['copy', 'nbd']) mkdirSync(join(directory, name));
  const [program, ...args] = recipe(directory, makeImage(directory));
  expect(program).toBe('node');
  expect(args.every((word) => !word.startsWith('/usr'))).toBe(true);
  for (const [signal, code] of [
    ['SIGKILL', null],
    ['SIGTERM', 0],
  ] as const) {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    const closed = once(child, 'close');
    await once(child.stdout, 'data');
    child.kill(signal);
    expect((await closed)[0]).toBe(code);
  }
  const { stdout } = await runCommand(['inspect', join(directory, 'copy', 'disk.raw'), '--json']);
  expect(JSON.parse(stdout)).toMatchObject({ totalBlocks: 256 });
});
