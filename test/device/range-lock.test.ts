import { setImmediate as immediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { type LockMode, RangeLock, type Release } from '../../src/device/range-lock.ts';
import { seededRandom } from '../../src/testing/index.ts';

/** Asks for locks by name, and tells who has got theirs so far. */
function lockers(lock = new RangeLock()) {
  const granted: string[] = [];
  const releases = new Map<string, Release>();
  return {
    lock,
    granted,
    ask(name: string, start: number, end: number, mode: LockMode): void {
      void lock.acquire(start, end, mode).then((release) => {
        granted.push(name);
        releases.set(name, release);
      });
    },
    async release(name: string): Promise<void> {
      releases.get(name)!();
      await immediate();
    },
  };
}

describe('a range lock', () => {
  it('lets readers share, and keeps a writer alone', async () => {
    const { ask, granted, release } = lockers();
    ask('reader 1', 0, 10, 'shared');
    ask('reader 2', 5, 15, 'shared');
    ask('writer', 9, 11, 'exclusive');
    await immediate();
    expect(granted).toEqual(['reader 1', 'reader 2']);
    await release('reader 1');
    expect(granted).toEqual(['reader 1', 'reader 2']);
    await release('reader 2');
    expect(granted).toEqual(['reader 1', 'reader 2', 'writer']);
  });

  it('does not keep apart what does not overlap: ranges are half open', async () => {
    const { ask, granted } = lockers();
    ask('left', 0, 5, 'exclusive');
    ask('right', 5, 10, 'exclusive');
    ask('far', 100, 101, 'exclusive');
    await immediate();
    expect(granted).toEqual(['left', 'right', 'far']);
  });

  it('lets no reader pass a writer that came first, so that writers do not starve', async () => {
    const { lock, ask, granted, release } = lockers();
    ask('reader 1', 0, 10, 'shared');
    ask('writer', 0, 10, 'exclusive');
    ask('reader 2', 0, 10, 'shared');
    ask('reader 3', 3, 4, 'shared');
    await immediate();
    expect(granted).toEqual(['reader 1']);
    expect(lock.tryAcquire(3, 4, 'shared')).toBeUndefined();
    await release('reader 1');
    expect(granted).toEqual(['reader 1', 'writer']);
    await release('writer');
    expect(granted).toEqual(['reader 1', 'writer', 'reader 2', 'reader 3']);
  });

  it('lets a long range pass in the end, however many short ones come after it', async () => {
    const { ask, granted, release } = lockers();
    ask('first', 0, 1, 'exclusive');
    ask('long', 0, 100, 'exclusive');
    for (let index = 0; index < 50; index++) ask(`short ${index}`, index, index + 1, 'exclusive');
    await immediate();
    expect(granted).toEqual(['first']);
    await release('first');
    expect(granted).toEqual(['first', 'long']);
    await release('long');
    expect(granted.length).toBe(52);
  });

  it('holds up behind a waiting writer only those whose ranges overlap it', async () => {
    const { ask, granted } = lockers();
    ask('reader', 0, 10, 'shared');
    ask('writer', 5, 15, 'exclusive');
    ask('elsewhere', 15, 20, 'exclusive');
    ask('beside', 0, 5, 'shared');
    ask('behind the writer', 14, 15, 'shared');
    await immediate();
    expect(granted).toEqual(['reader', 'elsewhere', 'beside']);
  });

  it('goes in order of arrival, in whatever order locks are released', async () => {
    const { ask, granted, release } = lockers();
    ask('a', 0, 2, 'exclusive');
    ask('b', 2, 4, 'exclusive');
    ask('both', 0, 4, 'exclusive');
    ask('a again', 0, 2, 'exclusive');
    ask('b again', 2, 4, 'exclusive');
    await immediate();
    await release('b');
    expect(granted).toEqual(['a', 'b']);
    await release('a');
    expect(granted).toEqual(['a', 'b', 'both']);
    await release('both');
    expect(granted).toEqual(['a', 'b', 'both', 'a again', 'b again']);
  });

  it('gives a lock at once where it can, and leaves nothing behind where it cannot', async () => {
    const { lock } = lockers();
    const release = lock.tryAcquire(0, 4, 'exclusive')!;
    expect(lock.tryAcquire(3, 5, 'shared')).toBeUndefined();
    expect(lock.tryAcquire(4, 5, 'exclusive')).toBeTypeOf('function');
    release();
    expect(lock.tryAcquire(0, 4, 'exclusive')).toBeTypeOf('function');
  });

  it('does not let go of another’s lock when one is released twice', () => {
    const { lock } = lockers();
    const first = lock.tryAcquire(0, 4, 'exclusive')!;
    first();
    expect(lock.tryAcquire(0, 4, 'exclusive')).toBeTypeOf('function');
    first();
    expect(lock.tryAcquire(0, 4, 'exclusive')).toBeUndefined();
  });

  it('never has a writer beside anybody, lets nobody be passed, and serves everybody (random users)', async () => {
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
        a.start < b.end && b.start < a.end && (a.mode === 'exclusive' || b.mode === 'exclusive');
      const user = async (): Promise<void> => {
        for (let step = 0; step < 10; step++) {
          const start = random.below(20);
          const mine: Asked = {
            start,
            end: start + 1 + random.below(8),
            mode: random.oneIn(2) ? 'shared' : 'exclusive',
            order: order++,
          };
          waiting.add(mine);
          const release = await lock.acquire(mine.start, mine.end, mine.mode);
          waiting.delete(mine);
          for (const other of held)
            if (conflict(mine, other)) throw new Error(`seed ${seed}: two hold what only one may`);
          held.add(mine);
          for (let turns = random.below(4); turns > 0; turns--) await undefined;
          if (random.oneIn(3)) await immediate();
          for (const other of waiting) {
            if (other.order < mine.order && conflict(mine, other))
              throw new Error(`seed ${seed}: one that came first was passed`);
          }
          held.delete(mine);
          release();
        }
      };
      await Promise.all(Array.from({ length: 8 }, user));
    }
  });
});
