/** Who may ask the owner of a copy, and owners that cannot answer. */

import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { parseOwner } from '../../src/fs/lock-owner.ts';
import { type Running, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';

const STRANGER = 65_534;

async function serve(): Promise<{ directory: string; target: string; server: Running }> {
  const directory = temporaryDirectory();
  const [source, target] = [join(directory, 'source'), join(directory, 'disk')];
  writeFileSync(source, new Uint8Array(2 ** 20).fill(1));
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const args = ['serve', source, target, '--socket', join(directory, 's'), '--no-hydrate'];
  const server = startCommand(args, { onLine: () => listening() });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await ready;
  return { directory, target, server };
}

/** Runs a program as another user, and returns what it prints. */
function asStranger(program: string, ...args: string[]): string {
  const how = { uid: STRANGER, gid: STRANGER, encoding: 'utf8', cwd: '/' } as const;
  const { stdout, stderr, error } = spawnSync(process.execPath, ['-e', program, ...args], how);
  expect([error, stderr]).toEqual([undefined, '']);
  return stdout.trim();
}

const TRY = `
  const [socket, lock] = process.argv.slice(1);
  const found = [];
  try { require('node:fs').readFileSync(lock); found.push('read'); } catch (error) { found.push(error.code); }
  require('node:net').connect(socket)
    .on('connect', () => { console.log(...found, 'connected'); process.exit(); })
    .on('error', (error) => console.log(...found, error.code));
`;

test.skipIf(process.getuid?.() !== 0)('another user can neither read the token nor connect', async () => {
  const { directory, target } = await serve();
  const lock = `${target}.lock`;
  const socket = `${lock}.${parseOwner(readFileSync(lock, 'utf8'))!.socket}`;
  // All may enter the directory, and change it.
  chmodSync(directory, 0o777);
  expect(asStranger(TRY, socket, lock)).toBe('EACCES EACCES');
  // So it is the modes that forbid it.
  chmodSync(socket, 0o777);
  chmodSync(lock, 0o666);
  expect(asStranger(TRY, socket, lock)).toBe('read connected');
});

test.skipIf(process.platform === 'win32')(
  'whatever the umask is, lock and socket are for their owner only',
  async () => {
    const before = process.umask(0);
    onTestFinished(() => void process.umask(before));
    const { directory, target } = await serve();
    const names = readdirSync(directory).filter((name) => name.startsWith(`${basename(target)}.lock`));
    expect(names.filter((name) => name.endsWith('.new'))).toEqual([]);
    for (const name of names) expect([name, statSync(join(directory, name)).mode & 0o777]).toEqual([name, 0o600]);
    expect(names.length).toBeGreaterThanOrEqual(2);
  },
);

test.skipIf(process.platform === 'win32')('an owner that is stopped does not answer, and then it does', async () => {
  const { target, server } = await serve();
  server.child.kill('SIGSTOP');
  const asked = ['status', 'pause', 'snapshot'].map((command) =>
    runCommand([command, target, ...(command === 'snapshot' ? [`${target}.copy`] : [])]),
  );
  for (const result of await Promise.all(asked)) {
    const stderr = new RegExp(
      `^copyondemand: COD_NOT_RUNNING: process ${server.child.pid} .*owns ${target}, and does not answer: ` +
        'no answer within 5 s\n$',
    );
    expect(result).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(stderr), stdout: '' });
  }
  server.child.kill('SIGCONT');
  expect(await runCommand(['status', target])).toMatchObject({ exitCode: 0 });
  server.child.kill('SIGKILL');
  await once(server.child, 'close');
  expect((await runCommand(['status', target])).stdout).toContain('no process owns it');
});
