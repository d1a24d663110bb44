/**
 * The dirty map: for each dirty block the parts of it that were written, in ascending order.
 *
 * Each 2^16 blocks with any dirty block have a table of their own, so that no call takes long: none grows or lists more
 * than one table. `visitDirty` may visit many.
 *
 * A table is an open-addressing table of 16-byte slots: u64 block + 1 (0 = empty), u64 value. The value is:
 * - of a block with one part: start | end << 32
 * - of a block with more parts: LISTED | count << 32 | address of the list of parts, 8 bytes each
 *
 * Invariants:
 * - Parts neither touch nor overlap.
 * - At most two thirds of the slots of a table are taken. A table has at least one block.
 * - The room of a list is the smallest power of two that is at least its count.
 * - A block has at least one part. The parts never cover a whole block: such a block would be synced.
 */
import * as codes from '../src/wasm/codes';
import { COMPLETE, DIRTY, LIMIT } from '../src/wasm/codes';
import { MAX_BLOCK_PARTS } from './layout';
import { alloc, free, zeroed } from './memory';
import { reserve } from './output';

const TABLE_SHIFT: u64 = 16;
const SMALLEST_BITS: u32 = 3;
const BITSET_BYTES: u32 = 8192;
/** The slot of a block without a table. */
const NO_SLOT = memory.data(16, 16);
const LISTED: u64 = <u64>codes.LISTED << 32;

/** interface.ts lists the fields that src/ reads. `tables` is an array of {@link Table}. */
@unmanaged
export class DirtyMap {
  blocks: u32;
  parts: u32;
  tables: usize;
  tableCount: u32;
  maxBlocks: u32;
  maxParts: u32;
  shift: u32;
  size: u64;
}

@unmanaged
export class Table {
  /** 0 if the table has no block. */
  slots: usize;
  blocks: u32;
  bits: u32;
}

export function openDirty(size: u64, shift: u32, maxBlocks: u32, maxParts: u32): DirtyMap {
  const map = changetype<DirtyMap>(zeroed(offsetof<DirtyMap>()));
  map.size = size;
  map.shift = shift;
  map.maxBlocks = maxBlocks;
  map.maxParts = maxParts;
  map.tableCount = <u32>((((size + (<u64>1 << shift) - 1) >> shift) + 0xffff) >> TABLE_SHIFT);
  map.tables = zeroed(map.tableCount * offsetof<Table>());
  return map;
}

export function closeDirty(map: DirtyMap): void {
  visitDirty(map, 0, u64.MAX_VALUE, true);
  free(map.tables, map.tableCount * offsetof<Table>());
  free(changetype<usize>(map), offsetof<DirtyMap>());
}

/** The number of bytes of `block`. The last block may be short. */
export function bytesOfBlock(size: u64, shift: u32, block: u64): u32 {
  return <u32>min(<u64>1 << shift, size - (block << shift));
}

/** Adds a part of a block. With `limited`, returns LIMIT and changes nothing if a limit of the map would be passed. */
export function addPart(map: DirtyMap, block: u64, start: u32, end: u32, limited: bool): i32 {
  const whole = bytesOfBlock(map.size, map.shift, block);
  let slot = findDirty(map, block);
  const value = load<u64>(slot, 8);
  if (!load<u64>(slot)) {
    if (start == 0 && end == whole) return COMPLETE;
    if (limited && (map.blocks >= map.maxBlocks || map.parts >= map.maxParts)) return LIMIT;
    const table = tableAt(map, <u32>(block >> TABLE_SHIFT));
    if (!table.slots) newSlots(table, SMALLEST_BITS);
    if ((table.blocks + 1) * 3 > <u32>2 << table.bits) grow(table);
    slot = find(table, block + 1);
    store<u64>(slot, block + 1);
    store<u64>(slot, <u64>start | (<u64>end << 32), 8);
    table.blocks++;
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
      visitDirty(map, block, block + 1, true);
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
  for (let index = <u32>(start >> TABLE_SHIFT); index < map.tableCount && map.blocks; index++) {
    let at = max(start, <u64>index << TABLE_SHIFT);
    if (at >= end) break;
    const table = tableAt(map, index);
    if (!table.slots) continue;
    const stop = min(end, (<u64>index + 1) << TABLE_SHIFT);
    // A few blocks are looked up one by one. For many blocks, the loop visits the whole table. Removal moves another
    // slot to the present place: a later slot, or one from the beginning of the table that was visited already.
    const few = stop - at < <u64>1 << table.bits;
    const last = table.slots + (<usize>16 << table.bits);
    let slot = table.slots;
    while (table.blocks && (few ? at < stop : slot < last)) {
      if (few) slot = find(table, ++at);
      const key = load<u64>(slot);
      if (key && (few || (key > at && key <= stop))) {
        if (!remove) return true;
        removeSlot(map, table, slot);
      } else {
        slot += 16;
      }
    }
    if (table.blocks) continue;
    free(table.slots, <usize>16 << table.bits);
    table.slots = 0;
  }
  return false;
}

/** The slot of `block`. The first u64 of the slot is 0 if the block is not dirty. */
export function findDirty(map: DirtyMap, block: u64): usize {
  const table = tableAt(map, <u32>(block >> TABLE_SHIFT));
  return table.slots ? find(table, block + 1) : NO_SLOT;
}

// @ts-ignore: decorator
@inline
function tableAt(map: DirtyMap, index: u32): Table {
  return changetype<Table>(map.tables + index * offsetof<Table>());
}

/** The slot of a key, or the empty slot where it would be inserted. */
function find(table: Table, key: u64): usize {
  const mask = (1 << table.bits) - 1;
  let index = home(table, key);
  while (true) {
    const slot = table.slots + (index << 4);
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
function home(table: Table, key: u64): u32 {
  return <u32>((key * 0x9e3779b97f4a7c15) >> (64 - table.bits));
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
function removeSlot(map: DirtyMap, table: Table, slot: usize): void {
  const value = load<u64>(slot, 8);
  map.parts -= countOf(value);
  map.blocks--;
  table.blocks--;
  freeParts(value);
  const mask = (1 << table.bits) - 1;
  let hole = <u32>(slot - table.slots) >> 4;
  let index = hole;
  while (true) {
    index = (index + 1) & mask;
    const from = table.slots + (index << 4);
    const key = load<u64>(from);
    if (!key) break;
    if (((index - home(table, key)) & mask) >= ((index - hole) & mask)) {
      const to = table.slots + (hole << 4);
      store<u64>(to, key);
      store<u64>(to, load<u64>(from, 8), 8);
      hole = index;
    }
  }
  store<u64>(table.slots + (hole << 4), 0);
}

function newSlots(table: Table, bits: u32): void {
  table.slots = zeroed(<usize>16 << bits);
  table.bits = bits;
}

function grow(table: Table): void {
  const old = table.slots;
  const bytes = <usize>16 << table.bits;
  newSlots(table, table.bits + 1);
  for (let slot = old; slot < old + bytes; slot += 16) {
    const key = load<u64>(slot);
    if (!key) continue;
    const to = find(table, key);
    store<u64>(to, key);
    store<u64>(to, load<u64>(slot, 8), 8);
  }
  free(old, bytes);
}

/** Writes the dirty blocks of a table to the output, as a bitset of 2^16 bits. */
export function listBlocks(map: DirtyMap, index: u32): void {
  const bits = reserve(BITSET_BYTES);
  memory.fill(bits, 0, BITSET_BYTES);
  const table = tableAt(map, index);
  if (!table.slots) return;
  for (let slot = table.slots; slot < table.slots + (<usize>16 << table.bits); slot += 16) {
    const key = load<u64>(slot);
    if (!key) continue;
    const block = <u32>(key - 1) & 0xffff;
    const byte = bits + (block >> 3);
    store<u8>(byte, load<u8>(byte) | (<u32>1 << (block & 7)));
  }
}
