/** Each call about a running copy, as a new user would try it, with its errors. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bytesSource, openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { type Result, runCommand, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';

/** The calls, with what follows TARGET. */
const CALLS: Readonly<Record<string, readonly string[]>> = {
  status: [],
  pause: [],
  resume: [],
  'set-rate': ['20M'],
  snapshot: ['copy'],
};

/** Runs each call in a directory, one after another: without an owner, `snapshot` is one for a moment. */
async function runAll(cwd: string, target: string): Promise<Readonly<Record<string, Result>>> {
  const results: Record<string, Result> = {};
  for (const [name, rest] of Object.entries(CALLS)) results[name] = await runCommand([name, target, ...rest], { cwd });
  return results;
}

function failed(exitCode: number, stderr: string): object {
  return { exitCode, stdout: '', stderr: expect.stringMatching(new RegExp(`^copyondemand: ${stderr}`)) };
}

test('an empty TARGET and a missing one are wrong usage', async () => {
  const results = await runAll('.', '');
  for (const name of ['status', 'pause', 'resume', 'set-rate'])
    expect(results[name]).toMatchObject(failed(2, 'TARGET is empty: give the path of a copy\n$'));
  expect(results['snapshot']).toMatchObject(failed(2, 'give the paths of a copy and of its snapshot\n$'));
  for (const name of Object.keys(CALLS)) expect(await runCommand([name])).toMatchObject({ exitCode: 2, stdout: '' });
});

test.each(['fast', '0', '-1', '', '20MM', '1e30'])('the rate %j is wrong usage', async (rate) => {
  expect(await runCommand(['set-rate', 'disk', '--', rate])).toMatchObject({ exitCode: 2, stdout: '' });
});

test('a directory that is missing, and a name where nothing is', async () => {
  const cwd = temporaryDirectory();
  for (const target of ['none/disk', 'disk']) {
    const results = await runAll(cwd, target);
    expect(results['status']).toMatchObject(failed(1, 'COD_NOT_FOUND: '));
    for (const name of ['pause', 'resume', 'set-rate']) {
      const remedy = 'start it with `copyondemand serve` or `copy`';
      expect(results[name]).toMatchObject(failed(1, `COD_NOT_RUNNING: no process copies ${target}: ${remedy}\n$`));
    }
  }
  expect((await runAll(cwd, 'disk'))['snapshot']).toMatchObject(failed(1, 'COD_NOT_FOUND: '));
});

test('an ordinary image, and a directory', async () => {
  const cwd = temporaryDirectory();
  writeFileSync(join(cwd, 'image'), new Uint8Array(512));
  mkdirSync(join(cwd, 'folder'));
  const image = await runAll(cwd, 'image');
  expect(image['status']).toMatchObject(failed(1, 'COD_NOT_FOUND: image has no metadata and is a file of 512 bytes'));
  expect(image['pause']).toMatchObject(failed(1, 'COD_NOT_RUNNING: '));
  expect((await runAll(cwd, 'folder'))['status']).toMatchObject(failed(1, 'COD_NOT_FOUND: '));
  expect(readFileSync(join(cwd, 'image'))).toEqual(Buffer.alloc(512));
});

/** A copy without an owner, which is not complete. */
async function makeCopy(cwd: string): Promise<void> {
  const source = bytesSource(new Uint8Array(2 ** 20).fill(1));
  await (await openDevice({ source, fileSystem: nodeFileSystem(cwd), target: 'disk', hydrate: false })).close();
}

test('a copy without an owner: only the status and a snapshot need none', async () => {
  const cwd = temporaryDirectory();
  await makeCopy(cwd);
  const results = await runAll(cwd, 'disk');
  expect(results['status']).toMatchObject({
    exitCode: 0,
    stderr: '',
    stdout: expect.stringContaining('no process owns it'),
  });
  expect(results['pause']).toMatchObject(failed(1, 'COD_NOT_RUNNING: no process copies disk'));
  expect(results['snapshot']).toMatchObject({ exitCode: 0, stderr: 'copy: a snapshot of disk\n' });
});

test('an owner on another machine, and a lock that is no lock', async () => {
  const cwd = temporaryDirectory();
  await makeCopy(cwd);
  const lock = join(cwd, 'disk.lock');
  const far = { token: 'ff', pid: 7, bootId: 'far', machineId: 'far', host: 'attic', socket: '0123456789abcdef' };
  writeFileSync(lock, `${JSON.stringify({ ...far, unproved: false, beat: 1 })}\n`);
  for (const result of Object.values(await runAll(cwd, 'disk')))
    expect(result).toMatchObject(failed(1, 'COD_NOT_RUNNING: process 7 on attic owns disk, and is on another machine'));
  writeFileSync(lock, 'my diary');
  for (const result of Object.values(await runAll(cwd, 'disk')))
    expect(result).toMatchObject(failed(1, 'COD_NOT_RUNNING: .*disk.lock names no owner'));
  expect(readFileSync(lock, 'utf8')).toBe('my diary');
});

describe('with --json', () => {
  test.each(['pause', 'set-rate', 'snapshot'])('%s reports its error as an event', async (name) => {
    const cwd = temporaryDirectory();
    const { stdout, exitCode } = await runCommand([name, 'disk', ...CALLS[name]!, '--json'], { cwd });
    const code = name === 'snapshot' ? 'COD_NOT_FOUND' : 'COD_NOT_RUNNING';
    expect([JSON.parse(stdout), exitCode]).toMatchObject([{ event: 'error', code }, 1]);
  });
});

async function serve(cwd: string, ...flags: string[]): Promise<void> {
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const server = startCommand(['serve', 'disk', '--socket', 's', ...flags], { cwd, onLine: () => listening() });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await Promise.race([ready, server.result]);
}

test('an owner without a background copy', async () => {
  const cwd = temporaryDirectory();
  await makeCopy(cwd);
  await serve(cwd, '--no-hydrate');
  const results = await runAll(cwd, 'disk');
  expect(results['status']).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^disk: idle, process \d+, /) });
  for (const name of ['pause', 'resume', 'set-rate'])
    expect(results[name]).toMatchObject(failed(1, 'COD_UNSUPPORTED: this process serves without a background copy\n$'));
  expect(results['snapshot']).toMatchObject({ exitCode: 0 });
});

test('a copy that is only read has no owner', async () => {
  const cwd = temporaryDirectory();
  await makeCopy(cwd);
  await serve(cwd, '--read-only');
  const results = await runAll(cwd, 'disk');
  expect(results['status']).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('no process owns it') });
  expect(results['pause']).toMatchObject(failed(1, 'COD_NOT_RUNNING: no process copies disk'));
});
