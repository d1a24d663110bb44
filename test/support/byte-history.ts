/**
 * What each byte of a device may read as (the contract's promises 1 to 3): the last write that counts, a newer one or one that it overlapped
 * in time, or, where none counts, what was there before.
 *
 * Time is a count of events here. A write that ended before another one began is superseded by it, once that one counts.
 */

/** Which writes are promised to be there. */
export type Counting = 'acknowledged' | 'durable';

const SECTOR_BYTES = 512;
/** More writes of open fate than this in one sector are not tried out in all combinations. */
const MAX_OPEN = 8;

/** A write under way, or done. */
export class HistoricWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly beganAt: number;
  /** Undefined as long as it is under way. */
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
   * @param base what the device holds as long as nobody writes; not changed.
   * @param options.wholeSectors whether a write cut short ends where a sector does, so that none may be a mixture. Default: false.
   */
  constructor(base: Uint8Array, { wholeSectors = false }: { wholeSectors?: boolean } = {}) {
    this.#base = base;
    this.#wholeSectors = wholeSectors;
  }

  /** A write is about to be made; `bytes` must stay as they are. */
  begin(offset: number, bytes: Uint8Array): HistoricWrite {
    const write = new HistoricWrite(offset, bytes, ++this.#time);
    this.#writes.push(write);
    return write;
  }

  acknowledge(write: HistoricWrite, { durable = false }: { durable?: boolean } = {}): void {
    write.durable ||= durable;
    write.endedAt = ++this.#time;
  }

  /** It was rejected: any part of it may be there. */
  fail(write: HistoricWrite): void {
    write.failed = true;
    write.endedAt = ++this.#time;
  }

  /** A flush is about to be made; to be called when it has resolved. */
  beginFlush(): () => void {
    const before = this.#writes.filter((write) => write.acknowledged);
    return () => {
      for (const write of before) write.durable = true;
    };
  }

  /** A read is about to be made; to be called with what it found when it has resolved. Returns what is wrong with it. */
  beginRead(offset: number): (found: Uint8Array) => string | undefined {
    const before = new Set(this.#writes.filter((write) => write.acknowledged));
    return (found) => this.#violation(found, offset, (write) => before.has(write));
  }

  /** What is wrong with the content of the device, if anything. */
  violation(found: Uint8Array, counts: Counting): string | undefined {
    return this.#violation(found, 0, (write) => write[counts]);
  }

  /** From here on this is what the device holds, for good; nothing is under way. */
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
      /** When the last write that counts and covers this byte began. */
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
      const told = writes
        .filter((write) => at >= write.offset && at < write.end)
        .map((write) => `${write.bytes[at - write.offset]} ${stateOf(write)}`);
      return `byte ${at} reads ${value}; before there was ${this.#base[at]}, writes: ${told.join(', ') || 'none'}`;
    }
    return undefined;
  }

  /** Each byte of the sector may be what it is, but perhaps not together: then some write is there in part. */
  #wrongMixture(
    found: Uint8Array,
    offset: number,
    writes: readonly HistoricWrite[],
    counts: (write: HistoricWrite) => boolean,
  ): string | undefined {
    const open = writes.filter((write) => !counts(write));
    if (!this.#wholeSectors) return undefined;
    // What overlapped in time has no order that could be tried out; what failed may be there in part.
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
    return `the sector at ${offset} is a mixture: writes ${writes.map((write) => `${write.offset} + ${write.bytes.length} ${stateOf(write)}`).join(', ')}`;
  }
}

function stateOf(write: HistoricWrite): string {
  if (write.durable) return 'durable';
  if (write.failed) return 'failed';
  return write.acknowledged ? 'acknowledged' : 'in flight';
}

/** Puts a write over `onto`, which begins at `offset`. */
function paint(onto: Uint8Array, offset: number, write: HistoricWrite): void {
  const from = Math.max(offset, write.offset);
  const to = Math.min(offset + onto.length, write.end);
  if (from < to) onto.set(write.bytes.subarray(from - write.offset, to - write.offset), from - offset);
}

/** Of the same length. Browsers have no Buffer, which is faster. */
function isSame(one: Uint8Array, other: Uint8Array): boolean {
  if (typeof Buffer !== 'undefined') return Buffer.compare(one, other) === 0;
  return one.every((byte, at) => byte === other[at]);
}
