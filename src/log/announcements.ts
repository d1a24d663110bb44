/**
 * Announces users' writes before they change the target (docs/FORMAT.md, "Which records count").
 *
 * | the bytes                                             | before the write            | after it          |
 * | ----------------------------------------------------- | --------------------------- | ----------------- |
 * | synced, no unfirm record names their cells            |                             |                   |
 * | synced by users' or firm records, cells named unfirm  | `MAY_READ` of these cells   |                   |
 * | all others                                            | `MAY_READ` where named      | `WRITTEN`         |
 * | in a block that is synced and not modified            | also `MODIFIED`             |                   |
 *
 * A sum is that of the whole cell as it reads after the write. The caller serializes changes of a cell.
 */

import { after, type Done, type MaybePromise } from '../async/done.ts';
import type { CopyState } from '../core/copy-state.ts';
import { CELL_BYTES, FILLED, MAY_READ, MODIFIED, WRITTEN, WRITTEN_PAIR } from '../core/layout.ts';
import { newBytes } from '../core/new-bytes.ts';
import type { Core } from '../wasm/core.ts';
import { type Firmness, hasSum, RECORD_NUMBERS } from './firmness.ts';
import type { GroupCommit } from './group-commit.ts';

/** Reads the caller's storage, now or later. */
export type ReadStorage = (into: Uint8Array, offset: number) => Done;

/** What a transaction records. The arrays are replaced, since most transactions have one record or none. */
export interface Recorded {
  /** Records about bytes, {@link RECORD_NUMBERS} numbers each. */
  records: number[];
  /**
   * What the state has from then on, {@link EXTENT_NUMBERS} numbers each: type, offset, length. FILLED: the target
   * holds these bytes. WRITTEN: it does, and they are a user's. MODIFIED: a user may change them.
   */
  extents: number[];
}

export const EXTENT_NUMBERS = 3;

/** Applies the extents of records that are in the log. */
export function applyExtents(extents: readonly number[], state: CopyState): void {
  for (let index = 0; index < extents.length; index += EXTENT_NUMBERS) {
    const [type, offset, length] = [extents[index]!, extents[index + 1]!, extents[index + 2]!];
    if (type !== FILLED) state.modify(offset, length);
    if (type !== MODIFIED) state.apply(offset, length);
  }
}

/** The extents of records, when all of their bytes are on the target. */
export function extentsOf(records: readonly number[]): number[] {
  const extents: number[] = [];
  for (let at = 0; at < records.length; at += RECORD_NUMBERS) {
    const [type, offset, low, high] = records.slice(at, at + RECORD_NUMBERS) as [number, number, number, number];
    if (type === MAY_READ) continue;
    const isPair = type === WRITTEN_PAIR;
    const length = isPair ? 2 * CELL_BYTES : hasSum(type) ? low : low + high * 2 ** 32;
    const last = extents.length - EXTENT_NUMBERS;
    const kind = isPair ? WRITTEN : type;
    if (last >= 0 && extents[last] === kind && extents[last + 1]! + extents[last + 2]! === offset)
      extents[last + 2]! += length;
    else extents.push(kind, offset, length);
  }
  return extents;
}

const NO_EXTENTS: number[] = [];

export class Announcements {
  readonly #core: Core;
  readonly #state: CopyState;
  readonly #firmness: Firmness;
  readonly #read: ReadStorage;
  /** Holds a cell of which a write is a part. */
  #scratch = new Uint8Array(CELL_BYTES);
  readonly #log: Pick<GroupCommit, 'announce' | 'join' | 'names'>;

  constructor(parts: {
    core: Core;
    state: CopyState;
    firmness: Firmness;
    read: ReadStorage;
    log: Pick<GroupCommit, 'announce' | 'join' | 'names'>;
  }) {
    this.#core = parts.core;
    this.#state = parts.state;
    this.#firmness = parts.firmness;
    this.#read = parts.read;
    this.#log = parts.log;
  }

  /** Announces a user's write, and adds to `recorded` what its commit appends. */
  write(recorded: Recorded, offset: number, bytes: Uint8Array): Done {
    const { length } = bytes;
    const isRecorded = this.#state.isSynced(offset, length) && !this.#firmness.isFilled(offset, length);
    if (isRecorded && !this.#isNamed(offset, length))
      return this.#state.isUnmodified(offset, length) ? this.modify(offset, length) : undefined;
    const sums = this.#sums(offset, bytes);
    if (sums instanceof Promise)
      return sums.then((found) => this.#written(recorded, isRecorded, offset, length, found));
    return this.#written(recorded, isRecorded, offset, length, sums);
  }

  #written(recorded: Recorded, isRecorded: boolean, offset: number, length: number, sums: readonly number[]): Done {
    const announced = this.#announce(offset, length, sums);
    if (isRecorded) return announced;
    // Only now: a write that could not be announced must not be made, and so must not be recorded.
    if (announced !== undefined) return announced.then(() => addWritten(recorded, offset, length, sums));
    addWritten(recorded, offset, length, sums);
    return undefined;
  }

  /** Announces a user's write where records name its cells, and where its blocks are only copied. */
  #announce(offset: number, length: number, sums: readonly number[]): Done {
    const mayRead = this.#isNamed(offset, length) ? this.#mayRead(offset, sums) : undefined;
    if (!this.#state.isUnmodified(offset, length)) return mayRead;
    return mayRead === undefined ? this.modify(offset, length) : mayRead.then(() => this.modify(offset, length));
  }

  /** Announces that a user may change these bytes. */
  modify(offset: number, length: number): Done {
    return this.#log.announce({
      records: record(MODIFIED, offset, length),
      extents: [MODIFIED, offset, length],
    });
  }

  /** Whether records in the log, or that wait for their append, name the content of any cell of these bytes. */
  #isNamed(offset: number, length: number): boolean {
    return this.#firmness.isNamed(offset, length) || this.#log.names(offset, length);
  }

  /** Announces a change that is no user's write. */
  change(offset: number, bytes: Uint8Array): Done {
    if (!this.#isNamed(offset, bytes.length)) return undefined;
    return after(this.#sums(offset, bytes), (sums) => this.#mayRead(offset, sums)) as Done;
  }

  /** Announces what a failed write has left, whatever that is. */
  content(offset: number, length: number): Done {
    if (!this.#isNamed(offset, length)) return undefined;
    const { size } = this.#state.geometry;
    const start = offset - (offset % CELL_BYTES);
    const content = newBytes(Math.min(size, Math.ceil((offset + length) / CELL_BYTES) * CELL_BYTES) - start);
    const announce = (): Done => this.change(start, content);
    const read = this.#read(content, start);
    return read === undefined ? announce() : read.then(announce);
  }

  /**
   * Appends what the named cells may read as. Beside records that wait for the next append it waits too, and the caller
   * need not: nothing was acknowledged before that append.
   */
  #mayRead(offset: number, sums: readonly number[]): Done {
    const records: number[] = [];
    let mustWait = false;
    const first = Math.floor(offset / CELL_BYTES);
    for (let index = 0; index < sums.length; index++) {
      const start = (first + index) * CELL_BYTES;
      const isInLog = this.#firmness.isNamed(start, 1);
      if (!isInLog && !this.#log.names(start, 1)) continue;
      records.push(MAY_READ, start, sums[index]!, 0);
      mustWait ||= isInLog;
    }
    if (records.length === 0) return undefined;
    return mustWait ? this.#log.announce({ records, extents: NO_EXTENTS }) : this.#log.join(records);
  }

  /** The sum of each cell that these bytes touch, once they are written. */
  #sums(offset: number, bytes: Uint8Array): MaybePromise<number[]> {
    const { size } = this.#state.geometry;
    const end = offset + bytes.length;
    const first = offset - (offset % CELL_BYTES);
    const sums: number[] = [];
    let reads: Promise<void>[] | undefined;
    for (let cell = first; cell < end; cell += CELL_BYTES) {
      const cellEnd = Math.min(cell + CELL_BYTES, size);
      if (offset <= cell && cellEnd <= end) {
        const isAll = cell === offset && cellEnd === end;
        sums.push(this.#core.cellSum(isAll ? bytes : bytes.subarray(cell - offset, cellEnd - offset)));
        continue;
      }
      const index = sums.push(0) - 1;
      const read = this.#sumOfPart(cell, cellEnd, offset, bytes, (sum) => (sums[index] = sum));
      if (read === undefined) continue;
      // The other read may throw before anything waits for this one.
      read.catch(() => undefined);
      reads ??= [];
      reads.push(read);
    }
    return reads === undefined ? sums : Promise.all(reads).then(() => sums);
  }

  /** Passes on the sum of a cell of which the bytes are a part. */
  #sumOfPart(cell: number, cellEnd: number, offset: number, bytes: Uint8Array, found: (sum: number) => void): Done {
    const content = this.#scratch.subarray(0, cellEnd - cell);
    const finish = (): void => {
      const start = Math.max(offset, cell);
      const stop = Math.min(offset + bytes.length, cellEnd);
      content.set(bytes.subarray(start - offset, stop - offset), start - cell);
      found(this.#core.cellSum(content));
    };
    const read = this.#read(content, cell);
    if (read === undefined) {
      finish();
      return undefined;
    }
    // The read needs the buffer until it ends.
    this.#scratch = new Uint8Array(CELL_BYTES);
    return read.then(finish);
  }
}

/** The records of a user's write: one for each two whole cells, and one for each cell of which it is a part. */
function writtenRecords(offset: number, length: number, sums: readonly number[]): number[] {
  const end = offset + length;
  if (sums.length === 1) return [WRITTEN, offset, length, sums[0]!];
  const records: number[] = [];
  let index = 0;
  for (let at = offset; at < end; ) {
    if (at % CELL_BYTES === 0 && at + 2 * CELL_BYTES <= end) {
      records.push(WRITTEN_PAIR, at, sums[index]!, sums[index + 1]!);
      index += 2;
      at += 2 * CELL_BYTES;
      continue;
    }
    const stop = Math.min(end, at - (at % CELL_BYTES) + CELL_BYTES);
    records.push(WRITTEN, at, stop - at, sums[index]!);
    index++;
    at = stop;
  }
  return records;
}

/** Adds the records of a user's write. */
function addWritten(recorded: Recorded, offset: number, length: number, sums: readonly number[]): void {
  recorded.records = joined(recorded.records, writtenRecords(offset, length, sums));
  recorded.extents = joined(recorded.extents, [WRITTEN, offset, length]);
}

/** Adds the record of bytes that are the source's. */
export function addFilled(recorded: Recorded, offset: number, length: number): void {
  recorded.records = joined(recorded.records, record(FILLED, offset, length));
  recorded.extents = joined(recorded.extents, [FILLED, offset, length]);
}

/** A record without a sum. */
function record(type: number, offset: number, length: number): number[] {
  return [type, offset, length % 2 ** 32, Math.floor(length / 2 ** 32)];
}

/** Adds to a list that only the transaction has. An empty one is shared, so it is replaced. */
function joined(before: number[], added: number[]): number[] {
  if (before.length === 0) return added;
  for (const value of added) before.push(value);
  return before;
}
