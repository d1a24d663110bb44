/** Transactions of a log: what is about to be written, and the records of what was. */

import type { Done } from '../async/done.ts';
import type { Geometry } from '../core/geometry.ts';
import { type Announcements, addFilled, type Recorded } from './announcements.ts';
import type { Transaction } from './types.ts';

/** The records of a transaction that has none. Never changed. */
const NOTHING: number[] = [];

/** A transaction of our own device. */
export class OpenTransaction implements Transaction, Recorded {
  records: number[] = NOTHING;
  extents: number[] = NOTHING;
  readonly #announcements: Announcements;
  readonly #geometry: Geometry;
  isCommitted = false;

  constructor(announcements: Announcements, geometry: Geometry) {
    this.#announcements = announcements;
    this.#geometry = geometry;
  }

  /** Whether the transaction is from the log with this geometry. */
  isOf(geometry: Geometry): boolean {
    return this.#geometry === geometry;
  }

  async intend(offset: number, bytes: Uint8Array): Promise<void> {
    await this.announce(offset, bytes);
  }

  /** As {@link intend}, now or later. */
  announce(offset: number, bytes: Uint8Array): Done {
    this.#check(offset, bytes.length);
    return bytes.length === 0 ? undefined : this.#announcements.write(this, offset, bytes);
  }

  async fill(offset: number, bytes: Uint8Array): Promise<void> {
    this.#check(offset, bytes.length);
    await this.#announcements.change(offset, bytes);
    // Only now: a copy that could not be announced must not be made, and so must not be recorded.
    this.filled(offset, bytes.length);
  }

  /** As {@link fill}, of bytes whose change is announced elsewhere. */
  filled(offset: number, length: number): void {
    this.#check(offset, length);
    if (length > 0) addFilled(this, offset, length);
  }

  #check(offset: number, length: number): void {
    if (this.isCommitted) throw new TypeError('the transaction is already committed: begin a new one');
    const { size } = this.#geometry;
    const isInside = Number.isSafeInteger(offset) && offset >= 0 && offset + length <= size;
    if (!isInside) throw new RangeError(`${length} bytes at ${offset} are not within the storage (${size} bytes)`);
  }
}
