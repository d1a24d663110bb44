/**
 * Writes one slice of a set in the portable Roaring format: the same bytes as CRoaring after `runOptimize`.
 * A container is runs iff runs take no more bytes than the other form; else an array up to 4096 values, else a bitset.
 *
 * The bodies are written first, behind room for the longest header. The header is then written directly before them.
 */
import {
  BITS,
  BlockSet,
  CHUNK_BYTES,
  FULL,
  LIST,
  RUNS,
  containerAt,
  kindOf,
  measure,
  runCount,
  runs,
  runsOfBits,
  valueCount,
} from './containers';
import {
  ROARING_ARRAY_LIMIT,
  ROARING_BITSET_BYTES,
  ROARING_COOKIE,
  ROARING_COOKIE_WITHOUT_RUNS,
  ROARING_OFFSETS_FROM,
  SLICE_CONTAINERS,
} from './layout';
import { outputFrom, reserve } from './output';

/** Writes the bytes of the slice to the output. Returns their number, 0 if the slice is empty. */
export function writeSlice(set: BlockSet, slice: u32): u32 {
  const first = containerAt(set, slice * SLICE_CONTAINERS);
  const end = containerAt(set, min((slice + 1) * SLICE_CONTAINERS, set.containerCount));
  let count: u32 = 0;
  let bytes: u32 = 0;
  for (let container = first; container < end; container += 4) {
    const word = load<u32>(container);
    if (!word) continue;
    count++;
    bytes += mostBytes(word);
  }
  if (!count) return 0;
  const flags = (count + 7) >> 3;
  const longest = 8 + flags + (count << 3);
  const bodies = reserve(longest + bytes + (count << 3) + flags) + longest;
  // Behind the bodies until the header is written: key, cardinality - 1 and offset of each container, and run flags.
  const index = bodies + bytes;
  const flagsAt = index + (count << 3);
  memory.fill(flagsAt, 0, flags);
  let place = bodies;
  let anyRuns = false;
  for (let container = first, slot: u32 = 0; container < end; container += 4) {
    const word = load<u32>(container);
    if (!word) continue;
    store<u32>(index + ((count + slot) << 2), <u32>(place - bodies));
    measure(word);
    const runBytes: u32 = 2 + (runCount << 2);
    // CRoaring counts two bytes for the length of an array, so runs win a tie.
    const asRuns = runBytes < (valueCount <= ROARING_ARRAY_LIMIT ? (valueCount << 1) + 2 : ROARING_BITSET_BYTES);
    if (!asRuns && valueCount > ROARING_ARRAY_LIMIT) {
      memory.copy(place, word - BITS, ROARING_BITSET_BYTES);
      place += ROARING_BITSET_BYTES;
    } else {
      if (kindOf(word) == BITS) runsOfBits(word - BITS);
      place = asRuns ? writeRuns(place) : writeValues(place);
    }
    store<u32>(index + (slot << 2), (<u32>(container - first) >> 2) | ((valueCount - 1) << 16));
    const flag = flagsAt + (slot >> 3);
    store<u8>(flag, load<u8>(flag) | (<u32>asRuns << (slot & 7)));
    anyRuns = anyRuns || asRuns;
    slot++;
  }
  const offsets = !anyRuns || count >= ROARING_OFFSETS_FROM ? count << 2 : 0;
  const lead = anyRuns ? 4 + flags : 8;
  const header = lead + (count << 2) + offsets;
  const start = bodies - header;
  if (anyRuns) {
    store<u32>(start, ROARING_COOKIE | ((count - 1) << 16));
    memory.copy(start + 4, flagsAt, flags);
  } else {
    store<u32>(start, ROARING_COOKIE_WITHOUT_RUNS);
    store<u32>(start, count, 4);
  }
  memory.copy(start + lead, index, count << 2);
  for (let at: u32 = 0; at < offsets; at += 4) {
    store<u32>(start + lead + (count << 2) + at, load<u32>(index + (count << 2) + at) + header);
  }
  outputFrom(start);
  return <u32>(place - start);
}

function writeRuns(place: usize): usize {
  store<u16>(place, runCount);
  place += 2;
  for (let at = runs, end = runs + (runCount << 2); at < end; at += 4, place += 4) {
    store<u32>(place, rotl(load<u32>(at), 16));
  }
  return place;
}

function writeValues(place: usize): usize {
  for (let at = runs, end = runs + (runCount << 2); at < end; at += 4) {
    const run = load<u32>(at);
    const first = run >> 16;
    const last = first + (run & 0xffff);
    for (let value = first; value <= last; value++, place += 2) store<u16>(place, value);
  }
  return place;
}

/** An upper bound of the bytes of a container in the form that will be chosen for it. */
function mostBytes(word: u32): u32 {
  const kind = kindOf(word);
  if (kind == FULL) return 6;
  let bytes: u32 = ROARING_BITSET_BYTES;
  // The chunks of a list take more bytes than its runs.
  if (kind == LIST) bytes = load<u32>((word - 1) & ~(CHUNK_BYTES - 1), 4) * CHUNK_BYTES;
  if (kind == RUNS) bytes = (load<u32>(word - RUNS) << 2) + 2;
  return min(bytes, ROARING_BITSET_BYTES);
}
