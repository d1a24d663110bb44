import { type ChildProcess, execFileSync, fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { build } from 'esbuild';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { encodeHead, encodeTail, type Owner, parseOwner } from '../../src/fs/lock-owner.ts';
import { lockFile } from '../../src/fs/node-lock.ts';
import { type ProcessIdentity, thisMachine, thisProcess } from '../../src/fs/node-process.ts';

const base = mkdtempSync(join(tmpdir(), 'cod-lock-'));
const taker = join(base, 'taker.mjs');
const lock = join(base, 'lock.mjs');
const children = new Set<ChildProcess>();
let directory: string;
let target: string;

beforeAll(async () => {
  await build({
    entryPoints: [join(import.meta.dirname, 'lock-taker.ts')],
    outfile: taker,
    bundle: true,
    platform: 'node',
    format: 'esm',
  });
  await build({
    entryPoints: [join(import.meta.dirname, '../../src/fs/node-lock.ts')],
    outfile: lock,
    bundle: true,
    platform: 'node',
    format: 'esm',
  });
});

beforeEach(() => {
  directory = mkdtempSync(join(base, 'd-'));
  target = join(directory, 'disk.raw');
});

afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(base, { recursive: true, force: true });
});

function startTaker(): ChildProcess {
  const child = fork(taker);
  children.add(child);
  return child;
}

/** A taker in PID and network namespaces of its own. It ends with the process that is returned. */
function startIsolatedTaker(): ChildProcess {
  const options = ['--pid', '--net', '--fork', '--kill-child', '--mount-proc'];
  const child = spawn('unshare', [...options, process.execPath, taker], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  children.add(child);
  return child;
}

/** Kills the process in the namespaces. The other one ends once it is gone. */
async function killIsolated(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  process.kill(Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')), 'SIGKILL');
  await exit;
  children.delete(child);
}

const canIsolate =
  process.platform === 'linux' &&
  spawnSync('unshare', ['--pid', '--net', '--fork', '--mount-proc', 'true']).status === 0;

async function ask(child: ChildProcess, request: { take: string } | 'release'): Promise<string> {
  const answer = once(child, 'message');
  child.send(request);
  return (await answer)[0] as string;
}

async function kill(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
  children.delete(child);
}

/** The lock of an owner that has no socket, unless `owner` names one. */
function leaveLock(owner: Partial<Owner> | string, suffix = ''): void {
  writeFileSync(`${target}.lock${suffix}`, typeof owner === 'string' ? owner : lineOf(owner));
}

function lineOf(owner: Partial<Owner>): string {
  const { machineId, host } = thisMachine();
  const since = '2026-02-03T04:05:06.789Z';
  const {
    beat = 0,
    unproved = false,
    ...head
  } = {
    ...{ token: 'a1', ...thisProcess(), machineId, host, since },
    ...owner,
  };
  return encodeHead(head) + encodeTail({ beat, unproved });
}

/** The lock that an older version of this package has left. */
function leaveOldLock(owner: Partial<ProcessIdentity>): void {
  leaveLock(`${JSON.stringify({ ...thisProcess(), ...owner })}\n`);
}

function lockOf(path: string): Owner {
  return parseOwner(readFileSync(`${path}.lock`, 'utf8'))!;
}

/** Returns the id of a process that has ended. */
async function deadProcess(): Promise<number> {
  const child = startTaker();
  await kill(child);
  return child.pid!;
}

async function assertTakenOver(): Promise<void> {
  const lease = await lockFile(target);
  const owner = lockOf(target);
  expect(owner).toMatchObject(JSON.parse(JSON.stringify(thisProcess())));
  expect(readdirSync(directory).sort()).toEqual(['disk.raw.lock', `disk.raw.lock.${owner.socket}`]);
  expect(await lease.check()).toBe(true);
  await lease.release();
  expect(readdirSync(directory)).toEqual([]);
}

test('a lock is a file beside the target that names its owner, and is removed on release', assertTakenOver);

test('a lock of a live process holds, and the error names it', async () => {
  const child = startTaker();
  expect(await ask(child, { take: target })).toBe('locked');
  await expect(lockFile(target)).rejects.toMatchObject({
    code: 'COD_LOCKED',
    message: expect.stringContaining(`process ${child.pid}`),
    details: { file: `${target}.lock`, pid: child.pid },
  });
  expect(await ask(child, 'release')).toBe('released');
  await assertTakenOver();
  await kill(child);
});

test.skipIf(process.platform === 'win32')('a lock of a stopped process holds', async () => {
  const child = startTaker();
  expect(await ask(child, { take: target })).toBe('locked');
  child.kill('SIGSTOP');
  await expect(lockFile(target)).rejects.toMatchObject({ code: 'COD_LOCKED' });
  child.kill('SIGCONT');
  expect(await ask(child, 'release')).toBe('released');
  await kill(child);
});

test.skipIf(!canIsolate)(
  'a lock holds across PID and network namespaces while its owner lives, and no longer',
  async () => {
    const [first, second] = [startIsolatedTaker(), startIsolatedTaker()];
    expect(await ask(first, { take: target })).toBe('locked');
    expect(await ask(second, { take: target })).toBe('COD_LOCKED');
    await expect(lockFile(target)).rejects.toMatchObject({
      code: 'COD_LOCKED',
      message: expect.stringContaining('in another container'),
    });
    await killIsolated(first);
    expect(await ask(second, { take: target })).toBe('locked');
    await killIsolated(second);
    await assertTakenOver();
  },
);

test('a lock of a worker thread holds until the worker is terminated', async () => {
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
    process.on = (_, listener) => parentPort.on('message', listener);
    process.send = (report) => parentPort.postMessage(report);
    import(workerData).then(() => parentPort.postMessage('ready'));
    setInterval(() => undefined, 1000);`,
    { eval: true, workerData: pathToFileURL(taker).href },
  );
  await once(worker, 'message');
  worker.postMessage({ take: target });
  expect((await once(worker, 'message'))[0]).toBe('locked');
  await expect(lockFile(target)).rejects.toMatchObject({ message: expect.stringContaining('by this process') });
  await worker.terminate();
  await assertTakenOver();
});

test.skipIf(process.platform !== 'linux')('a lock of a file with a path too long for a socket', async () => {
  directory = join(directory, 'x'.repeat(200));
  mkdirSync(directory);
  target = join(directory, 'disk.raw');
  const child = startTaker();
  expect(await ask(child, { take: target })).toBe('locked');
  expect(lockOf(target).socket).toBeDefined();
  await expect(lockFile(target)).rejects.toMatchObject({ code: 'COD_LOCKED' });
  await kill(child);
  await assertTakenOver();
});

test('the content of a lock is synced before it gets its name', async () => {
  const { fsyncSync, linkSync, renameSync } = fs;
  const calls: string[] = [];
  const wrapped = { fsyncSync, linkSync, renameSync };
  for (const [name, call] of Object.entries(wrapped) as [keyof typeof wrapped, (...given: unknown[]) => void][])
    fs[name] = (...given: unknown[]): void => {
      calls.push(name);
      call(...given);
    };
  syncBuiltinESMExports();
  try {
    const pid = await deadProcess();
    const lease = await lockFile(target);
    expect(calls.filter((name) => name !== 'renameSync')).toEqual(['fsyncSync', 'linkSync']);
    await lease.release();
    leaveLock({ pid });
    calls.length = 0;
    await (await lockFile(target)).release();
    expect(calls.indexOf('fsyncSync')).toBeGreaterThanOrEqual(0);
    // The socket is moved before, the lock after: to the taker's name, and to its own.
    expect(calls.slice(calls.indexOf('fsyncSync')).filter((name) => name === 'renameSync')).toHaveLength(3);
  } finally {
    Object.assign(fs, wrapped);
    syncBuiltinESMExports();
  }
});

test('a lock whose name a successor has removed right before is released', async () => {
  const lease = await lockFile(target);
  const { renameSync } = fs;
  fs.renameSync = (from, to): void => {
    rmSync(from);
    renameSync(from, to);
  };
  syncBuiltinESMExports();
  try {
    await lease.release();
  } finally {
    fs.renameSync = renameSync;
    syncBuiltinESMExports();
  }
  expect(readdirSync(directory)).toEqual([]);
  await (await lockFile(target)).release();
});

test('a lock does not keep its process running', async () => {
  const script = `const { lockFile } = await import(process.argv[1]); await lockFile(process.argv[2]);`;
  const ended = spawn(process.execPath, ['--input-type=module', '-e', script, pathToFileURL(lock).href, target]);
  expect((await once(ended, 'exit'))[0]).toBe(0);
  await assertTakenOver();
});

test('a lock of a process that was killed is taken over at once', async () => {
  const child = startTaker();
  expect(await ask(child, { take: target })).toBe('locked');
  await kill(child);
  await assertTakenOver();
});

test('a lock that cannot be removed is released all the same', async () => {
  const lease = await lockFile(target);
  renameSync(`${target}.lock`, `${target}.aside`);
  mkdirSync(`${target}.lock`);
  await lease.release();
  await expect(lockFile(target)).rejects.toMatchObject({ code: 'COD_EXISTS' });
  rmdirSync(`${target}.lock`);
  renameSync(`${target}.aside`, `${target}.lock`);
  await (await lockFile(target)).release();
});

test('a lock of this process holds for every name of the file', async () => {
  writeFileSync(target, '');
  symlinkSync(target, join(directory, 'link'));
  mkdirSync(join(directory, 'd'));
  symlinkSync(directory, join(directory, 'd', 'up'));
  const lease = await lockFile(target);
  for (const name of ['link', 'd/../disk.raw', 'd/up/disk.raw', 'd/up/link']) {
    await expect(lockFile(join(directory, name)), name).rejects.toMatchObject({ code: 'COD_LOCKED' });
    await expect(lockFile(relative('.', join(directory, name))), name).rejects.toMatchObject({ code: 'COD_LOCKED' });
  }
  await lease.release();
});

describe('a lock is taken over', () => {
  test('from another boot of the same machine, whose socket refuses', async () => {
    leaveLock({ bootId: 'another', socket: '0123456789abcdef' });
    await assertTakenOver();
  });

  test('of an older version, from a process that has ended', async () => {
    leaveOldLock({ pid: await deadProcess() });
    await assertTakenOver();
  });

  test('from a process that has ended', async () => {
    leaveLock({ pid: await deadProcess() });
    await assertTakenOver();
  });

  test.skipIf(process.platform !== 'linux')('from a process whose id another process has now', async () => {
    leaveLock({ startTime: 1 });
    await assertTakenOver();
  });

  test('although another process died while it took the lock', async () => {
    const pid = await deadProcess();
    leaveLock({ pid });
    leaveLock({ pid }, '.0123456789abcdef.taker');
    await assertTakenOver();
  });
});

test('files of killed lock takers are removed, and those of a live taker are kept', async () => {
  const pid = await deadProcess();
  leaveLock({ pid }, '.0123456789abcdef.draft');
  leaveLock('', '.0123456789abcdee.draft');
  leaveLock('{"token":"', '.0123456789abcded.draft');
  leaveLock({ pid }, '.0123456789abcdec.taker');
  await assertTakenOver();
  const others = ['.0123456789abcdef.draft', '.backup', '.0123456789abcdef.old'];
  for (const suffix of others) leaveLock(suffix === others[0] ? {} : { pid }, suffix);
  await (await lockFile(target)).release();
  expect(readdirSync(directory).sort()).toEqual(others.map((suffix) => `disk.raw.lock${suffix}`).sort());
});

test.skipIf(process.platform === 'win32')('the socket of an owner whose taker was killed is removed', async () => {
  const child = startTaker();
  expect(await ask(child, { take: target })).toBe('locked');
  await kill(child);
  // The taker replaced the lock. Before it had removed the owner's socket, it was killed.
  leaveLock({ pid: child.pid! });
  mkdirSync(`${target}.lock.0123456789abcdef.new`);
  expect(readdirSync(directory).length).toBe(3);
  await assertTakenOver();
});

test.skipIf(process.platform === 'win32')('a socket that a draft or a taker names stays', async () => {
  const child = startTaker();
  expect(await ask(child, { take: target })).toBe('locked');
  const { socket } = lockOf(target);
  for (const suffix of ['draft', 'taker']) {
    renameSync(`${target}.lock`, `${target}.lock.${socket}.${suffix}`);
    await (await lockFile(target)).release();
    expect(readdirSync(directory).sort()).toEqual([`disk.raw.lock.${socket}`, `disk.raw.lock.${socket}.${suffix}`]);
    renameSync(`${target}.lock.${socket}.${suffix}`, `${target}.lock`);
  }
  await kill(child);
});

describe('a lock holds', () => {
  test('if its owner is in another container, whose processes are invisible', async () => {
    leaveOldLock({ pid: await deadProcess(), pidNamespace: 'pid:[1]' });
    await expect(lockFile(target)).rejects.toMatchObject({
      code: 'COD_LOCKED',
      message: expect.stringContaining('another container'),
    });
  });

  test.each(['', 'garbage', '{"pid":0}', '{"pid":-1}', 'null', '{"pid":12'])(
    'if it does not name its owner: %j',
    async (content) => {
      leaveLock(content);
      await expect(lockFile(target)).rejects.toMatchObject({
        code: 'COD_LOCKED',
        message: expect.stringContaining(`${target}.lock`),
      });
      expect(readdirSync(directory)).toEqual(['disk.raw.lock']);
    },
  );

  test.each<[string, () => Partial<ProcessIdentity>]>([
    ['lives', () => ({})],
    ['is of another boot, which it does not tell from another machine', () => ({ bootId: 'another' })],
    ['is in another container', () => ({ pidNamespace: 'pid:[1]' })],
  ])('of an older version, if its process %s', async (_, owner) => {
    leaveOldLock(owner());
    await expect(lockFile(target)).rejects.toMatchObject({ code: 'COD_LOCKED' });
  });

  test('if its file was replaced: the former owner does not remove it', async () => {
    const lease = await lockFile(target);
    leaveLock('garbage');
    expect(await lease.check()).toBe(false);
    await lease.release();
    expect(readFileSync(`${target}.lock`, 'utf8')).toBe('garbage');
  });
});

describe.skipIf(process.platform === 'win32')('what is not a lock of ours stays', () => {
  test.each<[string, (path: string) => unknown]>([
    ['a symbolic link', (path) => symlinkSync(join(directory, 'victim'), path)],
    ['a dangling symbolic link', (path) => symlinkSync('nowhere', path)],
    ['a directory', (path) => mkdirSync(path)],
    ['a pipe', (path) => execFileSync('mkfifo', [path])],
  ])('if %s is at its name: COD_EXISTS', async (_, make) => {
    writeFileSync(join(directory, 'victim'), '');
    make(`${target}.lock`);
    const before = lstatSync(`${target}.lock`);
    await expect(lockFile(target)).rejects.toMatchObject({
      code: 'COD_EXISTS',
      details: { file: `${target}.lock` },
      message: expect.stringContaining(`${target}.lock`),
    });
    expect(lstatSync(`${target}.lock`)).toMatchObject({ ino: before.ino, mode: before.mode });
    expect(readFileSync(join(directory, 'victim'), 'utf8')).toBe('');
    expect(readdirSync(directory).sort()).toEqual(['disk.raw.lock', 'victim']);
  });

  test.each<[string, (line: string) => string]>([
    ['has another field', (line) => line.replace('}', ',"hostname":"a"}')],
    ['is longer than a line of ours', (line) => line + ' '.repeat(5000)],
  ])('if what it says %s, although the process that it names is dead', async (_, change) => {
    const content = change(JSON.stringify({ ...thisProcess(), pid: await deadProcess() }));
    leaveLock(content);
    await expect(lockFile(target)).rejects.toMatchObject({ code: 'COD_LOCKED', details: { file: `${target}.lock` } });
    expect(readFileSync(`${target}.lock`, 'utf8')).toBe(content);
  });

  test('if its name is that of a draft or a taker', async () => {
    const pid = await deadProcess();
    leaveLock('my notes', '.0123456789abcdef.draft');
    leaveLock('my notes', '.0123456789abcdee.taker');
    symlinkSync(join(directory, 'victim'), `${target}.lock.0123456789abcded.draft`);
    writeFileSync(join(directory, 'victim'), JSON.stringify({ pid }));
    await (await lockFile(target)).release();
    expect(readdirSync(directory).length).toBe(4);
  });

  test('if it is a link that took the place of the lock', async () => {
    const lease = await lockFile(target);
    writeFileSync(join(directory, 'victim'), readFileSync(`${target}.lock`));
    rmSync(`${target}.lock`);
    symlinkSync('victim', `${target}.lock`);
    await lease.release();
    expect(readdirSync(directory).sort()).toEqual(['disk.raw.lock', 'victim']);
  });
});

test.skipIf(process.platform === 'win32')('a lock is for its owner only, whatever the umask is', async () => {
  for (const umask of [0, 0o777]) {
    const before = process.umask(umask);
    const lease = await lockFile(target).finally(() => process.umask(before));
    for (const name of [`${target}.lock`, `${target}.lock.${lockOf(target).socket}`])
      expect(lstatSync(name).mode & 0o777, name).toBe(0o600);
    await lease.release();
  }
});

test('a link that leads nowhere has the lock of the file that it names', async () => {
  mkdirSync(join(directory, 'd'));
  symlinkSync('further', join(directory, 'd', 'link'));
  symlinkSync('d/link', target);
  const lease = await lockFile(target);
  expect(readdirSync(join(directory, 'd')).filter((name) => name.endsWith('.lock'))).toEqual(['further.lock']);
  await expect(lockFile(join(directory, 'd', 'further'))).rejects.toMatchObject({ code: 'COD_LOCKED' });
  writeFileSync(join(directory, 'd', 'further'), '');
  await expect(lockFile(target)).rejects.toMatchObject({ code: 'COD_LOCKED' });
  await lease.release();
});

test('a missing directory is COD_NOT_FOUND', async () => {
  await expect(lockFile(join(directory, 'd', 'disk.raw'))).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
});

test.each(['free', 'stale'])('exactly one of many concurrent processes gets a %s lock', async (kind) => {
  const pid = await deadProcess();
  const takers = Array.from({ length: 6 }, startTaker);
  for (let round = 0; round < 25; round++) {
    if (kind === 'stale') leaveLock({ pid });
    const answers = await Promise.all(takers.map((child) => ask(child, { take: target })));
    expect([...answers].sort()).toEqual([...Array<string>(5).fill('COD_LOCKED'), 'locked']);
    expect(readdirSync(directory).sort()).toEqual(['disk.raw.lock', `disk.raw.lock.${lockOf(target).socket}`]);
    await ask(takers[answers.indexOf('locked')]!, 'release');
  }
  await Promise.all(takers.map(kill));
});
