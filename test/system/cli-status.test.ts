/** `copyondemand status`, and its channel: the socket of the owner. */

import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, onTestFinished, test } from 'vitest';
import { parseOwner } from '../../src/fs/lock-owner.ts';
import { lockFile } from '../../src/fs/node-lock.ts';
import { type Running, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';

const FIELDS = [
  ...['target', 'pid', 'state', 'size', 'blockSize', 'syncedBlocks', 'totalBlocks', 'bytesPerSecond'],
  ...['rateBytesPerSecond', 'secondsLeft', 'source', 'lastError', 'retries', 'clients', 'paused'],
].sort();

async function serving(): Promise<{ target: string; server: Running }> {
  const directory = temporaryDirectory();
  const [source, target] = [join(directory, 'source'), join(directory, 'disk')];
  writeFileSync(source, new Uint8Array(2 ** 20).fill(1));
  const args = ['serve', source, target, '--socket', join(directory, 's'), '--no-hydrate'];
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const server = startCommand(args, { onLine: () => listening() });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await ready;
  return { target, server };
}

async function statusOf(target: string): Promise<Record<string, unknown>> {
  const { stdout, stderr } = await runCommand(['status', target, '--json']);
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

function client(target: string): Socket {
  const { socket } = parseOwner(readFileSync(`${target}.lock`, 'utf8'))!;
  const connection = connect(`${target}.lock.${socket}`);
  onTestFinished(() => void connection.destroy());
  return connection;
}

test('status comes from the owner, and without one from the metadata', async () => {
  const { target, server } = await serving();
  const found = await statusOf(target);
  expect(Object.keys(found).sort()).toEqual(FIELDS);
  expect(found).toMatchObject({ pid: server.child.pid, state: 'idle', size: 2 ** 20, totalBlocks: 256, paused: false });
  const shown = await runCommand(['status', target]);
  expect(shown.stdout).toContain(`disk: idle, process ${server.child.pid}, 0 bytes of 1 MiB (0.0 %)`);
  server.child.kill('SIGKILL');
  await server.result;
  const after = await statusOf(target);
  expect(Object.keys(after).sort()).toEqual(FIELDS);
  expect(after).toMatchObject({ pid: null, state: 'closed', totalBlocks: 256, syncedBlocks: 0 });
});

test('what is not a copy has no status', async () => {
  expect(await runCommand(['status', join(temporaryDirectory(), 'disk')])).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/^copyondemand: COD_NOT_FOUND: .*\n$/),
  });
});

test('a client without the token gets an error, and one that asks for something else too', async () => {
  const { target } = await serving();
  const stranger = client(target);
  stranger.write('{"token":"0"}\n{"command":"status"}\n');
  expect(JSON.parse(await text(stranger))).toMatchObject({ error: { code: 'COD_NOT_RUNNING' } });
  const asking = client(target);
  const { token } = parseOwner(readFileSync(`${target}.lock`, 'utf8'))!;
  asking.end(`{"token":"${token}"}\n{"command":"dance"}\n`);
  expect(JSON.parse(await text(asking))).toMatchObject({ error: { code: 'COD_UNSUPPORTED' } });
});

test('silent clients, and a line that is too long, do not hide that the owner lives', async () => {
  const { target } = await serving();
  const clients = Array.from({ length: 20 }, () => client(target));
  await Promise.all(clients.map((silent) => Promise.race([once(silent, 'connect'), once(silent, 'close')])));
  await expect(lockFile(target)).rejects.toMatchObject({ code: 'COD_LOCKED' });
  for (const silent of clients) silent.destroy();
  const long = client(target);
  long.on('error', () => undefined);
  long.write('x'.repeat(100_000));
  await once(long, 'close');
  await expect(lockFile(target)).rejects.toMatchObject({ code: 'COD_LOCKED' });
});
