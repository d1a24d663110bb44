/**
 * Reads a log of format 2 (docs/FORMAT.md, 'Reading a log'): checks every frame and applies nothing.
 *
 * | state | the next frame |
 * | --- | --- |
 * | READING | is expected directly behind the last frame |
 * | PADDED | is expected at the start of the next sector: nothing was found behind the last frame |
 * | BEHIND | is not expected: nothing was found at either place. A frame found now proves that frames are missing |
 *
 * Only frames that are read before the first BEHIND count.
 */
import {
  AFTER_CONTINUED,
  BARRIER_AHEAD,
  FRAME_CHECKSUM,
  FRAME_EPOCH,
  FRAME_FIRM,
  FRAME_LENGTH,
  FRAME_SEQUENCE,
  NOT_A_FRAME,
  RECORD_WORDS,
  UNKNOWN_TYPE,
  WRITTEN_OUTSIDE,
} from '../src/wasm/problems';
import { crc32c } from './crc32c';
import {
  BARRIER,
  BASED,
  CONTINUED,
  FRAME_BYTES,
  FRAME_END,
  FRAME_HEADER_BYTES,
  FRAME_TRAILER_BYTES,
  LONGEST_FRAME,
  NUMBER_MASK,
  RECORD_BYTES,
  SECTOR_BYTES,
  SHORTEST_FRAME,
  TYPE_SHIFT,
  WRITTEN,
} from './layout';
import { alloc, free, zeroed } from './memory';
import { lookAt } from './problem';

const READING: u32 = 0;
const PADDED: u32 = 1;
const BEHIND: u32 = 2;

/** interface.ts lists the fields that src/ reads. */
@unmanaged
export class Scan {
  endOffset: u64;
  barrierThrough: u64;
  frames: u32;
  records: u32;
  torn: u32;
  missing: u32;
  firmBehind: u32;
  continued: u32;
  based: u32;
  basedAnywhere: u32;
  /** The end of each frame that counts, in units of 8 bytes. */
  ends: usize;
  room: u32;
  size: u64;
  /** The offset in the file of the next sector. */
  position: u64;
  epoch: u32;
  state: u32;
  lastBehind: u32;
  continuedAnywhere: u32;
}

export function openScan(size: u64, epoch: u32): Scan {
  const scan = changetype<Scan>(zeroed(offsetof<Scan>()));
  scan.size = size;
  scan.epoch = epoch;
  scan.position = scan.endOffset = SECTOR_BYTES;
  scan.room = 1024;
  scan.ends = alloc(scan.room << 2);
  return scan;
}

export function closeScan(scan: Scan): void {
  free(scan.ends, scan.room << 2);
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
  let at = sector;
  while (at < end) {
    const offset = scan.position + (at - sector);
    const left = <u32>(end - at);
    const expected = scan.state == READING || (scan.state == PADDED && at == sector);
    // Where a frame is expected, 16 zero bytes mean that there is none. Elsewhere the search advances by 8 bytes.
    if (load<u64>(at) == 0 && (!expected || left == 8 || load<u64>(at, 8) == 0)) {
      if (expected) scan.state = at == sector ? BEHIND : PADDED;
      at += 8;
      continue;
    }
    lookAt(at);
    const length: u32 = load<u16>(at);
    if ((length ^ load<u16>(at, 2)) != 0xffff) {
      if (!isZero(at + 4, end)) return NOT_A_FRAME;
      tear(scan, at, end);
      return 0;
    }
    const uneven = (length - FRAME_BYTES) & (RECORD_BYTES - 1);
    if (length < SHORTEST_FRAME || length > LONGEST_FRAME || uneven || length > left) return FRAME_LENGTH;
    const behind = at + length;
    if (load<u8>(behind - 1) == 0) {
      tear(scan, at, behind);
      at = behind;
      continue;
    }
    const checksum = crc32c(at, length - FRAME_TRAILER_BYTES, 0);
    if (load<u32>(behind - 4) != FRAME_END || load<u32>(behind - 8) != checksum) return FRAME_CHECKSUM;
    const kind = readFrame(scan, at, length, offset, expected);
    if (kind) return kind;
    at = behind;
  }
  return 0;
}

function readFrame(scan: Scan, frame: usize, length: u32, offset: u64, expected: bool): i32 {
  const epoch = load<u32>(frame, 4);
  const sequence = load<u32>(frame, 8);
  const firm = load<u32>(frame, 12);
  if (epoch != scan.epoch) return FRAME_EPOCH;
  if (firm > sequence) return FRAME_FIRM;
  const counts = expected && sequence == scan.frames;
  if (!counts) {
    // Only a later frame can be here, and the frames before it are missing.
    if (scan.state == READING || sequence <= scan.frames || (scan.missing && sequence <= scan.lastBehind)) {
      return FRAME_SEQUENCE;
    }
    scan.state = BEHIND;
    scan.missing = 1;
    scan.lastBehind = sequence;
    scan.firmBehind = max(scan.firmBehind, firm);
  } else {
    scan.state = READING;
  }
  for (let at = FRAME_HEADER_BYTES; at < length - FRAME_TRAILER_BYTES; at += RECORD_BYTES) {
    const kind = readRecord(scan, frame + at, sequence, counts);
    if (kind) return kind;
  }
  if (!counts) return 0;
  scan.endOffset = offset + length;
  if (scan.frames == scan.room) {
    const ends = alloc(scan.room << 3);
    memory.copy(ends, scan.ends, scan.room << 2);
    free(scan.ends, scan.room << 2);
    scan.ends = ends;
    scan.room <<= 1;
  }
  store<u32>(scan.ends + (scan.frames << 2), <u32>(scan.endOffset >> 3));
  scan.frames++;
  return 0;
}

function readRecord(scan: Scan, record: usize, sequence: u32, counts: bool): i32 {
  lookAt(record);
  const word = load<u64>(record);
  const type = <u32>(word >> TYPE_SHIFT);
  const first = word & NUMBER_MASK;
  const second = load<u64>(record, 8);
  if (scan.continuedAnywhere) return AFTER_CONTINUED;
  if (type == WRITTEN) {
    if (!second || first > scan.size || second > scan.size - first) return WRITTEN_OUTSIDE;
    if (counts) scan.records++;
    return 0;
  }
  if (type < WRITTEN || type > BASED) return UNKNOWN_TYPE;
  if (first || (type != BARRIER && second)) return RECORD_WORDS;
  if (type == BARRIER) {
    if (second > sequence) return BARRIER_AHEAD;
    if (counts) scan.barrierThrough = max(scan.barrierThrough, second);
  } else if (type == CONTINUED) {
    scan.continuedAnywhere = 1;
    if (counts) scan.continued = 1;
  } else {
    scan.basedAnywhere = 1;
    if (counts) scan.based = 1;
  }
  return 0;
}

/** Handles a torn frame: it counts as nothing, and its bytes up to the last byte that is not zero are the torn tail. */
function tear(scan: Scan, from: usize, end: usize): void {
  if (scan.state != BEHIND && !scan.torn) {
    while (load<u8>(end - 1) == 0) end--;
    scan.torn = <u32>(end - from);
  }
  scan.state = BEHIND;
}

function isZero(from: usize, end: usize): bool {
  for (; from < end && from & 7; from++) if (load<u8>(from)) return false;
  for (; from < end; from += 8) if (load<u64>(from)) return false;
  return true;
}
