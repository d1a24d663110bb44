/** `copyondemand status`, and its channel: the socket of the owner. */

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { parseOwner } from '../../src/fs/lock-owner.ts';
import { lockFile } from '../../src/fs/node-lock.ts';
import { nbdSource } from '../../src/nbd.ts';
import { MAIN, type Running, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';

const FIELDS = [
  ...['target', 'pid', 'state', 'size', 'blockSize', 'syncedBlocks', 'totalBlocks', 'bytesPerSecond'],
  ...['rateBytesPerSecond', 'secondsLeft', 'source', 'lastError', 'retries', 'clients', 'paused'],
  ...['dirtyBlocks', 'rateFile', 'metadata', 'nextAttemptAt', 'since', 'metadataBytes', 'demand', 'background'],
  ...['reads', 'writes', 'flushes', 'errors', 'map'],
].sort();

function serving(): Promise<{ directory: string; target: string; server: Running }> {
  return serve(2 ** 20, '--no-hydrate');
}

/** Serves an image that takes minutes to copy. */
function copying(...flags: string[]): Promise<{ directory: string; target: string; server: Running }> {
  return serve(2 ** 24, '--rate', '64k', ...flags);
}

async function serve(
  bytes: number,
  ...flags: string[]
): Promise<{ directory: string; target: string; server: Running }> {
  const directory = temporaryDirectory();
  const [source, target] = [join(directory, 'source'), join(directory, 'disk')];
  writeFileSync(source, new Uint8Array(bytes).fill(1));
  const args = ['serve', source, target, '--socket', join(directory, 's'), ...flags];
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const server = startCommand(args, { onLine: () => listening() });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await ready;
  return { directory, target, server };
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

test.each(['', ' --json'])('--watch%s ends when its output is no longer read', async (flag) => {
  const { target } = await copying();
  const { stdout } = await promisify(execFile)('sh', [
    ...['-c', `"$0" "$1" status "$2" --watch${flag} | head -n 1`],
    ...[process.execPath, MAIN, target],
  ]);
  expect(stdout.split('\n')).toHaveLength(2);
  expect(stdout).toContain('hydrating');
});

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

test('status counts the clients of the disk', async () => {
  const { directory, target } = await serving();
  expect(await statusOf(target)).toMatchObject({ clients: 0 });
  const used = await nbdSource(`nbd+unix:///?socket=${join(directory, 's')}`);
  expect(await statusOf(target)).toMatchObject({ clients: 1 });
  await used.close();
  while ((await statusOf(target))['clients'] !== 0);
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

test('pause, resume and set-rate steer the copy of the owner', async () => {
  const { directory, target, server } = await copying();
  const steer = async (...args: string[]): Promise<Record<string, unknown>> => {
    const { stdout, stderr, exitCode } = await runCommand([args[0]!, target, ...args.slice(1), '--json']);
    expect([stderr, exitCode]).toEqual(['', 0]);
    return JSON.parse(stdout);
  };
  const pid = server.child.pid;
  const paused = { event: 'done', target, pid, state: 'paused', paused: true, rateBytesPerSecond: 65_536 };
  expect(await steer('pause')).toEqual({ ...paused, hasRateFile: false });
  expect(await statusOf(target)).toMatchObject({ state: 'paused', paused: true });
  expect(await steer('set-rate', '80.5 KiB/s')).toMatchObject({ paused: true, rateBytesPerSecond: 80.5 * 1024 });
  const shown = await runCommand(['resume', target]);
  expect(shown).toMatchObject({ stdout: '', stderr: `${target}: hydrating, at most 80.5 KiB/s, process ${pid}\n` });
  expect(await steer('set-rate', 'unlimited')).toMatchObject({ paused: false, rateBytesPerSecond: null });
  while ((await statusOf(target))['state'] !== 'hydrated');
  // The copy has ended, and there is nothing to steer. The process still serves.
  expect(await steer('pause')).toMatchObject({ state: 'hydrated', paused: false });
  server.child.kill('SIGTERM');
  await server.result;
  expect(readFileSync(target).equals(readFileSync(join(directory, 'source')))).toBe(true);
  expect(await runCommand(['pause', target])).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining(`COD_NOT_RUNNING: no process copies ${target}: start it with`),
  });
});

test('an invalid rate is wrong usage, and a server without a background copy has nothing to steer', async () => {
  const { target } = await serving();
  expect(await runCommand(['set-rate', target, 'fast'])).toMatchObject({ exitCode: 2 });
  expect((await runCommand(['pause', target])).stderr).toContain('COD_UNSUPPORTED');
});

test.skipIf(process.platform === 'win32')('SIGUSR1 prints the status as one line, with --quiet too', async () => {
  const { target, server } = await copying('--quiet');
  const line = once(server.child.stderr!, 'data');
  server.child.kill('SIGUSR1');
  const [text] = (await line) as [string];
  expect(text).toMatch(new RegExp(`^${target}: hydrating, process ${server.child.pid}, .*\\n$`));
  server.child.kill('SIGTERM');
  expect(await server.result).toMatchObject({ exitCode: 0, stderr: text });
});
