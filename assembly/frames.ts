/**
 * Encoding of frames: collects a bounded batch of records, then encodes all of them into frames from a given offset on.
 * Each frame takes as many records as the rest of its sector holds, so the offset determines the number of frames.
 */
import { alloc, free, zeroed } from './memory';
import { crc32c } from './crc32c';
import {
  BARRIER,
  BASED,
  BATCH_RECORDS,
  FILLED,
  FRAME_BYTES,
  FRAME_END,
  FRAME_HEADER_BYTES,
  FRAME_TRAILER_BYTES,
  RECORD_BYTES,
  SECTOR_BYTES,
  SECTOR_RECORDS,
  SHORTEST_FRAME,
  TYPE_SHIFT,
} from './layout';
import { reserve } from './output';

/** The most marks (BARRIER, CONTINUED, BASED) of a batch, beside its other records. */
const MARKS: u32 = 16;

/** `frames` are those of the last seal. interface.ts lists the fields that src/ reads. */
@unmanaged
export class Encoder {
  frames: u32;
  records: usize;
  epoch: u32;
  count: u32;
}

const RECORDS_BYTES: u32 = (BATCH_RECORDS + MARKS) * RECORD_BYTES;
/** Bytes of the sectors that a full batch fills, and of one partly filled sector at each end. */
const OUTPUT_BYTES: u32 = ((BATCH_RECORDS + MARKS) / SECTOR_RECORDS + 3) * SECTOR_BYTES;

export function openEncoder(epoch: u32): Encoder {
  const encoder = changetype<Encoder>(zeroed(offsetof<Encoder>()));
  encoder.records = alloc(RECORDS_BYTES);
  encoder.epoch = epoch;
  return encoder;
}

export function closeEncoder(encoder: Encoder): void {
  free(encoder.records, RECORDS_BYTES);
  free(changetype<usize>(encoder), offsetof<Encoder>());
}

/**
 * Adds a record. A fill that starts where the last fill ends lengthens the last record instead.
 * Returns the number of records, or -1 if the batch is full.
 */
export function addRecord(encoder: Encoder, type: u32, first: u64, second: u64): i32 {
  const count = encoder.count;
  const place = encoder.records + count * RECORD_BYTES;
  const word = (<u64>type << TYPE_SHIFT) | first;
  const last = place - RECORD_BYTES;
  const isFillBehind = type == FILLED && count && load<u64>(last) >> TYPE_SHIFT == FILLED;
  if (isFillBehind && load<u64>(last) + load<u64>(last, 8) == word) {
    store<u64>(last, load<u64>(last, 8) + second, 8);
    return count;
  }
  const isMark = type >= BARRIER && type <= BASED;
  if (count >= (isMark ? BATCH_RECORDS + MARKS : BATCH_RECORDS)) return -1;
  store<u64>(place, word);
  store<u64>(place, second, 8);
  encoder.count = count + 1;
  return count + 1;
}

/** Encodes the batch for the offset `position` of the file, and empties it. Returns the length, padding included. */
export function sealFrames(encoder: Encoder, position: u64, sequence: u32, firm: u32): u32 {
  const from = reserve(OUTPUT_BYTES);
  let place = from;
  let record = encoder.records;
  let left = encoder.count;
  let within = <u32>position & (SECTOR_BYTES - 1);
  encoder.frames = 0;
  while (left) {
    let room = SECTOR_BYTES - within;
    if (room < SHORTEST_FRAME) {
      memory.fill(place, 0, room);
      place += room;
      within = 0;
      room = SECTOR_BYTES;
    }
    const count = min(left, (room - FRAME_BYTES) / RECORD_BYTES);
    const length = FRAME_BYTES + count * RECORD_BYTES;
    store<u32>(place, length | (~length << 16));
    store<u32>(place, encoder.epoch, 4);
    store<u32>(place, sequence++, 8);
    store<u32>(place, firm, 12);
    memory.copy(place + FRAME_HEADER_BYTES, record, count * RECORD_BYTES);
    place += length;
    store<u32>(place - 8, crc32c(place - length, length - FRAME_TRAILER_BYTES, 0));
    store<u32>(place - 4, FRAME_END);
    record += count * RECORD_BYTES;
    left -= count;
    within = (within + length) & (SECTOR_BYTES - 1);
    encoder.frames++;
  }
  encoder.count = 0;
  return <u32>(place - from);
}
