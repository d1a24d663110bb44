/** What a fuzz target is, and which errors it may end with. */

import { isCodError } from '../../../src/errors.ts';

export interface Target {
  /** Runs one input. Rejects only if the input has shown a defect. */
  run(input: Uint8Array): Promise<void>;
  /** Inputs to begin with, from the frozen states and from what tests make. */
  seeds(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
  /** Inputs are at most this long. Default: 64 KiB. */
  readonly maxBytes?: number;
  /** An input may allocate this many elements, and 256 times its length. Default: 2^26. */
  readonly maxAllocated?: number;
}

/** Awaits `work`. Rejects with its error if that has no code, or the code of a defect. */
export async function onlyCodErrors<T>(
  work: () => T | Promise<T>,
  ...also: readonly (new (
    ...args: never[]
  ) => Error)[]
): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (isCodError(error) && error.code !== 'COD_BUG') return undefined;
    if (also.some((kind) => error instanceof kind)) return undefined;
    throw error;
  }
}

/** @throws an error if `size` is not a length of bytes */
export function checkSize(size: number): void {
  if (!Number.isSafeInteger(size) || size < 0) throw new Error(`the size is ${size}`);
}

/** Reads the fields of an input in order. Behind its end everything is 0. */
export class Fields {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  u8(): number {
    return this.#bytes[this.#at++] ?? 0;
  }

  u16(): number {
    return this.u8() + this.u8() * 2 ** 8;
  }

  u32(): number {
    return this.u16() + this.u16() * 2 ** 16;
  }

  /** At most `length` bytes. */
  bytes(length: number): Uint8Array {
    const bytes = this.#bytes.slice(this.#at, this.#at + length);
    this.#at += length;
    return bytes;
  }

  rest(): Uint8Array {
    return this.bytes(this.#bytes.length);
  }
}

export function u8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

export function u16(value: number): Uint8Array {
  return Uint8Array.of(value, value >> 8);
}

export function u32(value: number): Uint8Array {
  return Uint8Array.of(value, value >> 8, value >> 16, value >> 24);
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

const SECTOR_BYTES = 512;
/** No disk of an input is longer. */
const MAX_SECTORS = 2 ** 31;

/**
 * A disk as its sectors that are not zero: their number in all, how many are stored, and each with its place. Disks of
 * gigabytes are short inputs.
 */
export function sparseDisk(fields: Fields): SparseDisk {
  const size = fields.u32() % MAX_SECTORS;
  const cut = fields.u16() % SECTOR_BYTES;
  const sectors = new Map<number, Uint8Array>();
  for (let left = fields.u16(); left > 0 && !fields.isAtEnd; left--) {
    const at = fields.u32();
    sectors.set(at, fields.bytes(SECTOR_BYTES));
  }
  return new SparseDisk(Math.max(0, size * SECTOR_BYTES - cut), sectors);
}

/** The encoding of a disk, without the sectors that `isWanted` refuses. */
export function encodedDisk(bytes: Uint8Array, isWanted: (sector: number) => boolean = () => true): Uint8Array {
  const sectors = Math.ceil(bytes.length / SECTOR_BYTES);
  const parts: Uint8Array[] = [];
  for (let sector = 0; sector < sectors; sector++) {
    const part = bytes.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
    if (!isWanted(sector) || part.every((byte) => byte === 0)) continue;
    const whole = new Uint8Array(SECTOR_BYTES);
    whole.set(part);
    parts.push(u32(sector), whole);
  }
  return joined(u32(sectors), u16(sectors * SECTOR_BYTES - bytes.length), u16(parts.length / 2), ...parts);
}

export class SparseDisk {
  readonly size: number;
  readonly #sectors: ReadonlyMap<number, Uint8Array>;
  /** The sectors that were read. */
  readonly touched: Set<number> = new Set();
  bytesRead = 0;

  constructor(size: number, sectors: ReadonlyMap<number, Uint8Array>) {
    this.size = size;
    this.#sectors = sectors;
  }

  /** Fills `into`. The range must be within the disk. */
  fill(into: Uint8Array, offset: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + into.length > this.size)
      throw new Error(`a read of ${into.length} bytes at ${offset}, beyond ${this.size} bytes`);
    this.bytesRead += into.length;
    for (let done = 0; done < into.length; ) {
      const sector = Math.floor((offset + done) / SECTOR_BYTES);
      const from = offset + done - sector * SECTOR_BYTES;
      const length = Math.min(SECTOR_BYTES - from, into.length - done);
      this.touched.add(sector);
      const part = this.#sectors.get(sector)?.subarray(from, from + length);
      into.fill(0, done, done + length);
      if (part !== undefined) into.set(part, done);
      done += length;
    }
  }
}
