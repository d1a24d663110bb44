/**
 * Replay: reads logs, and returns the set of synced blocks and the dirty parts of all other blocks.
 *
 * Records only ever add, so their order does not matter. Blocks are added to the set at once. Parts are parked until
 * the set is final; then only the parts of blocks outside the set are added to the dirty map.
 *
 * Invariants: the blocks [runStart, runEnd) belong to the set too. A log is never read beyond its length, and its
 * values are checked before they are used.
 */
import { COMPLETE, DIRTY, MORE } from '../src/wasm/codes';
import { BLOCK_OUTSIDE, CHANGED, PART_OUTSIDE, TOO_MANY_PARTS, UNKNOWN_TYPE } from '../src/wasm/problems';
import { BlockSet, addBlocks, clearSet, closeSet, containerAt, hasBlock, openSet, sortList } from './containers';
import { DirtyMap, addPart, bytesOfBlock, visitDirty } from './dirty';
import {
  FORMAT1_BLOCK_SIZE,
  FORMAT1_SYNCED_BYTES,
  FORMAT1_WRITTEN_BYTES,
  FRAME_HEADER_BYTES,
  FRAME_TRAILER_BYTES,
  MODIFIED,
  NUMBER_MASK,
  RECORD_BYTES,
  SECTOR_BYTES,
  SHORTEST_FRAME,
  TYPE_SHIFT,
} from './layout';
import { alloc, free, zeroed } from './memory';
import { writeSlice } from './portable';
import { lookAt } from './problem';
import { bytesOf } from './scan';

/** Parked parts (block, start, end: 16 bytes) are in a chain of chunks, whose first word is the next chunk. */
const CHUNK_BYTES: u32 = 1 << 16;

/** The phases of {@link finishReplay}. */
const ADDING: u32 = 1;
const COMPLETING: u32 = 2;

/** `records` and `ended` are those of the present log. interface.ts lists the fields that src/ reads. */
@unmanaged
export class Replay extends BlockSet {
  records: u32;
  ended: u32;
  size: u64;
  blockCount: u64;
  runStart: u64;
  runEnd: u64;
  /** Extents are extended to multiples of this + 1: every block that they touch is whole. */
  outer: u64;
  shift: u32;
  /** The types of records of format 2 that count: bit n for type n. */
  types: u32;
  firstChunk: usize;
  parkedAt: usize;
  parkedEnd: usize;
  /** While the replay ends: the next chunk, and how far the chunks are. */
  chunk: usize;
  phase: u32;
}

export function openReplay(size: u64, shift: u32, types: u32): Replay {
  const replay = changetype<Replay>(zeroed(offsetof<Replay>()));
  replay.size = size;
  replay.shift = shift;
  replay.types = types;
  if (types >> MODIFIED) replay.outer = (<u64>1 << shift) - 1;
  replay.blockCount = (size + (<u64>1 << shift) - 1) >> shift;
  openSet(replay, replay.blockCount);
  return replay;
}

/** Drops everything that was replayed. */
export function clearReplay(replay: Replay): void {
  clearSet(replay);
  dropParked(replay);
  replay.runStart = replay.runEnd = 0;
}

export function closeReplay(replay: Replay): void {
  dropParked(replay);
  closeSet(replay);
  free(changetype<usize>(replay), offsetof<Replay>());
}

/** Replays the whole records of a piece of a log of format 1. Returns the number of their bytes, or -problem. */
export function feedFormat1(replay: Replay, ptr: usize, len: u32): i32 {
  const from = ptr;
  const end = ptr + len;
  const blockCount = replay.blockCount;
  let runStart = replay.runStart;
  let runEnd = replay.runEnd;
  let records: u32 = 0;
  let kind = 0;
  while (ptr + 8 <= end) {
    const type = load<u64>(ptr);
    if (type == 1) {
      if (ptr + FORMAT1_SYNCED_BYTES > end) break;
      const block = load<u64>(ptr, 8);
      if (block < blockCount) {
        if (block == runEnd) {
          // Consecutive blocks: a sequential log spends nearly all its time in this loop.
          const last = min(end - 15, ptr + (<usize>min<u64>(blockCount - runEnd, CHUNK_BYTES) << 4));
          const first = ptr;
          do {
            ptr += FORMAT1_SYNCED_BYTES;
            runEnd++;
          } while (ptr < last && ((load<u64>(ptr) ^ 1) | (load<u64>(ptr, 8) ^ runEnd)) == 0);
          records += <u32>(ptr - first) >> 4;
        } else {
          if (runStart < runEnd) addBlocks(replay, runStart, runEnd);
          runStart = block;
          runEnd = block + 1;
          ptr += FORMAT1_SYNCED_BYTES;
          records++;
        }
        continue;
      }
      if (!isPhantom(replay, block)) kind = BLOCK_OUTSIDE;
      ptr += FORMAT1_SYNCED_BYTES;
    } else if (type == 2) {
      if (ptr + FORMAT1_WRITTEN_BYTES > end) break;
      const block = load<u64>(ptr, 8);
      const offset = load<u64>(ptr, 16);
      const length = load<u64>(ptr, 24);
      if (offset > FORMAT1_BLOCK_SIZE || length > FORMAT1_BLOCK_SIZE - offset) {
        kind = PART_OUTSIDE;
      } else if (block < blockCount) {
        // A part of the last block may exceed the device. The excess does not count.
        park(replay, block, <u32>offset, min(<u32>(offset + length), bytesOfBlock(replay.size, replay.shift, block)));
      } else if (!isPhantom(replay, block)) {
        kind = BLOCK_OUTSIDE;
      }
      ptr += FORMAT1_WRITTEN_BYTES;
    } else {
      replay.ended = 1;
      if (type) kind = UNKNOWN_TYPE;
      lookAt(ptr);
      break;
    }
    if (kind) {
      lookAt(ptr - (type == 1 ? FORMAT1_SYNCED_BYTES : FORMAT1_WRITTEN_BYTES));
      break;
    }
    records++;
  }
  replay.runStart = runStart;
  replay.runEnd = runEnd;
  replay.records += records;
  return kind ? -kind : <i32>(ptr - from);
}

/** The program that writes format 1 counts one block too many if the size is a multiple of 4096. */
function isPhantom(replay: Replay, block: u64): bool {
  return block == replay.blockCount && (replay.size & (FORMAT1_BLOCK_SIZE - 1)) == 0;
}

/** Replays the frames below `through` in sectors of a log of format 2 that was scanned. Returns 0 or the problem. */
export function feedFormat2(replay: Replay, ptr: usize, len: u32, through: u32): i32 {
  for (const end = ptr + len; ptr < end; ptr += SECTOR_BYTES) {
    const stop = min(ptr + SECTOR_BYTES, end);
    let frame = ptr;
    while (frame + SHORTEST_FRAME <= stop) {
      const length: u32 = load<u16>(frame);
      if (!length) break;
      lookAt(frame);
      const behind = frame + length;
      if (length < SHORTEST_FRAME || behind > stop || length & 7) return CHANGED;
      if (load<u32>(frame, 8) >= through) return 0;
      const last = behind - FRAME_TRAILER_BYTES;
      for (let record = frame + FRAME_HEADER_BYTES; record < last; record += RECORD_BYTES) {
        const word = load<u64>(record);
        const type = <u32>(word >> TYPE_SHIFT);
        if (!((replay.types >> type) & 1)) continue;
        const start = word & NUMBER_MASK;
        const bytes = bytesOf(type, load<u64>(record, 8));
        if (!bytes || start > replay.size || bytes > replay.size - start) return CHANGED;
        const mask = replay.outer;
        addExtent(replay, start & ~mask, (start + bytes + mask) & ~mask);
      }
      frame = behind;
    }
  }
  return 0;
}

/** Adds the bytes [start, end): blocks that are wholly inside are synced, and the rest becomes parts. */
function addExtent(replay: Replay, start: u64, end: u64): void {
  const shift = replay.shift;
  const mask = (<u64>1 << shift) - 1;
  const from = start >> shift;
  const first = (start + mask) >> shift;
  const behind = end == replay.size ? replay.blockCount : end >> shift;
  if (first < behind) {
    if (first != replay.runEnd) {
      if (replay.runStart < replay.runEnd) addBlocks(replay, replay.runStart, replay.runEnd);
      replay.runStart = first;
    }
    replay.runEnd = behind;
  }
  if (from < first) {
    const stop = bytesOfBlock(replay.size, shift, from);
    park(replay, from, <u32>(start & mask), <u32>min<u64>(end - (from << shift), stop));
  }
  if (first <= behind && behind << shift < end) park(replay, behind, 0, <u32>(end & mask));
}

function park(replay: Replay, block: u64, start: u32, end: u32): void {
  if (start >= end) return;
  let place = replay.parkedAt;
  if (place == replay.parkedEnd) {
    place = alloc(CHUNK_BYTES);
    if (replay.firstChunk) store<usize>(replay.parkedEnd - CHUNK_BYTES, place);
    else replay.firstChunk = place;
    store<usize>(place, 0);
    replay.parkedEnd = place + CHUNK_BYTES;
    place += 16;
  }
  store<u64>(place, block);
  store<u32>(place, start, 8);
  store<u32>(place, end, 12);
  replay.parkedAt = place + 16;
}

/** The end of the parked parts of a chunk. */
function endOf(replay: Replay, chunk: usize): usize {
  return load<usize>(chunk) ? chunk + CHUNK_BYTES : replay.parkedAt;
}

function dropParked(replay: Replay): void {
  for (let chunk = replay.firstChunk; chunk; ) {
    const next = load<usize>(chunk);
    free(chunk, CHUNK_BYTES);
    chunk = next;
  }
  replay.firstChunk = replay.parkedAt = replay.parkedEnd = replay.chunk = 0;
  replay.phase = 0;
}

/**
 * Ends the replay: adds the surviving parts to `dirty`, a chunk at each call. Returns MORE until all is done, then 0,
 * or the problem. Slices can be written then, and the caller drops the parts of all blocks that are synced.
 */
export function finishReplay(replay: Replay, dirty: DirtyMap): i32 {
  const chunk = replay.chunk;
  if (chunk) {
    replay.chunk = load<usize>(chunk);
    return replay.phase == ADDING ? addParked(replay, dirty, chunk) : addCompleted(replay, dirty, chunk);
  }
  if (replay.phase == COMPLETING) {
    dropParked(replay);
    return 0;
  }
  if (!replay.phase && replay.runStart < replay.runEnd) {
    addBlocks(replay, replay.runStart, replay.runEnd);
    replay.runStart = replay.runEnd = 0;
  }
  replay.phase++;
  replay.chunk = replay.firstChunk;
  return MORE;
}

/** Adds the surviving parts of a chunk. Keeps the blocks that they complete at the front of the chunk. */
function addParked(replay: Replay, dirty: DirtyMap, chunk: usize): i32 {
  let kept = chunk + 16;
  for (let at = kept, end = endOf(replay, chunk); at < end; at += 16) {
    const block = load<u64>(at);
    // `hasBlock` requires a sorted list.
    sortList(containerAt(replay, <u32>(block >> 16)));
    if (hasBlock(replay, block)) continue;
    const outcome = addPart(dirty, block, load<u32>(at, 8), load<u32>(at, 12), false);
    if (outcome == DIRTY) continue;
    if (outcome != COMPLETE) return TOO_MANY_PARTS;
    store<u64>(kept, block);
    kept += 16;
  }
  store<u32>(chunk, <u32>(kept - chunk), 4);
  return MORE;
}

/** Adds the completed blocks of a chunk to the set only now, and drops the parts of them that came later. */
function addCompleted(replay: Replay, dirty: DirtyMap, chunk: usize): i32 {
  for (let at = chunk + 16, end = chunk + load<u32>(chunk, 4); at < end; at += 16) {
    const block = load<u64>(at);
    visitDirty(dirty, block, block + 1, true);
    addBlocks(replay, block, block + 1);
  }
  return MORE;
}

export function emitSlice(replay: Replay, slice: u32): u32 {
  return writeSlice(replay, slice);
}
