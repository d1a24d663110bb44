/**
 * A growing set of blocks: one directory of containers of 2^16 blocks. It is filled fast and read once.
 *
 * The directory has one u32 for each container, with its kind in the two low bits. A run is a u32:
 * first value << 16 | length - 1.
 *
 * - LIST: runs in any order; they may overlap. 0 is an empty LIST.
 * - RUNS: sorted runs that do not touch. The number of runs stands before them.
 * - BITS: a bitset of 8 KiB.
 * - FULL: all values.
 *
 * Invariants:
 * - The word of a LIST is the address of its next run. The runs are in a chain of chunks. A chunk begins with two
 *   u32: the end of the runs in the chunk before it, and the number of chunks so far.
 * - A LIST word that is a multiple of CHUNK_BYTES means that the last chunk has no room.
 * - Chunks are cut from slabs in order, so that chunks in use at the same time are close together. They are freed with
 *   their slab.
 * - The number in a FULL word is the number of containers, itself included, that are known to be FULL from there on.
 *   So filling a filled range again takes constant time.
 */
import { ROARING_BITSET_BYTES } from './layout';
import { alloc, free, zeroed } from './memory';

export const LIST: u32 = 0;
export const RUNS: u32 = 1;
export const BITS: u32 = 2;
export const FULL: u32 = 3;
export const CHUNK_BYTES: u32 = 256;

const CHUNK_HEADER: u32 = 8;
/** A list of this many chunks takes as much memory as a bitset, and becomes a bitset. */
const LIST_LIMIT: u32 = ROARING_BITSET_BYTES / CHUNK_BYTES;
const SLAB_BYTES: u32 = 1 << 16;
const ONE_FULL: u32 = (1 << 2) | FULL;

@unmanaged
export class BlockSet {
  directory: usize;
  containerCount: u32;
  /** The slab in use, whose first word is the slab before it; the unused rest of it; and the list of freed chunks. */
  slab: usize;
  slabAt: usize;
  slabEnd: usize;
  spare: usize;
}

/** The runs of the container that was measured last, at most 4096. */
export const runs = memory.data(16384, 16);
/** A container as a bitset, and one bit for each u64 of it that may not be zero. Both are all zeros between uses. */
const drawing = memory.data(8192, 16);
const marks = memory.data(128, 16);

/** The numbers of runs and values of that container. */
export let runCount: u32 = 0;
export let valueCount: u32 = 0;

export function openSet(set: BlockSet, blockCount: u64): void {
  set.containerCount = <u32>((blockCount + 0xffff) >> 16);
  set.directory = zeroed(set.containerCount << 2);
}

/** Empties the set, and keeps its directory. */
export function clearSet(set: BlockSet): void {
  for (let i: u32 = 0; i < set.containerCount; i++) {
    const container = containerAt(set, i);
    if (kindOf(load<u32>(container)) != LIST) become(set, container, LIST);
    store<u32>(container, LIST);
  }
  for (let slab = set.slab; slab; ) {
    const before = load<usize>(slab);
    free(slab, SLAB_BYTES);
    slab = before;
  }
  set.slab = set.slabAt = set.slabEnd = set.spare = 0;
}

export function closeSet(set: BlockSet): void {
  clearSet(set);
  free(set.directory, set.containerCount << 2);
}

/** The address of the word of a container. */
// @ts-ignore: decorator
@inline
export function containerAt(set: BlockSet, index: u32): usize {
  return set.directory + (index << 2);
}

// @ts-ignore: decorator
@inline
export function kindOf(word: u32): u32 {
  return word & 3;
}

/** Adds the blocks [start, end). The caller has checked that they exist. */
export function addBlocks(set: BlockSet, start: u64, end: u64): void {
  // The fast path for nearly all records of random logs. The number of its instructions decides their time (measured).
  const low = <u32>start & 0xffff;
  const more = end - start - 1;
  if (<u64>low + more < 0xffff) {
    const container = containerAt(set, <u32>(start >> 16));
    const word = load<u32>(container);
    if (kindOf(word) == LIST) {
      if (word & (CHUNK_BYTES - 1)) {
        store<u32>(word, (low << 16) | <u32>more);
        store<u32>(container, word + 4);
        return;
      }
    } else if (kindOf(word) == BITS && !more) {
      const byte = word - BITS + (low >> 3);
      store<u8>(byte, load<u8>(byte) | (<u32>1 << (low & 7)));
      return;
    }
  }
  addRange(set, start, end);
}

function addRange(set: BlockSet, start: u64, end: u64): void {
  let low = <u32>start & 0xffff;
  const first = <u32>((start + 0xffff) >> 16);
  const behind = <u32>(end >> 16);
  const last = <u32>((end - 1) >> 16);
  for (let i = <u32>(start >> 16); i <= last; low = 0) {
    const container = containerAt(set, i);
    const word = load<u32>(container);
    if (kindOf(word) == FULL) {
      i += word >> 2;
    } else {
      addRun(set, container, low, i == last ? <u32>(end - 1) & 0xffff : 0xffff);
      i++;
    }
  }
  if (first < behind) {
    const container = containerAt(set, first);
    store<u32>(container, max(load<u32>(container), ((behind - first) << 2) | FULL));
  }
}

/** Adds the values [low, high], both included, to a container that is not FULL. */
function addRun(set: BlockSet, container: usize, low: u32, high: u32): void {
  const run = (low << 16) | (high - low);
  if (run == 0xffff) {
    become(set, container, ONE_FULL);
    return;
  }
  const word = load<u32>(container);
  if (kindOf(word) == LIST) {
    if (word & (CHUNK_BYTES - 1)) {
      store<u32>(word, run);
      store<u32>(container, word + 4);
      return;
    }
    const chunks = word ? load<u32>(chunkBefore(word), 4) : 0;
    if (chunks < LIST_LIMIT) {
      const next = newChunk(set);
      store<u32>(next, word);
      store<u32>(next, chunks + 1, 4);
      store<u32>(next, run, CHUNK_HEADER);
      store<u32>(container, <u32>next + CHUNK_HEADER + 4);
      return;
    }
  }
  if (kindOf(word) != BITS) {
    const bits = zeroed(ROARING_BITSET_BYTES);
    measure(word);
    for (let at = runs, end = runs + (runCount << 2); at < end; at += 4) {
      const old = load<u32>(at);
      setBits(bits, old >> 16, (old >> 16) + (old & 0xffff));
    }
    become(set, container, <u32>bits | BITS);
  }
  setBits(load<u32>(container) - BITS, low, high);
}

function newChunk(set: BlockSet): usize {
  const spare = set.spare;
  if (spare) {
    set.spare = load<u32>(spare);
    return spare;
  }
  if (set.slabAt == set.slabEnd) {
    const slab = alloc(SLAB_BYTES);
    store<usize>(slab, set.slab);
    set.slab = slab;
    set.slabAt = slab + CHUNK_BYTES;
    set.slabEnd = slab + SLAB_BYTES;
  }
  const chunk = set.slabAt;
  set.slabAt = chunk + CHUNK_BYTES;
  return chunk;
}

/** Whether the set has `block`. Its container must not be a LIST, except an empty one. */
export function hasBlock(set: BlockSet, block: u64): bool {
  const word = load<u32>(containerAt(set, <u32>(block >> 16)));
  const value = <u32>block & 0xffff;
  const kind = kindOf(word);
  if (kind == BITS) return ((load<u8>(word - BITS + (value >> 3)) >> (value & 7)) & 1) != 0;
  if (kind != RUNS) return kind == FULL;
  let low: u32 = 0;
  let high = load<u32>(word - RUNS);
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u32>(word - RUNS + (middle << 2), 4) >> 16 <= value) low = middle + 1;
    else high = middle;
  }
  const run = load<u32>(word - RUNS + (low << 2));
  return low != 0 && value - (run >> 16) <= (run & 0xffff);
}

/** Turns a LIST into RUNS. The chunks of the LIST are not freed. */
export function sortList(container: usize): void {
  const word = load<u32>(container);
  if (!word || kindOf(word) != LIST) return;
  measure(word);
  const data = alloc((runCount + 1) << 2);
  store<u32>(data, runCount);
  memory.copy(data + 4, runs, runCount << 2);
  store<u32>(container, <u32>data | RUNS);
}

/** Counts the runs and values of a container that is not empty. Writes its runs to `runs`, unless it is BITS. */
export function measure(word: u32): void {
  const kind = kindOf(word);
  if (kind == BITS) {
    measureBits(word - BITS);
    return;
  }
  if (kind == FULL) {
    store<u32>(runs, 0xffff);
    runCount = 1;
    valueCount = 0x10000;
    return;
  }
  if (kind == RUNS) {
    drawRuns(word - RUNS + 4, word - RUNS + 4 + (load<u32>(word - RUNS) << 2));
  } else {
    for (let stop: usize = word; stop; ) {
      const chunk = chunkBefore(stop);
      drawRuns(chunk + CHUNK_HEADER, stop);
      stop = load<u32>(chunk);
    }
  }
  takeRuns();
}

function drawRuns(at: usize, end: usize): void {
  for (; at < end; at += 4) {
    const run = load<u32>(at);
    const low = run >> 16;
    const high = low + (run & 0xffff);
    let word = low >> 6;
    if (low == high) {
      const place = drawing + (word << 3);
      store<u64>(place, load<u64>(place) | ((<u64>1) << low));
    } else {
      setBits(drawing, low, high);
    }
    do {
      const mark = marks + ((word >> 6) << 3);
      store<u64>(mark, load<u64>(mark) | ((<u64>1) << word));
    } while (++word <= high >> 6);
  }
}

/** Writes the runs of `drawing` to `runs`, at most 4096, and counts them. Clears `drawing`. */
function takeRuns(): void {
  let out = runs;
  // The run under construction is [first, end). There is none while `end` is 0.
  let first: u32 = 0;
  let end: u32 = 0;
  let values: u32 = 0;
  for (let i: u32 = 0; i < 1024; i += 64) {
    const mark = marks + (i >> 3);
    for (let words = load<u64>(mark); words; words &= words - 1) {
      const word = i + <u32>ctz(words);
      const place = drawing + (word << 3);
      let bits = load<u64>(place);
      store<u64>(place, 0);
      while (bits) {
        const low = <u32>ctz(bits);
        const filled = bits | (bits - 1);
        const value = (word << 6) + low;
        if (value != end || !end) {
          if (end) {
            store<u32>(out, (first << 16) | (end - 1 - first));
            out += 4;
            values += end - first;
          }
          first = value;
        }
        end = value + <u32>ctz(~filled) - low;
        bits &= filled + 1;
      }
    }
    store<u64>(mark, 0);
  }
  store<u32>(out, (first << 16) | (end - 1 - first));
  runCount = <u32>(out + 4 - runs) >> 2;
  valueCount = values + end - first;
}

function measureBits(bits: usize): void {
  let values: u32 = 0;
  let count: u32 = 0;
  let before: u64 = 0;
  for (let at = bits; at < bits + ROARING_BITSET_BYTES; at += 8) {
    const word = load<u64>(at);
    values += <u32>popcnt(word);
    count += <u32>popcnt(word & ~((word << 1) | (before >> 63)));
    before = word;
  }
  valueCount = values;
  runCount = count;
}

/** Writes the runs of a bitset to `runs`. The caller has checked that there are at most 4096. */
export function runsOfBits(bits: usize): void {
  memory.copy(drawing, bits, ROARING_BITSET_BYTES);
  memory.fill(marks, 0xff, 128);
  takeRuns();
}

/** Sets the bits [low, high], both included, of the bitset at `bits`. */
function setBits(bits: usize, low: u32, high: u32): void {
  let place = bits + ((low >> 6) << 3);
  const last = bits + ((high >> 6) << 3);
  let mask = <u64>-1 << (low & 63);
  for (; place < last; place += 8, mask = -1) store<u64>(place, load<u64>(place) | mask);
  store<u64>(place, load<u64>(place) | (mask & (<u64>-1 >> (~high & 63))));
}

/** The chunk whose used part ends at `end`. */
// @ts-ignore: decorator
@inline
function chunkBefore(end: usize): usize {
  return (end - 1) & ~(CHUNK_BYTES - 1);
}

/** Replaces the word of a container, and frees what the old word pointed to. */
function become(set: BlockSet, container: usize, word: u32): void {
  const old = load<u32>(container);
  const kind = kindOf(old);
  if (kind == RUNS) free(old - RUNS, (load<u32>(old - RUNS) + 1) << 2);
  if (kind == BITS) free(old - BITS, ROARING_BITSET_BYTES);
  if (kind == LIST) {
    for (let stop: usize = old; stop; ) {
      const chunk = chunkBefore(stop);
      stop = load<u32>(chunk);
      store<usize>(chunk, set.spare);
      set.spare = chunk;
    }
  }
  store<u32>(container, word);
}
