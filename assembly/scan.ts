/**
 * Reads a log of format 2 (docs/FORMAT.md, 'Reading a log'): checks every frame and applies nothing.
 *
 * Frames count up to the first place without the expected frame. What follows may be any bytes: a lost or stale page,
 * a cut write. Frames found there prove nothing but what was durable: `firmBehind` is the highest sequence below which
 * frames must have been there.
 */
import { AFTER_CONTINUED, BARRIER_AHEAD, RECORD_WORDS, UNKNOWN_TYPE, WRITTEN_OUTSIDE } from '../src/wasm/problems';
import { crc32c } from './crc32c';
import {
  BARRIER,
  BASED,
  CELL_BYTES,
  CONTINUED,
  FILLED,
  FRAME_BYTES,
  FRAME_END,
  FRAME_HEADER_BYTES,
  FRAME_TRAILER_BYTES,
  MODIFIED,
  NUMBER_MASK,
  RECORD_BYTES,
  SECTOR_BYTES,
  SHORTEST_FRAME,
  TYPE_SHIFT,
  WRITTEN,
  WRITTEN_PAIR,
} from './layout';
import { free, zeroed } from './memory';
import { lookAt } from './problem';

/** interface.ts lists the fields that src/ reads. */
@unmanaged
export class Scan {
  endOffset: u64;
  barrierThrough: u64;
  frames: u32;
  records: u32;
  torn: u32;
  firmBehind: u32;
  barriers: u32;
  continued: u32;
  basedAnywhere: u32;
  size: u64;
  /** The offset in the file of the next sector. */
  position: u64;
  epoch: u32;
  /** Whether the place without the expected frame was passed, and whether it is in the present sector. */
  ended: bool;
  endedHere: bool;
}

export function openScan(size: u64, epoch: u32): Scan {
  const scan = changetype<Scan>(zeroed(offsetof<Scan>()));
  scan.size = size;
  scan.epoch = epoch;
  scan.position = scan.endOffset = SECTOR_BYTES;
  return scan;
}

export function closeScan(scan: Scan): void {
  free(changetype<usize>(scan), offsetof<Scan>());
}

/** Reads the next sectors. Returns 0 or the problem. */
export function feedScan(scan: Scan, ptr: usize, len: u32): i32 {
  for (const end = ptr + len; ptr < end; ptr += SECTOR_BYTES, scan.position += SECTOR_BYTES) {
    const kind = readSector(scan, ptr);
    if (kind) return kind;
  }
  return 0;
}

function readSector(scan: Scan, sector: usize): i32 {
  const end = sector + SECTOR_BYTES;
  scan.endedHere = false;
  for (let at = sector; at + SHORTEST_FRAME <= end; ) {
    const length: u32 = load<u16>(at);
    const behind = at + length;
    const isWhole =
      (length ^ load<u16>(at, 2)) == 0xffff &&
      length >= SHORTEST_FRAME &&
      behind <= end &&
      (length & (RECORD_BYTES - 1)) == (FRAME_BYTES & (RECORD_BYTES - 1)) &&
      load<u32>(behind - 4) == FRAME_END;
    const isOwn = load<u32>(at, 4) == scan.epoch;
    if (isWhole && isOwn && load<u32>(behind - 8) == crc32c(at, length - FRAME_TRAILER_BYTES, 0)) {
      const kind = readFrame(scan, at, length, scan.position + (at - sector));
      if (kind) return kind;
    } else if (!scan.ended) {
      scan.ended = scan.endedHere = true;
      // A frame that an earlier log left is no torn tail.
      const start = isWhole && !isOwn ? end : at;
      // A sum over the sector would be cheaper, but this happens once.
      for (let last = end; last > start && !scan.torn; last--) if (load<u8>(last - 1)) scan.torn = <u32>(last - at);
    }
    at = isWhole ? behind : at + 8;
  }
  return 0;
}

function readFrame(scan: Scan, frame: usize, length: u32, offset: u64): i32 {
  const sequence = load<u32>(frame, 8);
  if (scan.ended || sequence != scan.frames) {
    scan.ended = true;
    // A sector is written as a whole: a frame proves those before it in its sector.
    const proved = scan.endedHere ? sequence : load<u32>(frame, 12);
    if (sequence >= scan.frames) scan.firmBehind = max(scan.firmBehind, proved);
  } else {
    scan.endOffset = offset + length;
    scan.frames++;
  }
  for (let at = FRAME_HEADER_BYTES; at < length - FRAME_TRAILER_BYTES; at += RECORD_BYTES) {
    const kind = readRecord(scan, frame + at, sequence);
    if (kind) return kind;
  }
  return 0;
}

function readRecord(scan: Scan, record: usize, sequence: u32): i32 {
  lookAt(record);
  const word = load<u64>(record);
  const type = <u32>(word >> TYPE_SHIFT);
  const first = word & NUMBER_MASK;
  const second = load<u64>(record, 8);
  const counts = !scan.ended;
  if (counts && scan.continued) return AFTER_CONTINUED;
  // 0 wraps to the highest number.
  if (type - WRITTEN > MODIFIED - WRITTEN) return UNKNOWN_TYPE;
  if (type == WRITTEN || type > BASED) {
    const bytes = bytesOf(type, second);
    const within = first & (CELL_BYTES - 1);
    const fits = type >= FILLED || (type == WRITTEN ? within + bytes <= CELL_BYTES : !within);
    if (!fits || !bytes || first > scan.size || bytes > scan.size - first) return WRITTEN_OUTSIDE;
    if (counts) scan.records++;
    return 0;
  }
  if (first || (type != BARRIER && second)) return RECORD_WORDS;
  if (type == BARRIER) {
    if (second > sequence) return BARRIER_AHEAD;
    // True also of a barrier behind missing frames, if those below it are there.
    if (counts) scan.barriers++;
    if (second <= scan.frames) scan.barrierThrough = max(scan.barrierThrough, second);
  } else if (type == CONTINUED) {
    if (counts) scan.continued = 1;
  } else {
    scan.basedAnywhere = 1;
  }
  return 0;
}

/** The bytes of the target that a record of data is about. */
export function bytesOf(type: u32, second: u64): u64 {
  if (type >= FILLED) return second;
  if (type == WRITTEN) return <u32>second;
  return type == WRITTEN_PAIR ? 2 * CELL_BYTES : 1;
}
