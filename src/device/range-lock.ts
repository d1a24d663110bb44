/**
 * Fair locks on ranges of blocks: readers share, a writer is alone. First come, first served: nobody is passed by somebody whose
 * range overlaps and who came later, so nobody starves. There is no deadlock as long as a holder asks for no second lock.
 */

export type LockMode = 'shared' | 'exclusive';

interface Entry {
  readonly start: number;
  readonly end: number;
  readonly mode: LockMode;
  held: boolean;
  grant: (() => void) | undefined;
}

/** Lets go of a lock; to be called once. */
export type Release = () => void;

export class RangeLock {
  /** Held and waiting, in order of arrival. */
  #entries: Entry[] = [];

  /** Whether nobody stands in the way of a lock on blocks `[start, end)`: for what is done before anybody else can ask. */
  isFree(start: number, end: number, mode: LockMode): boolean {
    return (
      this.#entries.length === 0 ||
      !this.#blocked({ start, end, mode, held: false, grant: undefined }, this.#entries.length)
    );
  }

  /** The lock on blocks `[start, end)` if nobody stands in the way, at once. */
  tryAcquire(start: number, end: number, mode: LockMode): Release | undefined {
    const entry: Entry = { start, end, mode, held: true, grant: undefined };
    if (this.#blocked(entry, this.#entries.length)) return undefined;
    this.#entries.push(entry);
    return () => this.#release(entry);
  }

  /** Waits for the lock on blocks `[start, end)`. */
  acquire(start: number, end: number, mode: LockMode): Promise<Release> {
    const now = this.tryAcquire(start, end, mode);
    if (now !== undefined) return Promise.resolve(now);
    return new Promise((resolve) => {
      const entry: Entry = { start, end, mode, held: false, grant: undefined };
      entry.grant = () => resolve(() => this.#release(entry));
      this.#entries.push(entry);
    });
  }

  #blocked(entry: Entry, before: number): boolean {
    for (let index = 0; index < before; index++) {
      const other = this.#entries[index]!;
      if (
        other.start < entry.end &&
        entry.start < other.end &&
        (other.mode === 'exclusive' || entry.mode === 'exclusive')
      )
        return true;
    }
    return false;
  }

  #release(entry: Entry): void {
    const at = this.#entries.indexOf(entry);
    if (at < 0) return;
    this.#entries.splice(at, 1);
    for (let index = at; index < this.#entries.length; index++) {
      const waiting = this.#entries[index]!;
      if (waiting.held || this.#blocked(waiting, index)) continue;
      waiting.held = true;
      waiting.grant?.();
    }
  }
}
