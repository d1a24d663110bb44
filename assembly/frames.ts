/**
 * Encoding of frames: a bounded batch of records, then all of them at once into the frames that they need from a given
 * offset on. Each frame takes as many as the rest of its sector holds, so the number of frames follows from the offset.
 */
import { alloc, free, zeroed } from './memory';
import { crc32c } from './crc32c';
import { reserve } from './output';

export const BATCH: u32 = 16384;
/** Room for the marks that may stand in a batch beside its writes. */
const MARKS: u32 = 16;
const SECTOR: u32 = 512;
const END: u32 = 0x21646e65; // end!

/** The first field is read from outside: the frames of the last seal. */
@unmanaged
export class Encoder {
  frames: u32;
  records: usize;
  epoch: u32;
  count: u32;
}

const RECORDS_BYTES: u32 = (BATCH + MARKS) << 4;
/** Thirty records a sector, and one sector more at each end. */
const OUTPUT_BYTES: u32 = ((BATCH + MARKS) / 30 + 3) * SECTOR;

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

/** Adds a record, or lengthens the last one if both are writes and this one goes on where it ends. Returns the count, or -1 if full. */
export function addRecord(encoder: Encoder, type: u32, first: u64, second: u64): i32 {
  const count = encoder.count;
  const place = encoder.records + (count << 4);
  const word = (<u64>type << 56) | first;
  if (type == 1) {
    if (count && load<u64>(place - 16) + load<u64>(place - 8) == word && load<u64>(place - 16) >> 56 == 1) {
      store<u64>(place - 8, load<u64>(place - 8) + second);
      return count;
    }
    if (count >= BATCH) return -1;
  }
  if (count >= BATCH + MARKS) return -1;
  store<u64>(place, word);
  store<u64>(place, second, 8);
  encoder.count = count + 1;
  return count + 1;
}

/** Encodes the batch for the offset `position` of the file, and empties it. Returns the bytes, padding between frames included. */
export function sealFrames(encoder: Encoder, position: u64, sequence: u32, firm: u32): u32 {
  const from = reserve(OUTPUT_BYTES);
  let place = from;
  let record = encoder.records;
  let left = encoder.count;
  let within = <u32>position & (SECTOR - 1);
  encoder.frames = 0;
  while (left) {
    let room = SECTOR - within;
    if (room < 40) {
      memory.fill(place, 0, room);
      place += room;
      within = 0;
      room = SECTOR;
    }
    const count = min(left, (room - 24) >> 4);
    const length = 24 + (count << 4);
    store<u32>(place, length | (~length << 16));
    store<u32>(place, encoder.epoch, 4);
    store<u32>(place, sequence++, 8);
    store<u32>(place, firm, 12);
    memory.copy(place + 16, record, count << 4);
    place += length;
    store<u32>(place - 8, crc32c(place - length, length - 8, 0));
    store<u32>(place - 4, END);
    record += count << 4;
    left -= count;
    within = (within + length) & (SECTOR - 1);
    encoder.frames++;
  }
  encoder.count = 0;
  return <u32>(place - from);
}
