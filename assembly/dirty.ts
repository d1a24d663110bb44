/**
 * The dirty map: for each dirty block the parts of it that were written, in ascending order.
 *
 * An open-addressing table of 16-byte slots: u64 block + 1 (0 = empty), u64 value. The value is:
 * - of a block with one part: start | end << 32
 * - of a block with more parts: LISTED | count << 32 | address of the list of parts, 8 bytes each
 *
 * Invariants:
 * - Parts neither touch nor overlap.
 * - At most two thirds of the slots are taken.
 * - The room of a list is the smallest power of two that is at least its count.
 * - A block has at least one part. The parts never cover a whole block: such a block would be synced.
 */
import * as codes from '../src/wasm/codes';
import { COMPLETE, DIRTY, LIMIT } from '../src/wasm/codes';
import { MAX_BLOCK_PARTS } from './layout';
import { alloc, free, zeroed } from './memory';
import { outputFrom, reserve } from './output';

const SMALLEST_BITS: u32 = 6;
const DIGIT_BITS: u64 = 11;
const DIGITS: u32 = 1 << 11;
const LISTED: u64 = <u64>codes.LISTED << 32;

/** interface.ts lists the fields that src/ reads. */
@unmanaged
export class DirtyMap {
  blocks: u32;
  parts: u32;
  table: usize;
  bits: u32;
  maxBlocks: u32;
  maxParts: u32;
  shift: u32;
  size: u64;
}

export function openDirty(size: u64, shift: u32, maxBlocks: u32, maxParts: u32): DirtyMap {
  const map = changetype<DirtyMap>(zeroed(offsetof<DirtyMap>()));
  map.size = size;
  map.shift = shift;
  map.maxBlocks = maxBlocks;
  map.maxParts = maxParts;
  newTable(map, SMALLEST_BITS);
  return map;
}

export function closeDirty(map: DirtyMap): void {
  visitDirty(map, 0, u64.MAX_VALUE, true);
  free(map.table, <usize>16 << map.bits);
  free(changetype<usize>(map), offsetof<DirtyMap>());
}

/** The number of bytes of `block`. The last block may be short. */
export function bytesOfBlock(size: u64, shift: u32, block: u64): u32 {
  return <u32>min(<u64>1 << shift, size - (block << shift));
}

/** Makes room for so many blocks at once. */
export function reserveBlocks(map: DirtyMap, blocks: u32): void {
  let bits = map.bits;
  while (<u64>blocks * 3 > <u64>2 << bits) bits++;
  if (bits > map.bits) rebuild(map, bits);
}

/** Adds a part of a block. With `limited`, returns LIMIT and changes nothing if a limit of the map would be passed. */
export function addPart(map: DirtyMap, block: u64, start: u32, end: u32, limited: bool): i32 {
  const whole = bytesOfBlock(map.size, map.shift, block);
  let slot = findDirty(map, block);
  const value = load<u64>(slot, 8);
  if (!load<u64>(slot)) {
    if (start == 0 && end == whole) return COMPLETE;
    if (limited && (map.blocks >= map.maxBlocks || map.parts >= map.maxParts)) return LIMIT;
    if (<u64>(map.blocks + 1) * 3 > <u64>2 << map.bits) {
      rebuild(map, map.bits + 1);
      slot = findDirty(map, block);
    }
    store<u64>(slot, block + 1);
    store<u64>(slot, <u64>start | (<u64>end << 32), 8);
    map.blocks++;
    map.parts++;
    return DIRTY;
  }
  const count = countOf(value);
  const parts = partsAt(slot, value);
  // The parts [first, behind) touch or overlap the new part, and are merged with it.
  let first = firstEndingFrom(parts, count, start);
  let behind = first;
  while (behind < count && load<u32>(parts + (behind << 3)) <= end) behind++;
  if (behind > first) {
    start = min(start, load<u32>(parts + (first << 3)));
    end = max(end, load<u32>(parts + ((behind - 1) << 3), 4));
    if (start == 0 && end == whole) {
      removeSlot(map, slot);
      return COMPLETE;
    }
    const place = parts + (first << 3);
    store<u32>(place, start);
    store<u32>(place, end, 4);
    if (behind - first > 1) {
      memory.copy(place + 8, parts + (behind << 3), (count - behind) << 3);
      resize(map, slot, parts, count, count - (behind - first) + 1);
    }
    return DIRTY;
  }
  if (count >= MAX_BLOCK_PARTS || (limited && map.parts >= map.maxParts)) return LIMIT;
  const grown = resize(map, slot, parts, count, count + 1) + (first << 3);
  memory.copy(grown + 8, grown, (count - first) << 3);
  store<u32>(grown, start);
  store<u32>(grown, end, 4);
  return DIRTY;
}

/** Whether any block of [start, end) is dirty. With `remove`, drops all of these blocks instead. */
export function visitDirty(map: DirtyMap, start: u64, end: u64, remove: bool): bool {
  // A few blocks are looked up one by one. For many blocks, the loop visits the whole table. Removal moves another slot
  // to the present place: a later slot, or one from the beginning of the table that was visited already.
  const few = end - start < <u64>1 << map.bits;
  const last = map.table + (<usize>16 << map.bits);
  let slot = map.table;
  while (map.blocks && (few ? start < end : slot < last)) {
    if (few) slot = findDirty(map, start++);
    const key = load<u64>(slot);
    if (key && (few || (key > start && key <= end))) {
      if (!remove) return true;
      removeSlot(map, slot);
    } else {
      slot += 16;
    }
  }
  return false;
}

/** The slot of `block`, or the empty slot where it would be inserted. */
export function findDirty(map: DirtyMap, block: u64): usize {
  const key = block + 1;
  const mask = (1 << map.bits) - 1;
  let index = home(map, key);
  while (true) {
    const slot = map.table + (index << 4);
    const found = load<u64>(slot);
    if (found == key || !found) return slot;
    index = (index + 1) & mask;
  }
}

function countOf(value: u64): u32 {
  return value & LISTED ? <u32>(value >> 32) & 0x7fffffff : 1;
}

/** The address of the parts: their list, or the slot itself. */
function partsAt(slot: usize, value: u64): usize {
  return value & LISTED ? <usize>value : slot + 8;
}

// @ts-ignore: decorator
@inline
function home(map: DirtyMap, key: u64): u32 {
  return <u32>((key * 0x9e3779b97f4a7c15) >> (64 - map.bits));
}

function firstEndingFrom(parts: usize, count: u32, start: u32): u32 {
  let low: u32 = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u32>(parts + (middle << 3), 4) < start) low = middle + 1;
    else high = middle;
  }
  return low;
}

function room(count: u32): u32 {
  return 1 << (32 - clz(count - 1));
}

/** Resizes the list of a block from `count` to `now` parts, and keeps the first parts. Returns their address. */
function resize(map: DirtyMap, slot: usize, parts: usize, count: u32, now: u32): usize {
  map.parts += now - count;
  if (now == 1) {
    store<u64>(slot, load<u64>(parts), 8);
    free(parts, room(count) << 3);
    return slot + 8;
  }
  let moved = parts;
  if (count == 1 || room(count) != room(now)) {
    moved = alloc(room(now) << 3);
    memory.copy(moved, parts, min(count, now) << 3);
    if (count > 1) free(parts, room(count) << 3);
  }
  store<u64>(slot, LISTED | (<u64>now << 32) | <u64>moved, 8);
  return moved;
}

function freeParts(value: u64): void {
  if (value & LISTED) free(<usize>value, room(countOf(value)) << 3);
}

/** Empties a slot, and moves back the slots behind it that were displaced by it. */
function removeSlot(map: DirtyMap, slot: usize): void {
  const value = load<u64>(slot, 8);
  map.parts -= countOf(value);
  map.blocks--;
  freeParts(value);
  const mask = (1 << map.bits) - 1;
  let hole = <u32>(slot - map.table) >> 4;
  let index = hole;
  while (true) {
    index = (index + 1) & mask;
    const from = map.table + (index << 4);
    const key = load<u64>(from);
    if (!key) break;
    if (((index - home(map, key)) & mask) >= ((index - hole) & mask)) {
      const to = map.table + (hole << 4);
      store<u64>(to, key);
      store<u64>(to, load<u64>(from, 8), 8);
      hole = index;
    }
  }
  store<u64>(map.table + (hole << 4), 0);
}

function newTable(map: DirtyMap, bits: u32): void {
  map.table = zeroed(<usize>16 << bits);
  map.bits = bits;
}

function rebuild(map: DirtyMap, bits: u32): void {
  const old = map.table;
  const bytes = <usize>16 << map.bits;
  newTable(map, bits);
  for (let slot = old; slot < old + bytes; slot += 16) {
    const key = load<u64>(slot);
    if (!key) continue;
    const to = findDirty(map, key - 1);
    store<u64>(to, key);
    store<u64>(to, load<u64>(slot, 8), 8);
  }
  free(old, bytes);
}

/** Writes all dirty blocks to the output, as u64 in ascending order, and returns their number. */
export function listBlocks(map: DirtyMap): u32 {
  const bytes = map.blocks << 3;
  let from = reserve(bytes << 1);
  let to = from + bytes;
  const counts = alloc(DIGITS << 2);
  let place = from;
  let highest: u64 = 0;
  for (let slot = map.table; place < from + bytes; slot += 16) {
    const key = load<u64>(slot);
    if (!key) continue;
    store<u64>(place, key - 1);
    place += 8;
    highest |= key - 1;
  }
  // Radix sort, lowest digit first.
  for (let digit: u64 = 0; highest >> digit; digit += DIGIT_BITS) {
    memory.fill(counts, 0, DIGITS << 2);
    for (let at = from; at < from + bytes; at += 8) {
      const counter = counterOf(counts, at, digit);
      store<u32>(counter, load<u32>(counter) + 8);
    }
    let sum = <u32>to;
    for (let counter = counts; counter < counts + (DIGITS << 2); counter += 4) {
      const here = load<u32>(counter);
      store<u32>(counter, sum);
      sum += here;
    }
    for (let at = from; at < from + bytes; at += 8) {
      const counter = counterOf(counts, at, digit);
      const place = load<u32>(counter);
      store<u32>(counter, place + 8);
      store<u64>(place, load<u64>(at));
    }
    const sorted = to;
    to = from;
    from = sorted;
  }
  free(counts, DIGITS << 2);
  outputFrom(from);
  return map.blocks;
}

function counterOf(counts: usize, at: usize, digit: u64): usize {
  return counts + ((<u32>(load<u64>(at) >> digit) & (DIGITS - 1)) << 2);
}
