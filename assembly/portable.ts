/**
 * One shard of a set in the portable Roaring format, byte for byte what CRoaring makes of it after `runOptimize`: a container
 * is runs iff those take no more bytes than the other form, else an array up to 4096 values, else a bitset.
 *
 * The bodies are written first, behind room for the longest header; the header is then put directly before them.
 */
import { BITS, BITS_BYTES, BlockSet, Container, EMPTY, FULL, RUNS, bitsToRuns, containerAt, draw, sortList } from './containers';
import { outputFrom, reserve } from './output';

const COOKIE: u32 = 12347;
const COOKIE_WITHOUT_RUNS: u32 = 12346;
const ARRAY_LIMIT: u32 = 4096;

/** CRoaring counts two bytes for the length of an array, so that runs win where both forms take as many. */
function runsAreShorter(runs: u32, values: u32): bool {
  const others = values <= ARRAY_LIMIT ? (values << 1) + 2 : BITS_BYTES;
  return (runs << 2) + 2 < others;
}

/** Writes the shard's bytes to the output and returns their number, 0 if it is empty. */
export function writeShard(set: BlockSet, shard: u32): u32 {
  const first = shard << 16;
  const end = min(first + 0x10000, set.containerCount);
  let count: u32 = 0;
  let bytes: u32 = 0;
  for (let i = first; i < end; i++) {
    const container = containerAt(set, i);
    if (container.kind == EMPTY) continue;
    sortList(container);
    count++;
    bytes += container.kind == BITS ? BITS_BYTES : min(2 + (container.count << 2), BITS_BYTES) + 4;
  }
  if (!count) return 0;
  const flags = (count + 7) >> 3;
  const longest = 8 + flags + (count << 3);
  const bodies = reserve(longest + bytes + (count << 3) + flags) + longest;
  // Behind the bodies, until the header is written: key and cardinality - 1 of each container, its offset, and the flags of runs.
  const index = bodies + bytes;
  const flagsAt = index + (count << 3);
  memory.fill(flagsAt, 0, flags);
  let place = bodies;
  let anyRuns = false;
  for (let i = first, slot: u32 = 0; i < end; i++) {
    const container = containerAt(set, i);
    if (container.kind == EMPTY) continue;
    const body = place;
    const values = countValues(container);
    const asRuns = runsAreShorter(runs, values);
    if (container.kind == BITS && (asRuns || values <= ARRAY_LIMIT)) bitsToRuns(container);
    if (container.kind == FULL) {
      store<u16>(place, 1);
      store<u32>(place, 0xffff0000, 2);
      place += 6;
    } else if (container.kind == RUNS) {
      place = writeRuns(container, place, asRuns, values);
    } else {
      memory.copy(place, container.data, BITS_BYTES);
      place += BITS_BYTES;
    }
    store<u32>(index + (slot << 2), (i & 0xffff) | ((values - 1) << 16));
    store<u32>(index + ((count + slot) << 2), <u32>(body - bodies));
    const flag = flagsAt + (slot >> 3);
    store<u8>(flag, load<u8>(flag) | (<u32>asRuns << (slot & 7)));
    anyRuns = anyRuns || asRuns;
    slot++;
  }
  const offsets = !anyRuns || count >= 4 ? count << 2 : 0;
  const lead = anyRuns ? 4 + flags : 8;
  const header = lead + (count << 2) + offsets;
  const start = bodies - header;
  if (anyRuns) {
    store<u32>(start, COOKIE | ((count - 1) << 16));
    memory.copy(start + 4, flagsAt, flags);
  } else {
    store<u32>(start, COOKIE_WITHOUT_RUNS);
    store<u32>(start, count, 4);
  }
  memory.copy(start + lead, index, count << 2);
  for (let at: u32 = 0; at < offsets; at += 4) {
    store<u32>(start + lead + (count << 2) + at, load<u32>(index + (count << 2) + at) + header);
  }
  outputFrom(start);
  return <u32>(place - start);
}

/** How many runs the container has that {@link countValues} was asked about last. */
let runs: u32 = 0;

/** How many values a container has that is not a LIST. */
function countValues(container: Container): u32 {
  const data = container.data;
  let values: u32 = 0;
  runs = container.count;
  if (container.kind == FULL) {
    runs = 1;
    return 0x10000;
  }
  if (container.kind == RUNS) {
    values = runs;
    for (let at = data; at < data + (runs << 2); at += 4) values += load<u16>(at);
    return values;
  }
  let before: u64 = 0;
  for (let at = data; at < data + BITS_BYTES; at += 8) {
    const bits = load<u64>(at);
    values += <u32>popcnt(bits);
    runs += <u32>popcnt(bits & ~((bits << 1) | before));
    before = bits >> 63;
  }
  return values;
}

function writeRuns(container: Container, place: usize, asRuns: bool, values: u32): usize {
  const count = container.count;
  const end = container.data + (count << 2);
  if (asRuns) {
    store<u16>(place, count);
    place += 2;
    for (let at = container.data; at < end; at += 4, place += 4) store<u32>(place, rotl(load<u32>(at), 16));
  } else if (values <= ARRAY_LIMIT) {
    for (let at = container.data; at < end; at += 4) {
      const run = load<u32>(at);
      let value = run >> 16;
      store<u16>(place, value);
      place += 2;
      for (const last = value + (run & 0xffff); value < last; place += 2) store<u16>(place, ++value);
    }
  } else {
    draw(container, place);
    place += BITS_BYTES;
  }
  return place;
}
