/**
 * A growing set of blocks as one directory of containers of 2^16 blocks, made for being filled fast and read once.
 *
 * A container is EMPTY; a LIST of runs in any order, overlapping or not; RUNS, the same sorted, none touching another; BITS, a
 * bitset of 8 KiB; or FULL. A run is a u32: first value << 16 | length - 1.
 *
 * Invariants: `data` of a LIST is where the next run goes, in a chain of 64-byte chunks that begin with the address of the one
 * before: chunks in use lie anywhere, where arrays of powers of two would all meet in the same few cache sets. From a FULL container
 * on, `count` (at least 1) containers are known to be FULL, so that filling a filled range again costs nothing.
 */
import { alloc, free, zeroed } from './memory';

export const EMPTY: u32 = 0;
export const LIST: u32 = 1;
export const RUNS: u32 = 2;
export const BITS: u32 = 3;
export const FULL: u32 = 4;
export const BITS_BYTES: u32 = 8192;

/** A list as long as this takes as much as a bitset, and becomes one. */
const LIST_LIMIT: u32 = 2048;
const CHUNK_BYTES: u32 = 64;
/** A bitset that is better off as runs has no more than so many. */
const RUNS_LIMIT: u32 = 4096;

@unmanaged
export class Container {
  data: usize;
  kind: u32;
  count: u32;
}

@unmanaged
export class BlockSet {
  containers: usize;
  containerCount: u32;
}

/** A bitset for sorting, and a bit for each of its words that may not be zero; both all zeros between calls. */
const scratch = memory.data(8192, 16);
const marks = memory.data(128, 16);
const sorted = memory.data(RUNS_LIMIT * 4, 16);

// @ts-ignore: decorator
@inline
export function containerAt(set: BlockSet, index: u32): Container {
  return changetype<Container>(set.containers + index * offsetof<Container>());
}

export function openSet(set: BlockSet, blockCount: u64): void {
  set.containerCount = <u32>((blockCount + 0xffff) >> 16);
  set.containers = zeroed(set.containerCount * offsetof<Container>());
}

/** Makes the set empty, and keeps its directory. */
export function clearSet(set: BlockSet): void {
  for (let i: u32 = 0; i < set.containerCount; i++) become(containerAt(set, i), EMPTY, 0, 0);
}

export function closeSet(set: BlockSet): void {
  clearSet(set);
  free(set.containers, set.containerCount * offsetof<Container>());
}

/** Adds the blocks from `start` up to `end`, not included. The caller has checked that they exist. */
export function addRange(set: BlockSet, start: u64, end: u64): void {
  let low = <u32>start & 0xffff;
  const first = <u32>((start + 0xffff) >> 16);
  const behind = <u32>(end >> 16);
  const last = <u32>((end - 1) >> 16);
  for (let i = <u32>(start >> 16); i <= last; low = 0) {
    const container = containerAt(set, i);
    if (container.kind == FULL) {
      i += container.count;
    } else {
      addRun(container, low, i == last ? <u32>(end - 1) & 0xffff : 0xffff);
      i++;
    }
  }
  if (first < behind) {
    const container = containerAt(set, first);
    container.count = max(container.count, behind - first);
  }
}

/** Adds the values from `low` to `high`, both included, to a container that is not FULL. */
function addRun(container: Container, low: u32, high: u32): void {
  const kind = container.kind;
  const run = (low << 16) | (high - low);
  if (run == 0xffff) {
    become(container, FULL, 0, 1);
  } else if (kind == BITS) {
    setBits(container.data, low, high);
  } else if (kind == RUNS) {
    // Runs that were sorted too early: a bitset takes any more.
    toBits(container);
    setBits(container.data, low, high);
  } else {
    let place = container.data;
    // Between chunks, and for an EMPTY container, the place is a multiple of 64.
    if ((place & (CHUNK_BYTES - 1)) == 0) {
      if (container.count >= LIST_LIMIT) {
        toBits(container);
        setBits(container.data, low, high);
        return;
      }
      const chunk = alloc(CHUNK_BYTES);
      store<usize>(chunk, place);
      container.kind = LIST;
      place = chunk + 4;
    }
    store<u32>(place, run);
    container.data = place + 4;
    container.count++;
  }
}

/** Whether the set has `block`; its container is not a LIST. */
export function hasBlock(set: BlockSet, block: u64): bool {
  const container = containerAt(set, <u32>(block >> 16));
  const value = <u32>block & 0xffff;
  const data = container.data;
  const kind = container.kind;
  if (kind == BITS) return ((load<u8>(data + (value >> 3)) >> (value & 7)) & 1) != 0;
  if (kind != RUNS) return kind == FULL;
  let low: u32 = 0;
  let high = container.count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u16>(data + (middle << 2), 2) <= value) low = middle + 1;
    else high = middle;
  }
  const run = load<u32>(data + (low << 2) - 4);
  return low != 0 && value - (run >> 16) <= (run & 0xffff);
}

/** Makes RUNS of a LIST, or FULL if it covers everything. */
export function sortList(container: Container): void {
  if (container.kind != LIST) return;
  let end = container.data;
  while (end) {
    const chunk = (end - 1) & ~(CHUNK_BYTES - 1);
    for (let at = chunk + 4; at < end; at += 4) {
      const run = load<u32>(at);
      const low = run >> 16;
      const high = low + (run & 0xffff);
      setBits(scratch, low, high);
      for (let i = low >> 6; i <= high >> 6; i++) {
        const mark = marks + ((i >> 6) << 3);
        store<u64>(mark, load<u64>(mark) | ((<u64>1) << i));
      }
    }
    end = load<usize>(chunk);
  }
  toRuns(container, scratch);
}

/** Makes RUNS of BITS that has no more than 4096 of them. */
export function bitsToRuns(container: Container): void {
  memory.fill(marks, 0xff, 128);
  toRuns(container, container.data);
}

/** Makes RUNS of what is set in the marked words of `bits`, and clears them. */
function toRuns(container: Container, bits: usize): void {
  let out = sorted;
  // The run being built, from `first` up to `end`, not included; there is none as long as that is 0.
  let first: u32 = 0;
  let end: u32 = 0;
  for (let i: u32 = 0; i < 1024; i += 64) {
    const mark = marks + (i >> 3);
    for (let words = load<u64>(mark); words; words &= words - 1) {
      const word = i + <u32>ctz(words);
      const place = bits + (word << 3);
      let left = load<u64>(place);
      store<u64>(place, 0);
      while (left) {
        const low = <u32>ctz(left);
        const filled = left | (left - 1);
        const value = (word << 6) + low;
        if (value != end || !end) {
          store<u32>(out, (first << 16) | (end - 1 - first));
          if (end) out += 4;
          first = value;
        }
        end = value + <u32>ctz(~filled) - low;
        left &= filled + 1;
      }
    }
    store<u64>(mark, 0);
  }
  store<u32>(out, (first << 16) | (end - 1 - first));
  const count = (<u32>(out - sorted) >> 2) + 1;
  if (end - first == 0x10000) {
    become(container, FULL, 0, 1);
  } else {
    const data = alloc(count << 2);
    memory.copy(data, sorted, count << 2);
    become(container, RUNS, data, count);
  }
}

/** Sets the bits from `low` to `high`, both included, in the bitset at `bits`. */
function setBits(bits: usize, low: u32, high: u32): void {
  let place = bits + ((low >> 6) << 3);
  const last = bits + ((high >> 6) << 3);
  let mask = <u64>-1 << (low & 63);
  for (; place < last; place += 8, mask = -1) store<u64>(place, load<u64>(place) | mask);
  store<u64>(place, load<u64>(place) | (mask & (<u64>-1 >> (~high & 63))));
}

/** Draws RUNS, or a LIST, into the 8 KiB at `bits`. */
export function draw(container: Container, bits: usize): void {
  sortList(container);
  memory.fill(bits, 0, BITS_BYTES);
  const end = container.data + (container.count << 2);
  for (let at = container.data; at < end; at += 4) {
    const run = load<u32>(at);
    setBits(bits, run >> 16, (run >> 16) + (run & 0xffff));
  }
}

function toBits(container: Container): void {
  const bits = alloc(BITS_BYTES);
  draw(container, bits);
  become(container, BITS, bits, 0);
}

/** Changes what a container is, and gives back what it held. */
function become(container: Container, kind: u32, data: usize, count: u32): void {
  const old = container.data;
  if (container.kind == RUNS) free(old, container.count << 2);
  else if (container.kind == BITS) free(old, BITS_BYTES);
  else if (container.kind == LIST) {
    for (let chunk = (old - 1) & ~(CHUNK_BYTES - 1); chunk; ) {
      const before = load<usize>(chunk);
      free(chunk, CHUNK_BYTES);
      chunk = before ? before - CHUNK_BYTES : 0;
    }
  }
  container.kind = kind;
  container.data = data;
  container.count = count;
}
