/**
 * The exports of the module.
 *
 * - Handles are addresses. interface.ts lists the fields that src/ reads from them.
 * - Sizes and offsets above 32 bits are passed as f64, which holds safe integers exactly.
 * - Results are at `output()`.
 */
import { initCrc32c } from './crc32c';
import { DirtyMap, addPart, closeDirty, findDirty, listBlocks, openDirty, visitDirty } from './dirty';
import { Encoder, addRecord, closeEncoder, openEncoder, sealFrames } from './frames';
import {
  Replay,
  clearReplay,
  closeReplay,
  emitSlice,
  feedFormat1,
  feedFormat2,
  finishReplay,
  openReplay,
} from './replay';
import { Scan, closeScan, feedScan, openScan } from './scan';

export { crc32c } from './crc32c';
export { cellSum } from './sums';
export { alloc, failureCode, free, hasRoom, setLimit } from './memory';
export { output } from './output';
export { problemAt } from './problem';

initCrc32c();

export function dirtyOpen(size: f64, shift: u32, maxBlocks: u32, maxParts: u32): DirtyMap {
  return openDirty(<u64>size, shift, maxBlocks, maxParts);
}
export function dirtyAdd(map: DirtyMap, block: f64, start: u32, end: u32, limited: bool): i32 {
  return addPart(map, <u64>block, start, end, limited);
}
/** The slot of a block. Its first u64 is 0 if the block is not dirty. */
export function dirtyFind(map: DirtyMap, block: f64): usize {
  return findDirty(map, <u64>block);
}
export function dirtyVisit(map: DirtyMap, start: f64, end: f64, remove: bool): bool {
  return visitDirty(map, <u64>start, <u64>end, remove);
}
export { closeDirty as dirtyClose, listBlocks as dirtyList };

export function replayOpen(size: f64, shift: u32, types: u32): Replay {
  return openReplay(<u64>size, shift, types);
}
export {
  clearReplay as replayClear,
  closeReplay as replayClose,
  emitSlice as replayEmit,
  feedFormat1 as replayFormat1,
  feedFormat2 as replayFormat2,
  finishReplay as replayFinish,
};

export function scanOpen(size: f64, epoch: u32): Scan {
  return openScan(<u64>size, epoch);
}
export { closeScan as scanClose, feedScan as scanFeed };

export function encoderAdd(encoder: Encoder, type: u32, first: f64, low: u32, high: u32): i32 {
  return addRecord(encoder, type, <u64>first, <u64>low | ((<u64>high) << 32));
}
export function encoderSeal(encoder: Encoder, position: f64, sequence: u32, firm: u32): u32 {
  return sealFrames(encoder, <u64>position, sequence, firm);
}
export { closeEncoder as encoderClose, openEncoder as encoderOpen };
