/** Each state of a copy, as `status` tells it, and its last error. */

import { once } from 'node:events';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { parseOwner } from '../../src/fs/lock-owner.ts';
import type { CopyStatus } from '../../src/node.ts';
import { type Running, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { type Behaviour, HostileServer, honest } from '../support/http-server.ts';

const BYTES = 2 ** 22;
const SECRET = 'hunter2';

interface Copy {
  readonly target: string;
  /** Starts `serve` with the same arguments. */
  start(...flags: string[]): Running;
}

async function copyFrom(behaviour: Behaviour): Promise<Copy & { readonly source: HostileServer }> {
  const source = await HostileServer.start(new Uint8Array(BYTES).fill(1), behaviour);
  onTestFinished(() => source.stop());
  const directory = temporaryDirectory();
  const target = join(directory, 'disk');
  const url = `${source.origin}/image?token=${SECRET}`;
  return {
    source,
    target,
    start: (...flags) => {
      const args = ['serve', url, target, '--socket', join(directory, 's'), '--user', `me:${SECRET}`, ...flags];
      const running = startCommand(args);
      onTestFinished(() => void running.child.kill('SIGKILL'));
      return running;
    },
  };
}

async function statusOf(target: string): Promise<CopyStatus> {
  const { stdout, stderr, exitCode } = await runCommand(['status', target, '--json']);
  expect([stderr, exitCode]).toEqual(['', 0]);
  expect(stdout).not.toContain(SECRET);
  return JSON.parse(stdout) as CopyStatus;
}

/** Asks until the status is as expected. */
async function statusWith(target: string, test: (status: CopyStatus) => boolean): Promise<CopyStatus> {
  for (;;) {
    const { stdout, exitCode } = await runCommand(['status', target, '--json']);
    const status = exitCode === 0 ? (JSON.parse(stdout) as CopyStatus) : undefined;
    if (status !== undefined && test(status)) return statusOf(target);
  }
}

async function lineOf(target: string): Promise<string> {
  const { stdout } = await runCommand(['status', target]);
  expect(stdout).not.toContain(SECRET);
  return stdout;
}

const busy: Behaviour = (ask) => ask.send({ status: 503, body: '' });

test('opening: the source does not answer, or is busy', async () => {
  const { source, target, start } = await copyFrom(() => undefined);
  const first = start();
  const status = await statusWith(target, ({ state }) => state === 'opening');
  expect(status).toMatchObject({ pid: first.child.pid, size: null, secondsLeft: null, lastError: null, paused: false });
  expect(status.source).toBe(`${source.origin}/image?…`);
  expect(await lineOf(target)).toBe(`${target}: opening, process ${first.child.pid}\n`);
  for (const command of ['pause', 'resume'])
    expect(await runCommand([command, target])).toMatchObject({
      exitCode: 1,
      stderr: `copyondemand: COD_NOT_RUNNING: ${target} is being opened; try again\n`,
    });
  first.child.kill('SIGKILL');
  await first.result;
  source.behaviour = busy;
  start();
  const failing = await statusWith(target, ({ lastError }) => lastError !== null);
  expect(failing).toMatchObject({ state: 'opening', lastError: { code: 'COD_SOURCE_IO', recoveredAt: null } });
  source.behaviour = honest;
  const over = await statusWith(target, ({ state }) => state === 'hydrated');
  expect(over).toMatchObject({ nextAttemptAt: null, lastError: { recoveredAt: expect.any(String) } });
}, 60_000);

const forbidden: Behaviour = (ask) => ask.send({ status: 403, body: '' });

test('waiting for the source, and hydrated when it is back', async () => {
  const { source, target, start } = await copyFrom((ask) => (ask.isOpening ? ask.send() : forbidden(ask)));
  start();
  const status = await statusWith(target, ({ state }) => state === 'waiting');
  expect(status).toMatchObject({ secondsLeft: null, bytesPerSecond: 0, lastError: { recoveredAt: null } });
  expect(status.lastError!.message).toContain('403');
  expect(status.retries).toBeGreaterThan(0);
  expect(Date.parse(status.nextAttemptAt!)).toBeGreaterThan(Date.parse(status.lastError!.time));
  expect(await lineOf(target)).toMatch(/: waiting, process \d+, .*, last error: \d{4}-.*Z COD_SOURCE_IO: .*403/);
  source.behaviour = honest;
  const complete = await statusWith(target, ({ state }) => state === 'hydrated');
  expect(complete).toMatchObject({ secondsLeft: 0, nextAttemptAt: null, syncedBlocks: complete.totalBlocks });
  expect(complete.lastError).toMatchObject({ code: 'COD_SOURCE_IO', recoveredAt: expect.any(String) });
  expect(Date.parse(complete.lastError!.recoveredAt!)).toBeGreaterThanOrEqual(Date.parse(complete.lastError!.time));
  expect(await lineOf(target)).toContain('last error, recovered: ');
}, 60_000);

test('paused, until the process ends', async () => {
  const { target, start } = await copyFrom(honest);
  const first = start('--rate', '64k');
  await statusWith(target, ({ state }) => state === 'hydrating');
  expect(await runCommand(['pause', target])).toMatchObject({ exitCode: 0 });
  expect(await statusOf(target)).toMatchObject({ state: 'paused', paused: true, secondsLeft: null });
  first.child.kill('SIGTERM');
  await first.result;
  expect(await statusOf(target)).toMatchObject({ state: 'closed', pid: null, paused: false, secondsLeft: null });
  start('--rate', '64k');
  const next = await statusWith(target, ({ state }) => state !== 'opening' && state !== 'closed');
  expect(next).toMatchObject({ state: 'hydrating', paused: false });
}, 60_000);

test('poisoned, after another owner has taken over', async () => {
  const { target, start } = await copyFrom(honest);
  start('--no-hydrate');
  await statusWith(target, ({ state }) => state === 'idle');
  const lock = `${target}.lock`;
  const owner = parseOwner(readFileSync(lock, 'utf8'))!;
  const before: Socket = connect(`${lock}.${owner.socket}`);
  onTestFinished(() => void before.destroy());
  before.write(`{"token":"${owner.token}"}\n{"command":"status"}\n`);
  await once(before, 'data');
  // The lock of another owner, for a moment.
  renameSync(lock, `${lock}.old`);
  writeFileSync(lock, readFileSync(`${lock}.old`, 'utf8').replace(owner.token!, 'f'.repeat(owner.token!.length)));
  before.setEncoding('utf8').write(`{"command":"snapshot","directory":"${join(target, '..')}","name":"copy"}\n`);
  for (let answer = ''; !answer.includes('error'); ) answer += (await once(before, 'data'))[0];
  renameSync(`${lock}.old`, lock);
  const status = await statusOf(target);
  expect(status).toMatchObject({ state: 'poisoned', lastError: { code: 'COD_POISONED', recoveredAt: null } });
  expect(status.lastError!.message).toContain('taken over');
  const paused = await runCommand(['pause', target]);
  expect(paused).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('COD_POISONED') });
});
