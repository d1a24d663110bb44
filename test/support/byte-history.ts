/**
 * The values that each byte of a device may read as (the contract's promises 1 to 3).
 *
 * - With a promised write: the newest promised write, a newer write, or a write that overlapped it in time.
 * - Without a promised write: any write, or the content before all writes.
 *
 * Time is a count of events. A promised write supersedes every write that ended before it began.
 */

/** Which writes are promised to survive. */
export type Counting = 'acknowledged' | 'durable';

const SECTOR_BYTES = 512;
/** Above this number of unpromised writes in a sector, their combinations are not checked. */
const MAX_OPEN = 8;

/** A write, in flight or ended. */
export class HistoricWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly beganAt: number;
  /** Undefined while the write is in flight. */
  endedAt: number | undefined;
  durable = false;
  failed = false;

  constructor(offset: number, bytes: Uint8Array, beganAt: number) {
    this.offset = offset;
    this.bytes = bytes;
    this.beganAt = beganAt;
  }

  get acknowledged(): boolean {
    return this.endedAt !== undefined && !this.failed;
  }

  get end(): number {
    return this.offset + this.bytes.length;
  }
}

export class ByteHistory {
  readonly #wholeSectors: boolean;
  #base: Uint8Array;
  #writes: HistoricWrite[] = [];
  #time = 0;

  /**
   * @param base the content of the device before all writes; never changed
   * @param options.wholeSectors whether an interrupted write ends at a sector boundary, so that no sector may be torn.
   *   Default: false.
   */
  constructor(base: Uint8Array, { wholeSectors = false }: { wholeSectors?: boolean } = {}) {
    this.#base = base;
    this.#wholeSectors = wholeSectors;
  }

  /** Begins a write. `bytes` must not change afterwards. */
  begin(offset: number, bytes: Uint8Array): HistoricWrite {
    const write = new HistoricWrite(offset, bytes, ++this.#time);
    this.#writes.push(write);
    return write;
  }

  acknowledge(write: HistoricWrite, { durable = false }: { durable?: boolean } = {}): void {
    write.durable ||= durable;
    write.endedAt = ++this.#time;
  }

  /** Ends a write that was rejected. Any part of it may be on the device. */
  fail(write: HistoricWrite): void {
    write.failed = true;
    write.endedAt = ++this.#time;
  }

  /** Begins a flush. The caller calls the result when the flush has resolved. */
  beginFlush(): () => void {
    const before = this.#writes.filter((write) => write.acknowledged);
    return () => {
      for (const write of before) write.durable = true;
    };
  }

  /**
   * Begins a read. The caller passes the bytes to the result when the read has resolved. It returns what is wrong with
   * them, if anything.
   */
  beginRead(offset: number): (found: Uint8Array) => string | undefined {
    const before = new Set(this.#writes.filter((write) => write.acknowledged));
    return (found) => this.#violation(found, offset, (write) => before.has(write));
  }

  /** Returns what is wrong with the content of the device, if anything. */
  violation(found: Uint8Array, counts: Counting): string | undefined {
    return this.#violation(found, 0, (write) => write[counts]);
  }

  /** Makes `found` the durable content of the device. No write may be in flight. */
  settle(found: Uint8Array): void {
    this.#base = found;
    this.#writes = [];
  }

  #violation(found: Uint8Array, offset: number, counts: (write: HistoricWrite) => boolean): string | undefined {
    const end = offset + found.length;
    const writes = this.#writes.filter((write) => write.offset < end && offset < write.end);
    const newest = this.#base.slice(offset, end);
    for (const write of writes) paint(newest, offset, write);
    if (isSame(newest, found)) return undefined;
    for (let start = offset - (offset % SECTOR_BYTES); start < end; start += SECTOR_BYTES) {
      const from = Math.max(offset, start);
      const to = Math.min(end, start + SECTOR_BYTES);
      const sector = found.subarray(from - offset, to - offset);
      if (isSame(sector, newest.subarray(from - offset, to - offset))) continue;
      const within = writes.filter((write) => write.offset < to && from < write.end);
      const wrong = this.#wrongByte(sector, from, within, counts) ?? this.#wrongMixture(sector, from, within, counts);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }

  #wrongByte(
    found: Uint8Array,
    offset: number,
    writes: readonly HistoricWrite[],
    counts: (write: HistoricWrite) => boolean,
  ): string | undefined {
    for (let at = offset; at < offset + found.length; at++) {
      const value = found[at - offset]!;
      /** When the newest promised write of this byte began. */
      let since = -1;
      let allowed = false;
      for (let index = writes.length - 1; index >= 0 && !allowed; index--) {
        const write = writes[index]!;
        if (at < write.offset || at >= write.end) continue;
        if (write.bytes[at - write.offset] === value && (write.endedAt ?? Number.POSITIVE_INFINITY) > since)
          allowed = true;
        if (counts(write)) since = Math.max(since, write.beganAt);
      }
      if (allowed || (since < 0 && this.#base[at] === value)) continue;
      const texts = writes
        .filter((write) => at >= write.offset && at < write.end)
        .map((write) => `${write.bytes[at - write.offset]} ${stateOf(write)}`);
      return `byte ${at} reads ${value}; before: ${this.#base[at]}, writes: ${texts.join(', ') || 'none'}`;
    }
    return undefined;
  }

  /** Finds a torn sector: each byte is allowed, but their combination is not. */
  #wrongMixture(
    found: Uint8Array,
    offset: number,
    writes: readonly HistoricWrite[],
    counts: (write: HistoricWrite) => boolean,
  ): string | undefined {
    const open = writes.filter((write) => !counts(write));
    if (!this.#wholeSectors) return undefined;
    // Writes that overlap in time have no order to try. A failed write may be there in part.
    if (open.length > MAX_OPEN || writes.some((write) => write.failed)) return undefined;
    for (const [index, write] of writes.entries()) {
      const next = writes[index + 1];
      if (next !== undefined && (write.endedAt ?? Number.POSITIVE_INFINITY) > next.beganAt) return undefined;
    }
    const tried = new Uint8Array(found.length);
    for (let subset = 0; subset < 2 ** open.length; subset++) {
      tried.set(this.#base.subarray(offset, offset + found.length));
      for (const write of writes) {
        const at = open.indexOf(write);
        if (at < 0 || subset & (1 << at)) paint(tried, offset, write);
      }
      if (isSame(tried, found)) return undefined;
    }
    const texts = writes.map((write) => `${write.offset} + ${write.bytes.length} ${stateOf(write)}`);
    return `the sector at ${offset} is a mixture: writes ${texts.join(', ')}`;
  }
}

function stateOf(write: HistoricWrite): string {
  if (write.durable) return 'durable';
  if (write.failed) return 'failed';
  return write.acknowledged ? 'acknowledged' : 'in flight';
}

/** Applies a write to `onto`, which begins at `offset`. */
function paint(onto: Uint8Array, offset: number, write: HistoricWrite): void {
  const from = Math.max(offset, write.offset);
  const to = Math.min(offset + onto.length, write.end);
  if (from < to) onto.set(write.bytes.subarray(from - write.offset, to - write.offset), from - offset);
}

/** Compares arrays of equal length. Browsers lack Buffer, which is faster. */
function isSame(one: Uint8Array, other: Uint8Array): boolean {
  if (typeof Buffer !== 'undefined') return Buffer.compare(one, other) === 0;
  return one.every((byte, at) => byte === other[at]);
}
