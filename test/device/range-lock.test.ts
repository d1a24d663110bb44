import { setImmediate as immediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { type HeldLock, type LockMode, RangeLock } from '../../src/device/range-lock.ts';
import { seededRandom } from '../../src/testing/index.ts';

/** Requests locks by name, and records which were granted. */
function lockers(lock = new RangeLock()) {
  const granted: string[] = [];
  const releases = new Map<string, HeldLock>();
  return {
    lock,
    granted,
    ask(name: string, start: number, end: number, mode: LockMode): void {
      void Promise.resolve(lock.acquire({ start, end }, mode)).then((held) => {
        granted.push(name);
        releases.set(name, held);
      });
    },
    async recording(name: string): Promise<void> {
      releases.get(name)!.recording();
      await immediate();
    },
    async release(name: string): Promise<void> {
      releases.get(name)!.release();
      await immediate();
    },
  };
}

describe('a range lock', () => {
  it('is shared by readers, and exclusive for a writer', async () => {
    const { ask, granted, release } = lockers();
    ask('reader 1', 0, 10, 'read');
    ask('reader 2', 5, 15, 'read');
    ask('writer', 9, 11, 'write');
    await immediate();
    expect(granted).toEqual(['reader 1', 'reader 2']);
    await release('reader 1');
    expect(granted).toEqual(['reader 1', 'reader 2']);
    await release('reader 2');
    expect(granted).toEqual(['reader 1', 'reader 2', 'writer']);
  });

  it('grants ranges that do not overlap: ranges are half open', async () => {
    const { ask, granted } = lockers();
    ask('left', 0, 5, 'write');
    ask('right', 5, 10, 'write');
    ask('far', 100, 101, 'write');
    await immediate();
    expect(granted).toEqual(['left', 'right', 'far']);
  });

  it('queues a reader behind an earlier writer, so that writers do not starve', async () => {
    const { ask, granted, release } = lockers();
    ask('reader 1', 0, 10, 'read');
    ask('writer', 0, 10, 'write');
    ask('reader 2', 0, 10, 'read');
    ask('reader 3', 3, 4, 'read');
    await immediate();
    expect(granted).toEqual(['reader 1']);
    await release('reader 1');
    expect(granted).toEqual(['reader 1', 'writer']);
    await release('writer');
    expect(granted).toEqual(['reader 1', 'writer', 'reader 2', 'reader 3']);
  });

  it('grants a long range eventually, however many short ranges follow', async () => {
    const { ask, granted, release } = lockers();
    ask('first', 0, 1, 'write');
    ask('long', 0, 100, 'write');
    for (let index = 0; index < 50; index++) ask(`short ${index}`, index, index + 1, 'write');
    await immediate();
    expect(granted).toEqual(['first']);
    await release('first');
    expect(granted).toEqual(['first', 'long']);
    await release('long');
    expect(granted.length).toBe(52);
  });

  it('blocks behind a waiting writer only requests that overlap it', async () => {
    const { ask, granted } = lockers();
    ask('reader', 0, 10, 'read');
    ask('writer', 5, 15, 'write');
    ask('elsewhere', 15, 20, 'write');
    ask('beside', 0, 5, 'read');
    ask('behind the writer', 14, 15, 'read');
    await immediate();
    expect(granted).toEqual(['reader', 'elsewhere', 'beside']);
  });

  it('is granted in order of arrival, independent of the order of releases', async () => {
    const { ask, granted, release } = lockers();
    ask('a', 0, 2, 'write');
    ask('b', 2, 4, 'write');
    ask('both', 0, 4, 'write');
    ask('a again', 0, 2, 'write');
    ask('b again', 2, 4, 'write');
    await immediate();
    await release('b');
    expect(granted).toEqual(['a', 'b']);
    await release('a');
    expect(granted).toEqual(['a', 'b', 'both']);
    await release('both');
    expect(granted).toEqual(['a', 'b', 'both', 'a again', 'b again']);
  });

  it('is granted synchronously if nothing conflicts', async () => {
    const { lock } = lockers();
    const held = lock.acquire({ start: 0, end: 4 }, 'write') as HeldLock;
    const waiting = lock.acquire({ start: 3, end: 5 }, 'read');
    expect(waiting).toBeInstanceOf(Promise);
    expect(lock.acquire({ start: 5, end: 6 }, 'write')).not.toBeInstanceOf(Promise);
    held.release();
    (await waiting).release();
    expect(lock.acquire({ start: 0, end: 4 }, 'write')).not.toBeInstanceOf(Promise);
  });

  it('is shared by readers and one fill, and by neither a second fill nor a writer', async () => {
    const { ask, granted, release } = lockers();
    ask('fill', 0, 10, 'fill');
    ask('reader', 0, 10, 'read');
    ask('second fill', 5, 6, 'fill');
    ask('writer', 9, 10, 'write');
    ask('later reader', 5, 6, 'read');
    await immediate();
    expect(granted).toEqual(['fill', 'reader', 'later reader']);
    await release('fill');
    expect(granted).toEqual(['fill', 'reader', 'later reader', 'second fill']);
    await release('reader');
    expect(granted.at(-1)).toBe('writer');
  });

  it('admits other writers while a write is being recorded, and neither a fill nor a reader', async () => {
    const { ask, granted, release, recording } = lockers();
    ask('first writer', 0, 4, 'write');
    ask('second writer', 2, 6, 'write');
    ask('fill', 0, 1, 'fill');
    ask('reader', 1, 2, 'read');
    ask('elsewhere', 6, 8, 'fill');
    await immediate();
    expect(granted).toEqual(['first writer', 'elsewhere']);
    await recording('first writer');
    expect(granted).toEqual(['first writer', 'elsewhere', 'second writer']);
    await release('first writer');
    expect(granted.slice(3)).toEqual(['fill', 'reader']);
    ask('third writer', 5, 6, 'write');
    await release('second writer');
    expect(granted.slice(5)).toEqual(['third writer']);
  });

  it('released twice does not release another lock', () => {
    const { lock } = lockers();
    const first = lock.acquire({ start: 0, end: 4 }, 'write') as HeldLock;
    first.release();
    expect(lock.acquire({ start: 0, end: 4 }, 'write')).not.toBeInstanceOf(Promise);
    first.release();
    expect(lock.acquire({ start: 0, end: 4 }, 'write')).toBeInstanceOf(Promise);
  });

  it('grants no conflicting locks, grants them in order, and grants all of them (random users)', async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = seededRandom(seed);
      const lock = new RangeLock();
      const held = new Set<Asked>();
      const waiting = new Set<Asked>();
      let order = 0;
      interface Asked {
        start: number;
        end: number;
        mode: LockMode;
        order: number;
      }
      const conflict = (a: Asked, b: Asked) =>
        a.start < b.end &&
        b.start < a.end &&
        (a.mode === 'write' || b.mode === 'write' || (a.mode === 'fill' && b.mode === 'fill'));
      const user = async (): Promise<void> => {
        for (let step = 0; step < 10; step++) {
          const start = random.below(20);
          const mine: Asked = {
            start,
            end: start + 1 + random.below(8),
            mode: (['read', 'fill', 'write'] as const)[random.below(3)]!,
            order: order++,
          };
          waiting.add(mine);
          const lockHeld = await lock.acquire(mine, mine.mode);
          waiting.delete(mine);
          for (const other of held)
            if (conflict(mine, other)) throw new Error(`seed ${seed}: two conflicting locks were granted`);
          held.add(mine);
          for (let turns = random.below(4); turns > 0; turns--) await undefined;
          if (random.oneIn(3)) await immediate();
          for (const other of waiting) {
            if (other.order < mine.order && conflict(mine, other))
              throw new Error(`seed ${seed}: a lock was granted before an earlier conflicting request`);
          }
          held.delete(mine);
          lockHeld.release();
        }
      };
      await Promise.all(Array.from({ length: 8 }, user));
    }
  });
});
