/**
 * A second, plain reader of metadata, written from docs/FORMAT.md. It returns which bytes the target holds, and which
 * blocks users modified.
 *
 * It believes everything, and so does not decide what must be refused. Whatever recovery accepts must mean the same to
 * both.
 */

import type { Images } from '../log/memory-files.ts';
import { slowCellSum } from '../support/cell-sum.ts';

/** Ascending ranges that neither touch nor overlap. */
export type Ranges = readonly (readonly [start: number, end: number])[];

export interface Meaning {
  readonly size: number;
  readonly blockSize: number;
  readonly truth: Ranges;
  /** The modified blocks, in bytes. */
  readonly modified: Ranges;
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
  /** What users may have changed. */
  readonly changes: [number, number][];
}

/** Adds a range, without its part beyond the device. */
function add({ size, ranges }: Collected, start: number, end: number): void {
  if (start < size) ranges.push([start, Math.min(end, size)]);
}

function addBlocks(into: Collected, runs: readonly [number, number][], first: number): void {
  for (const [start, end] of runs) add(into, (first + start) * into.blockSize, (first + end) * into.blockSize);
}

/** The meaning of what was collected: only blocks of which the target holds any byte are modified. */
function meaning({ size, blockSize, ranges, changes }: Collected): Meaning {
  const blocksOf = (from: [number, number][]): Ranges =>
    union(from.map(([start, end]) => [Math.floor(start / blockSize), Math.ceil(end / blockSize)]));
  const held = blocksOf(ranges.filter(([start, end]) => start < end));
  const modified = blocksOf(changes).flatMap(([start, end]) =>
    held.map(([from, to]): [number, number] => [
      Math.max(start, from) * blockSize,
      Math.min(size, Math.min(end, to) * blockSize),
    ]),
  );
  return { size, blockSize, truth: union(ranges), modified: union(modified) };
}

function addPart(into: Collected, block: number, start: number, end: number): void {
  add(into, block * into.blockSize + start, Math.min(block * into.blockSize + end, (block + 1) * into.blockSize));
}

function readFormat1(files: ReadonlyMap<string, Bytes>, size: number): Meaning {
  const into: Collected = { size, blockSize: 4096, ranges: [], changes: [[0, size]] };
  const isOld = (name: string): boolean =>
    (files.get(name)?.length ?? 0) >= 16 && files.get(name)!.u8(0) !== 0 && files.get(name)!.u64(8) === 1;
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
  return meaning(into);
}

interface Frame {
  readonly start: number;
  readonly end: number;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  return crc;
});

function crcOf(log: Bytes, { start, end }: Frame): number {
  let crc = 0xffff_ffff;
  for (let at = start; at < end; at++) crc = CRC_TABLE[(crc ^ log.u8(at)) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** The end of the bytes at this place that have the shape of a frame, or undefined. */
function shapeAt(log: Bytes, at: number): number | undefined {
  const left = Math.min(512 - (at % 512), log.length - at);
  if (left < 40) return undefined;
  const length = log.u16(at);
  const isShape = length >= 40 && length <= left && length % 16 === 8 && log.u16(at + 2) === (length ^ 0xffff);
  return isShape && log.text(at + length - 4, 4) === 'end!' ? at + length : undefined;
}

/** Whether these bytes of the shape of a frame are a frame of this log. */
function isFrame(log: Bytes, { start, end }: Frame): boolean {
  return log.u32(start + 4) === log.u32(32) && log.u32(end - 8) === crcOf(log, { start, end: end - 8 });
}

/** The frames that count, in order, and the frames behind the first place without the expected one. */
function framesOf(log: Bytes): { counted: Frame[]; behind: Frame[] } {
  const counted: Frame[] = [];
  const behind: Frame[] = [];
  let hasEnded = false;
  for (let at = 512; at + 40 <= log.length; ) {
    if (512 - (at % 512) < 40) {
      at += 512 - (at % 512);
      continue;
    }
    const end = shapeAt(log, at);
    const frame = { start: at, end: end ?? at + 8 };
    const isThere = end !== undefined && isFrame(log, frame);
    if (!isThere || log.u32(at + 8) !== counted.length) hasEnded = true;
    if (isThere) (hasEnded ? behind : counted).push(frame);
    at = frame.end;
  }
  return { counted, behind };
}

function recordsOf({ start, end }: Frame): number[] {
  return Array.from({ length: (end - start - 24) / 16 }, (_, index) => start + 16 + 16 * index);
}

/** What a record says about one cell: these bytes were written, and the cell then had this sum. */
interface Claim {
  readonly cell: number;
  readonly start: number;
  readonly end: number;
  readonly sum: number;
}

/** The claims of one record. */
function claimsOf(log: Bytes, at: number): Claim[] {
  const offset = log.u56(at);
  const cell = Math.floor(offset / 4096);
  const [low, high] = [log.u32(at + 8), log.u32(at + 12)];
  const whole = (index: number, sum: number): Claim => ({
    cell: index,
    start: index * 4096,
    end: (index + 1) * 4096,
    sum,
  });
  switch (log.u8(at + 7)) {
    case 1:
      return [{ cell, start: offset, end: offset + low, sum: high }];
    case 6:
      return [whole(cell, low), whole(cell + 1, high)];
    case 5:
      return [{ cell, start: offset, end: offset, sum: low }];
    default:
      return [];
  }
}

/** Adds the firm records of a log, and collects what the others claim. Returns whether the next log continues it. */
function addLog(into: Collected, log: Bytes, claims: Claim[]): boolean {
  const { counted, behind } = framesOf(log);
  let firm = 0;
  for (const frame of [...counted, ...behind]) {
    for (const at of recordsOf(frame))
      if (log.u8(at + 7) === 2 && log.u64(at + 8) <= counted.length) firm = Math.max(firm, log.u64(at + 8));
  }
  let continues = false;
  for (const [sequence, frame] of counted.entries()) {
    for (const at of recordsOf(frame)) {
      const type = log.u8(at + 7);
      const change = { ...into, ranges: into.changes };
      if (type === 1) add(change, log.u56(at), log.u56(at) + log.u32(at + 8));
      if (type === 6) add(change, log.u56(at), log.u56(at) + 8192);
      if (type === 8) add(change, log.u56(at), log.u56(at) + log.u64(at + 8));
      if (type === 3) continues = true;
      else if (sequence >= firm) claims.push(...claimsOf(log, at));
      else if (type === 7) add(into, log.u56(at), log.u56(at) + log.u64(at + 8));
      else if (type === 1) add(into, log.u56(at), log.u56(at) + log.u32(at + 8));
      else if (type === 6) add(into, log.u56(at), log.u56(at) + 8192);
    }
  }
  return continues;
}

/** Sums of cells of a target, which many cases share. */
const knownSums = new WeakMap<Uint8Array, Map<string, number>>();

function sumOf(target: Uint8Array, cell: number, length: number): number {
  const known = knownSums.get(target) ?? new Map<string, number>();
  knownSums.set(target, known);
  const key = `${cell} ${length}`;
  let sum = known.get(key);
  if (sum === undefined) {
    const content = new Uint8Array(length);
    content.set(target.subarray(cell * 4096, cell * 4096 + length));
    known.set(key, (sum = slowCellSum(content)));
  }
  return sum;
}

/** Adds the writes that the target proves: in each cell, those up to the last claim with the sum of the cell. */
function addProved(into: Collected, claims: readonly Claim[], target: Uint8Array): void {
  for (const cell of new Set(claims.map(({ cell }) => cell))) {
    const sum = sumOf(target, cell, Math.min(4096, into.size - cell * 4096));
    const own = claims.filter((claim) => claim.cell === cell);
    const last = own.map((claim) => claim.sum).lastIndexOf(sum);
    for (const { start, end } of own.slice(0, last + 1)) add(into, start, Math.max(start, end));
  }
}

/** Whether a header of format 2 was committed: its beginning and its end are there. */
function isOfFormat2(file: Bytes | undefined): file is Bytes {
  if (file === undefined || file.length < 512 || file.u64(8) !== 2) return false;
  return file.text(0, 4) === 'COD ' && file.text(504, 8) === 'COD END\n';
}

/** The valid checkpoint of the highest epoch. */
function newestCheckpoint(files: ReadonlyMap<string, Bytes>): Bytes | undefined {
  return ['bak', 'bak.1']
    .map((name) => files.get(name))
    .filter(isOfFormat2)
    .sort((a, b) => b.u64(32) - a.u64(32))[0];
}

function logNameOf(epoch: number): 'wil' | 'wil.1' {
  return epoch % 2 === 0 ? 'wil' : 'wil.1';
}

function readFormat2(files: ReadonlyMap<string, Bytes>, target: Uint8Array): Meaning {
  const checkpoint = newestCheckpoint(files)!;
  const into: Collected = { size: checkpoint.u64(40), blockSize: checkpoint.u32(48), ranges: [], changes: [] };
  const identity = checkpoint.u32(68) === 0xffff_ffff ? 0 : checkpoint.u32(68);
  const slices = Math.ceil(into.size / into.blockSize / 2 ** 24);
  for (let slice = 0; slice < slices; slice++) {
    const entry = 512 + Math.ceil(identity / 8) * 8 + 40 * slice;
    const first = slice * 2 ** 24;
    const bitmap = checkpoint.u64(entry) + checkpoint.u32(entry + 8);
    for (let at = checkpoint.u64(entry); at < bitmap; ) {
      const parts = checkpoint.u32(at + 4);
      for (let part = 0; part < parts; part++) {
        const range = at + 8 + 8 * part;
        addPart(into, first + checkpoint.u32(at), checkpoint.u32(range), checkpoint.u32(range + 4));
      }
      at += 8 + 8 * parts;
    }
    if (checkpoint.u32(entry + 12) > 0) addBlocks(into, roaringRuns(checkpoint, bitmap), first);
    const modified = bitmap + Math.ceil(checkpoint.u32(entry + 12) / 8) * 8;
    if (checkpoint.u32(entry + 16) > 0)
      addBlocks({ ...into, ranges: into.changes }, roaringRuns(checkpoint, modified), first);
  }
  const epoch = checkpoint.u64(32);
  if (checkpoint.u32(52) === 0) {
    const claims: Claim[] = [];
    const next = files.get(logNameOf(epoch + 1));
    const continues = addLog(into, files.get(logNameOf(epoch))!, claims);
    if (continues && isOfFormat2(next) && next.u64(32) === epoch + 1) addLog(into, next, claims);
    addProved(into, claims, target);
  }
  return meaning(into);
}

function bytesOf(images: Images, target: string): Map<string, Bytes> {
  const files = new Map<string, Bytes>();
  for (const suffix of ['bak', 'bak.1', 'wil', 'wil.1']) {
    const image = images.get(`${target}.${suffix}`);
    if (image === undefined) continue;
    // Logs are zeros after the bytes that the images keep.
    const bytes = new Uint8Array(Math.min(image.size, Math.ceil(image.bytes.length / 512 + 1) * 512));
    bytes.set(image.bytes.subarray(0, bytes.length));
    files.set(suffix, new Bytes(bytes));
  }
  return files;
}

/** Returns the last frame that counts in the log of the newest checkpoint, if that has frames. */
export function lastFrame(images: Images, target: string): (Frame & { name: string }) | undefined {
  const files = bytesOf(images, target);
  const epoch = newestCheckpoint(files)?.u64(32);
  if (epoch === undefined) return undefined;
  const suffix = logNameOf(epoch);
  const log = files.get(suffix);
  const frame = log && framesOf(log).counted.at(-1);
  return frame && { ...frame, name: `${target}.${suffix}` };
}

/**
 * Returns which bytes the target holds, from metadata that recovery has accepted.
 * @param from.target what the target reads as; zeros follow
 * @param from.size the size of the device, if format 1 does not contain it
 */
export function meaningOf(images: Images, name: string, from: { target: Uint8Array; size: number }): Meaning {
  const files = bytesOf(images, name);
  const isNew = [...files.values()].some(isOfFormat2);
  return isNew ? readFormat2(files, from.target) : readFormat1(files, from.size);
}
