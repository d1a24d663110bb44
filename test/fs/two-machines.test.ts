/**
 * Owners on machines that share a directory. Each machine is a boot name of its own, with a clock that all of them read
 * and that passes on request. A machine can pause: its timers stand still, as if it were suspended.
 */

import fs, { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import type { FileSystem, Lease, LeaseOptions } from '../../src/fs/file-system.ts';
import { parseOwner } from '../../src/fs/lock-owner.ts';
import { localFileSystem } from '../../src/fs/node.ts';
import { lockFile } from '../../src/fs/node-lock.ts';
import type { Machine } from '../../src/fs/node-process.ts';
import { bytesSource, openDevice, removeCopy } from '../../src/index.ts';

const base = mkdtempSync(join(tmpdir(), 'cod-machines-'));
let target: string;
let world: World;

beforeEach(() => {
  target = join(mkdtempSync(join(base, 'd-')), 'disk.raw');
  world = new World();
});

afterAll(() => rmSync(base, { recursive: true, force: true }));

/** A machine with switches. */
interface TestMachine extends Machine {
  isPaused: boolean;
  /** Added to the wall clock. */
  wallOffset: number;
}

class World {
  #now = 0;
  readonly #sleepers = new Set<{ at: number; wake: () => void }>();
  readonly #timers = new Set<{ next: number; ms: number; task: () => void }>();
  #onSleep: () => void = () => undefined;

  machine(name: string): TestMachine {
    const machine: TestMachine = {
      bootId: `boot-${name}`,
      machineId: name,
      host: `host-${name}`,
      isPaused: false,
      wallOffset: 0,
      now: () => this.#now,
      wallNow: () => this.#now + machine.wallOffset,
      sleep: (ms, signal) =>
        new Promise((resolve, reject) => {
          const sleeper = { at: this.#now + ms, wake: resolve };
          this.#sleepers.add(sleeper);
          signal?.addEventListener('abort', () => {
            this.#sleepers.delete(sleeper);
            reject(signal.reason);
          });
          this.#onSleep();
        }),
      repeat: (ms, task) => {
        const timer = {
          next: this.#now + ms,
          ms,
          task: () => {
            if (!machine.isPaused) task();
          },
        };
        this.#timers.add(timer);
        return () => this.#timers.delete(timer);
      },
    };
    return machine;
  }

  get now(): number {
    return this.#now;
  }

  pass(ms: number): void {
    for (const end = this.#now + ms; this.#now < end; ) {
      this.#now = Math.min(end, ...[...this.#timers].map(({ next }) => next));
      for (const timer of this.#timers) {
        if (timer.next > this.#now) continue;
        timer.next += timer.ms;
        timer.task();
      }
    }
    for (const sleeper of this.#sleepers) {
      if (sleeper.at > this.#now) continue;
      this.#sleepers.delete(sleeper);
      sleeper.wake();
    }
  }

  /** Lets time pass whenever a machine sleeps, until `work` settles. */
  async run<T>(work: Promise<T>): Promise<T> {
    let isRunning = true;
    const ended = work.then(
      () => (isRunning = false),
      () => (isRunning = false),
    );
    while (isRunning) {
      if (this.#sleepers.size > 0) this.pass(Math.min(...[...this.#sleepers].map(({ at }) => at)) - this.#now);
      else await Promise.race([ended, new Promise<void>((resolve) => (this.#onSleep = resolve))]);
    }
    return work;
  }
}

function take(machine: Machine, options: LeaseOptions = {}): Promise<Lease> {
  return world.run(lockFile(target, { ...options, machine }));
}

function lockNames(): string[] {
  return readdirSync(join(target, '..')).sort();
}

function ownerNow(): ReturnType<typeof parseOwner> {
  return parseOwner(readFileSync(`${target}.lock`, 'utf8'));
}

describe('an owner on another machine', () => {
  it('keeps its lock while its heartbeat moves', async () => {
    const [a, b] = [world.machine('a'), world.machine('b')];
    const lease = await take(a);
    for (const takeOver of [false, true]) {
      const start = world.now;
      await expect(take(b, { takeOver })).rejects.toMatchObject({
        code: 'COD_LOCKED',
        message: expect.stringMatching(
          /process \d+ of another boot or machine on host-a since 1970-.*; stop it first$/,
        ),
        details: { pid: process.pid, host: 'host-a' },
      });
      expect(world.now - start).toBeLessThanOrEqual(6000);
    }
    expect(await lease.check()).toBe(true);
    await lease.release();
    expect(lockNames()).toEqual([]);
  });

  it.each([
    [false, 30_000],
    [true, 10_000],
  ])('is replaced when its heartbeat has stood still (takeOver: %s, after %s ms)', async (takeOver, ms) => {
    const [a, b] = [world.machine('a'), world.machine('b')];
    const old = await take(a);
    a.isPaused = true;
    const start = world.now;
    const lease = await take(b, { takeOver });
    expect(world.now - start).toBe(ms);
    expect(lease.unproved).toBe(true);
    expect(old.isRecent).toBe(false);
    expect(await old.check()).toBe(false);
    expect(old.successor).toMatch(/^process \d+ on host-b since /);
    await old.release();
    expect(ownerNow()).toMatchObject({ host: 'host-b' });
    expect(lockNames()).toEqual(['disk.raw.lock', `disk.raw.lock.${ownerNow()!.socket}`]);
    expect(await lease.check()).toBe(true);
    await lease.renewed!();
    await lease.release();
    expect(lockNames()).toEqual([]);
  });

  it('that beats again after a pause keeps its lock', async () => {
    const [a, b] = [world.machine('a'), world.machine('b')];
    const lease = await take(a);
    a.isPaused = true;
    const stop = b.repeat(17_000, () => (a.isPaused = false));
    await expect(take(b)).rejects.toMatchObject({ code: 'COD_LOCKED' });
    stop();
    await lease.release();
  });

  it('learns of its successor by its own heartbeat, and leaves the lock alone', async () => {
    const [a, b] = [world.machine('a'), world.machine('b')];
    const old = await take(a);
    a.isPaused = true;
    const lease = await take(b);
    const before = ownerNow();
    a.isPaused = false;
    b.isPaused = true;
    world.pass(5000);
    expect(ownerNow()).toEqual(before);
    b.isPaused = false;
    world.pass(5000);
    expect(ownerNow()).toEqual({ ...before, beat: before!.beat! + 1 });
    expect(old.successor).toMatch(/host-b/);
    await old.release();
    await lease.renewed!();
    await lease.release();
  });

  it('may be suspended: its monotonic clock stands still then, and the other one does not', async () => {
    const a = world.machine('a');
    const lease = await take(a);
    expect(lease.isRecent).toBe(true);
    for (const offset of [10_000, -10_000]) {
      a.wallOffset += offset;
      expect(lease.isRecent).toBe(false);
      expect(await lease.check()).toBe(true);
      expect(lease.isRecent).toBe(true);
    }
    a.isPaused = true;
    world.pass(9999);
    expect(lease.isRecent).toBe(true);
    world.pass(1);
    expect(lease.isRecent).toBe(false);
    await lease.release();
  });
});

it('a wait for a heartbeat ends when its signal is aborted, and leaves nothing', async () => {
  const [a, b] = [world.machine('a'), world.machine('b')];
  const lease = await take(a);
  a.isPaused = true;
  const abort = new AbortController();
  const taking = lockFile(target, { machine: b, signal: abort.signal });
  setImmediate(() => abort.abort(new Error('stop')));
  await expect(taking).rejects.toThrow('stop');
  a.isPaused = false;
  expect(lockNames()).toHaveLength(2);
  await lease.release();
});

it('an owner that releases its lock after a pause marks its own file, and the next one takes it at once', async () => {
  const [a, b] = [world.machine('a'), world.machine('b')];
  const old = await take(a);
  a.isPaused = true;
  world.pass(10_000);
  await old.release();
  expect(ownerNow()).toMatchObject({ host: 'host-a', beat: -1 });
  const start = world.now;
  const lease = await take(b);
  expect(world.now).toBe(start);
  expect(lease.unproved).toBe(false);
  await lease.release();
  expect(lockNames()).toEqual([]);
});

it('an owner that has made no new files passes on that an earlier one may be alive', async () => {
  const [a, b] = [world.machine('a'), world.machine('b')];
  const old = await take(a);
  a.isPaused = true;
  const second = await take(b);
  await second.release();
  const third = await take(b);
  expect(third.unproved).toBe(true);
  await third.renewed!();
  expect(third.unproved).toBe(false);
  expect(ownerNow()).toMatchObject({ unproved: false });
  await third.release();
  expect(lockNames()).toEqual([]);
  expect((await take(b)).unproved).toBe(false);
  await old.release();
});

it('an owner whose new files are made removes what an earlier one has moved aside meanwhile', async () => {
  const [a, b] = [world.machine('a'), world.machine('b')];
  const old = await take(a);
  a.isPaused = true;
  const lease = await take(b);
  writeFileSync(`${target}.bak`, 'new');
  writeFileSync(`${target}.lock.0123456789abcdef.moved.bak`, 'old');
  await lease.renewed!();
  expect(lockNames().filter((name) => name.includes('.moved'))).toEqual([]);
  expect(readFileSync(`${target}.bak`, 'utf8')).toBe('new');
  await lease.release();
  await old.release();
});

describe('a lock that an owner holds aside to remove it', () => {
  const aside = (): string => `${target}.lock.0123456789abcdef.moved.lock`;
  const movedNow = (): string[] => lockNames().filter((name) => name.includes('.moved'));

  it('is put back and judged by a taker, which its owner refuses', async () => {
    const [b, c] = [world.machine('b'), world.machine('c')];
    const lease = await take(b);
    renameSync(`${target}.lock`, aside());
    await expect(take(c)).rejects.toMatchObject({ code: 'COD_LOCKED', details: { host: 'host-b' } });
    expect(await lease.check()).toBe(true);
    expect(movedNow()).toEqual([]);
    await lease.release();
    expect(lockNames()).toEqual([]);
  });

  it('is put back, and then taken over from an owner that may be alive', async () => {
    const [b, c] = [world.machine('b'), world.machine('c')];
    const old = await take(b);
    renameSync(`${target}.lock`, aside());
    b.isPaused = true;
    const start = world.now;
    const lease = await take(c);
    expect([lease.unproved, world.now - start]).toEqual([true, 30_000]);
    expect(movedNow()).toEqual([]);
    await old.release();
    expect(await lease.check()).toBe(true);
    await lease.renewed!();
    await lease.release();
  });

  it('beside another lock counts too: both owners are judged', async () => {
    const [b, c, d] = [world.machine('b'), world.machine('c'), world.machine('d')];
    const first = await take(b);
    renameSync(`${target}.lock`, join(target, '..', 'hidden'));
    const second = await take(c);
    renameSync(join(target, '..', 'hidden'), aside());
    c.isPaused = true;
    await expect(take(d)).rejects.toMatchObject({ code: 'COD_LOCKED', details: { host: 'host-b' } });
    b.isPaused = true;
    const lease = await take(d);
    expect(lease.unproved).toBe(true);
    expect(movedNow()).toEqual([]);
    for (const each of [first, second]) await each.release();
    expect(await lease.check()).toBe(true);
    await lease.renewed!();
    await lease.release();
    expect(lockNames()).toEqual([]);
  });

  it('right before a taker has the name makes the taker give up', async () => {
    const [b, c] = [world.machine('b'), world.machine('c')];
    const lease = await take(b);
    const hidden = join(target, '..', 'hidden');
    renameSync(`${target}.lock`, hidden);
    const { linkSync } = fs;
    fs.linkSync = (from, to): void => {
      fs.linkSync = linkSync;
      syncBuiltinESMExports();
      renameSync(hidden, aside());
      linkSync(from, to);
    };
    syncBuiltinESMExports();
    await expect(take(c)).rejects.toMatchObject({ code: 'COD_LOCKED', details: { host: 'host-b' } });
    expect(await lease.check()).toBe(true);
    await lease.release();
    expect(lockNames()).toEqual([]);
  });

  it('is moved again by its owner, if a taker puts it back meanwhile', async () => {
    const [b, c] = [world.machine('b'), world.machine('c')];
    const lease = await take(b);
    const { rmSync: remove } = fs;
    let taking: Promise<unknown> | undefined;
    fs.rmSync = (path, options): void => {
      if (String(path).endsWith('.moved.lock') && taking === undefined) {
        fs.linkSync(String(path), `${target}.lock`);
        taking = Promise.resolve();
      }
      remove(path, options);
    };
    syncBuiltinESMExports();
    try {
      await lease.release();
    } finally {
      fs.rmSync = remove;
      syncBuiltinESMExports();
    }
    expect(taking).toBeDefined();
    expect(lockNames()).toEqual([]);
    await (await take(c)).release();
  });

  it('stays as it is if it is another program’s file', async () => {
    writeFileSync(aside(), 'my notes');
    const lease = await take(world.machine('b'));
    await lease.renewed!();
    await lease.release();
    expect(readFileSync(aside(), 'utf8')).toBe('my notes');
  });
});

it.each([
  [false, 30_000],
  [true, 10_000],
])('a removal of a copy replaces a silent owner as an opening does (takeOver: %s)', async (takeOver, ms) => {
  const [a, b] = [world.machine('a'), world.machine('b')];
  const on = (machine: Machine): FileSystem => localFileSystem(join(target, '..'), {}, { machine });
  const device = await openDevice({
    source: bytesSource(new Uint8Array(10_000)),
    fileSystem: on(a),
    target: 'disk.raw',
    hydrate: false,
  });
  a.isPaused = true;
  const start = world.now;
  const removal = world.run(removeCopy({ fileSystem: on(b), target: 'disk.raw', takeOver }));
  expect((await removal).files).toContain('disk.raw');
  expect(world.now - start).toBe(ms);
  await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
  await device.close().catch(() => undefined);
});

it('of takers on several machines, one replaces a silent owner', async () => {
  for (let round = 0; round < 20; round++) {
    const a = world.machine(`a${round}`);
    const old = await take(a);
    a.isPaused = true;
    const takers = ['b', 'c', 'd'].map((name) => lockFile(target, { machine: world.machine(`${name}${round}`) }));
    const outcomes = await world.run(Promise.allSettled(takers));
    const leases = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    expect(leases).toHaveLength(1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'COD_LOCKED' });
    await leases[0]!.renewed!();
    await leases[0]!.release();
    await old.release();
    expect(lockNames()).toEqual([]);
  }
});
