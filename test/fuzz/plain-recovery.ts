/**
 * A second, plain reader of metadata, written from docs/FORMAT.md. It returns which bytes the target holds.
 *
 * It believes everything, and so does not decide what must be refused. Whatever recovery accepts must mean the same to
 * both.
 */

import type { Images } from '../log/memory-files.ts';

/** Ascending ranges that neither touch nor overlap. */
export type Ranges = readonly (readonly [start: number, end: number])[];

export interface Meaning {
  readonly size: number;
  readonly blockSize: number;
  readonly truth: Ranges;
}

/** The union of ranges in any order. */
export function union(ranges: readonly (readonly [number, number])[]): Ranges {
  const merged: [number, number][] = [];
  for (const [start, end] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = merged.at(-1);
    if (start >= end) continue;
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else merged.push([start, end]);
  }
  return merged;
}

/** Whether `outer` includes all of `inner`. */
export function isWithin(inner: Ranges, outer: Ranges): boolean {
  return inner.every(([start, end]) => outer.some(([from, to]) => from <= start && end <= to));
}

class Bytes {
  readonly #view: DataView;
  readonly length: number;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.length = bytes.length;
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  u64(at: number): number {
    return Number(this.#view.getBigUint64(at, true));
  }

  u56(at: number): number {
    return Number(this.#view.getBigUint64(at, true) & 0xff_ffff_ffff_ffffn);
  }

  u8(at: number): number {
    return this.#view.getUint8(at);
  }

  text(at: number, length: number): string {
    return String.fromCharCode(...Array.from({ length }, (_, index) => this.u8(at + index)));
  }
}

/** The runs of values of a portable Roaring bitmap. */
function roaringRuns(bytes: Bytes, from: number): [number, number][] {
  const cookie = bytes.u32(from);
  const hasRuns = (cookie & 0xffff) === 12_347;
  const count = hasRuns ? (cookie >>> 16) + 1 : bytes.u32(from + 4);
  const headers = from + (hasRuns ? 4 + Math.ceil(count / 8) : 8);
  let at = headers + 4 * count + (!hasRuns || count >= 4 ? 4 * count : 0);
  const runs: [number, number][] = [];
  for (let index = 0; index < count; index++) {
    const base = bytes.u16(headers + 4 * index) * 65_536;
    const cardinality = bytes.u16(headers + 4 * index + 2) + 1;
    if (hasRuns && ((bytes.u8(from + 4 + (index >> 3)) >> (index & 7)) & 1) === 1) {
      const ends = at + 2 + 4 * bytes.u16(at);
      for (at += 2; at < ends; at += 4) runs.push([base + bytes.u16(at), base + bytes.u16(at) + bytes.u16(at + 2) + 1]);
    } else if (cardinality <= 4096) {
      for (let value = 0; value < cardinality; value++, at += 2)
        runs.push([base + bytes.u16(at), base + bytes.u16(at) + 1]);
    } else {
      for (let value = 0; value < 65_536; value++) {
        if ((bytes.u8(at + (value >> 3)) >> (value & 7)) & 1) runs.push([base + value, base + value + 1]);
      }
      at += 8192;
    }
  }
  return runs;
}

interface Collected {
  readonly size: number;
  readonly blockSize: number;
  readonly ranges: [number, number][];
}

/** Adds a range, without its part beyond the device. */
function add({ size, ranges }: Collected, start: number, end: number): void {
  if (start < size) ranges.push([start, Math.min(end, size)]);
}

function addBlocks(into: Collected, runs: readonly [number, number][], first: number): void {
  for (const [start, end] of runs) add(into, (first + start) * into.blockSize, (first + end) * into.blockSize);
}

function addPart(into: Collected, block: number, start: number, end: number): void {
  add(into, block * into.blockSize + start, Math.min(block * into.blockSize + end, (block + 1) * into.blockSize));
}

function readFormat1(files: ReadonlyMap<string, Bytes>, size: number): Meaning {
  const into: Collected = { size, blockSize: 4096, ranges: [] };
  const isOld = (name: string): boolean => (files.get(name)?.length ?? 0) >= 16 && files.get(name)!.u64(8) === 1;
  const name = ['bak.1', 'bak'].find(isOld);
  if (name !== undefined) {
    const checkpoint = files.get(name)!;
    let at = 16;
    for (let index = 0, length = checkpoint.u64(at); length !== 0; index++, length = checkpoint.u64(at)) {
      addBlocks(into, roaringRuns(checkpoint, at + 8), index * 4_294_967_295);
      at += 8 + length;
    }
    for (at += 8; checkpoint.u64(at) === 1; at += 32) {
      addPart(into, checkpoint.u64(at + 8), checkpoint.u64(at + 16), checkpoint.u64(at + 16) + checkpoint.u64(at + 24));
    }
  }
  for (const name of ['wil.1', 'wil'].filter(isOld)) {
    const log = files.get(name)!;
    for (let at = 16; at + 16 <= log.length; ) {
      const type = log.u64(at);
      if (type === 0) break;
      if (type === 1) addBlocks(into, [[log.u64(at + 8), log.u64(at + 8) + 1]], 0);
      else if (at + 32 > log.length) break;
      else addPart(into, log.u64(at + 8), log.u64(at + 16), log.u64(at + 16) + log.u64(at + 24));
      at += type === 1 ? 16 : 32;
    }
  }
  return { size, blockSize: 4096, truth: union(into.ranges) };
}

/** The frames of a log up to the first place without a frame. */
function framesOf(log: Bytes): { start: number; end: number }[] {
  const frames: { start: number; end: number }[] = [];
  for (let at = 512; at + 16 <= log.length; ) {
    const left = 512 - (at % 512);
    const length = log.u16(at);
    const isWhole =
      left >= 40 &&
      length >= 40 &&
      length <= left &&
      log.u16(at + 2) === (length ^ 0xffff) &&
      log.u32(at + 8) === frames.length;
    if (isWhole && log.text(at + length - 4, 4) === 'end!') {
      frames.push({ start: at, end: at + length });
      at += length;
    } else if (at % 512 === 0) break;
    else at += left;
  }
  return frames;
}

function bootOf(log: Bytes): string {
  return log.text(68, log.u32(64));
}

/** Adds the records of a log that count. Returns whether the next log counts as well. */
function addLog(into: Collected, log: Bytes, bootId: string): boolean {
  const frames = framesOf(log);
  const records = frames.flatMap(({ start, end }, sequence) =>
    Array.from({ length: (end - start - 24) / 16 }, (_, index) => ({ at: start + 16 + 16 * index, sequence })),
  );
  const isSameBoot = bootId !== '' && bootOf(log) === bootId;
  const barriers = records.filter(({ at }) => log.u8(at + 7) === 2).map(({ at }) => log.u64(at + 8));
  const limit = isSameBoot ? Number.POSITIVE_INFINITY : Math.max(0, ...barriers);
  for (const { at, sequence } of records) {
    if (log.u8(at + 7) === 1 && sequence < limit) add(into, log.u56(at), log.u56(at) + log.u64(at + 8));
  }
  return isSameBoot && records.some(({ at }) => log.u8(at + 7) === 3);
}

function readFormat2(files: ReadonlyMap<string, Bytes>, bootId: string): Meaning {
  const isNew = (name: string): boolean => {
    const file = files.get(name);
    return file !== undefined && file.length >= 512 && file.u64(0) !== 0 && file.u64(8) === 2 && file.u64(504) !== 0;
  };
  const checkpoint = ['bak', 'bak.1']
    .filter(isNew)
    .map((name) => files.get(name)!)
    .sort((a, b) => b.u64(32) - a.u64(32))[0]!;
  const into: Collected = { size: checkpoint.u64(40), blockSize: checkpoint.u32(48), ranges: [] };
  const padded = (length: number): number => Math.ceil(length / 8) * 8;
  const identity = checkpoint.u32(68) === 0xffff_ffff ? 0 : checkpoint.u32(68);
  const bitmaps = 512 + padded(identity);
  const dirty = bitmaps + padded(checkpoint.u64(72));
  for (let at = bitmaps, shard = 0; at < bitmaps + checkpoint.u64(72); shard++) {
    addBlocks(into, roaringRuns(checkpoint, at + 8), shard * 2 ** 32);
    at += 8 + padded(checkpoint.u64(at));
  }
  for (let at = dirty; at < dirty + checkpoint.u64(80); ) {
    const parts = checkpoint.u32(at + 8);
    for (let part = 0; part < parts; part++) {
      addPart(into, checkpoint.u64(at), checkpoint.u32(at + 16 + 8 * part), checkpoint.u32(at + 20 + 8 * part));
    }
    at += 16 + 8 * parts;
  }
  const logOf = (epoch: number): Bytes => files.get(epoch % 2 === 0 ? 'wil' : 'wil.1')!;
  const epoch = checkpoint.u64(32);
  if (checkpoint.u32(52) === 0 && addLog(into, logOf(epoch), bootId)) addLog(into, logOf(epoch + 1), bootId);
  return { size: into.size, blockSize: into.blockSize, truth: union(into.ranges) };
}

/**
 * Returns which bytes the target holds, from metadata that recovery has accepted.
 * @param size the size of the device, if format 1 does not contain it
 */
export function meaningOf(images: Images, target: string, { bootId, size }: { bootId: string; size: number }): Meaning {
  const files = new Map<string, Bytes>();
  for (const suffix of ['bak', 'bak.1', 'wil', 'wil.1']) {
    const image = images.get(`${target}.${suffix}`);
    if (image === undefined) continue;
    // Logs are zeros after the bytes that the images keep.
    const bytes = new Uint8Array(Math.min(image.size, Math.ceil(image.bytes.length / 512 + 1) * 512));
    bytes.set(image.bytes.subarray(0, bytes.length));
    files.set(suffix, new Bytes(bytes));
  }
  const isNew = [...files.values()].some(
    (file) => file.length >= 512 && file.u64(0) !== 0 && file.u64(8) === 2 && file.u64(504) !== 0,
  );
  return isNew ? readFormat2(files, bootId) : readFormat1(files, size);
}
