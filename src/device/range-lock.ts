/**
 * Fair locks on ranges of blocks. A lock is held until it is released; a conflicting request waits.
 *
 * |          | `read` | `fill` | `write` | `record` |
 * | -------- | ------ | ------ | ------- | -------- |
 * | `read`   |        |        | waits   | waits    |
 * | `fill`   |        | waits  | waits   | waits    |
 * | `write`  | waits  | waits  | waits   |          |
 * | `record` | waits  | waits  |         |          |
 *
 * - A fill stores the source's bytes where the target holds nothing. A reader never reads those places from the target
 *   before they are recorded, so the two do not disturb each other.
 * - A write whose bytes are on the target, but not yet in the state, continues as `record`. Other writes need not wait
 *   for it, so that writes of one block in one turn share an append. A fill that asked the state too early would store
 *   the source's bytes over the user's, and a reader would see a part of the write.
 *
 * First come, first served: no lock is granted before an earlier one that it conflicts with, so no request starves.
 * There is no deadlock as long as the owner of a lock asks for no second one.
 */

import type { BlockRange } from '../core/runs.ts';

export type LockMode = 'read' | 'fill' | 'write';

/** A lock that is held. */
export interface HeldLock {
  /** Releases the lock. Idempotent. */
  release(): void;
  /** Lets other writers in while the write is being recorded. */
  recording(): void;
}

function conflict(one: Entry['mode'], other: Entry['mode']): boolean {
  if (one === 'record') return other === 'read' || other === 'fill';
  if (other === 'record') return one === 'read' || one === 'fill';
  return one === 'write' || other === 'write' || (one === 'fill' && other === 'fill');
}

class Entry implements HeldLock {
  readonly #lock: RangeLock;
  readonly start: number;
  readonly end: number;
  mode: LockMode | 'record';
  isHeld = true;
  grant: (() => void) | undefined;

  constructor(lock: RangeLock, { start, end }: BlockRange, mode: LockMode) {
    this.#lock = lock;
    this.start = start;
    this.end = end;
    this.mode = mode;
  }

  release(): void {
    this.#lock.release(this);
  }

  recording(): void {
    this.mode = 'record';
    this.#lock.grantAfter(this);
  }
}

export class RangeLock {
  /** Held and waiting, in order of arrival. */
  readonly #entries: Entry[] = [];

  /** Locks the blocks: now if nothing conflicts. */
  acquire(blocks: BlockRange, mode: LockMode): HeldLock | Promise<HeldLock> {
    const entry = new Entry(this, blocks, mode);
    const isBlocked = this.#isBlocked(entry, this.#entries.length);
    this.#entries.push(entry);
    if (!isBlocked) return entry;
    entry.isHeld = false;
    return new Promise((resolve) => {
      entry.grant = () => resolve(entry);
    });
  }

  /** For {@link HeldLock.release}. */
  release(entry: Entry): void {
    const last = this.#entries.length - 1;
    if (this.#entries[last] === entry) {
      this.#entries.pop();
      return;
    }
    const at = this.#entries.indexOf(entry);
    if (at < 0) return;
    this.#entries.splice(at, 1);
    this.grant(at);
  }

  /** For {@link HeldLock.recording}: only later entries can wait for this one. */
  grantAfter(entry: Entry): void {
    this.grant(this.#entries.lastIndexOf(entry) + 1);
  }

  /** Grants what no longer conflicts, from a place in the order on. */
  grant(from: number): void {
    for (let index = from; index < this.#entries.length; index++) {
      const waiting = this.#entries[index]!;
      if (waiting.isHeld || this.#isBlocked(waiting, index)) continue;
      waiting.isHeld = true;
      waiting.grant?.();
    }
  }

  #isBlocked(entry: Entry, before: number): boolean {
    for (let index = 0; index < before; index++) {
      const other = this.#entries[index]!;
      if (other.start < entry.end && entry.start < other.end && conflict(entry.mode, other.mode)) return true;
    }
    return false;
  }
}
