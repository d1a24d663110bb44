/**
 * The valid frames of a log, wherever they are, also behind missing ones (docs/FORMAT.md, Log). Recovery uses only the
 * frames up to the first missing one; a repair uses all of them.
 */

import type { CopyState } from '../core/copy-state.ts';
import {
  BARRIER,
  BASED,
  CELL_BYTES,
  CONTINUED,
  FILLED,
  FRAME_BYTES,
  FRAME_HEADER_BYTES,
  HEADER_BYTES,
  MAY_READ,
  MODIFIED,
  RECORD_BYTES,
  SECTOR_BYTES,
  WRITTEN,
  WRITTEN_PAIR,
} from '../core/layout.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import type { Extent } from './proof.ts';

/** Bytes that are read at a time. */
const PIECE_BYTES = 2 ** 18;
/** "end!" as a u32. */
const FRAME_END = 0x2164_6e65;
/** Checksum and end mark. */
const TRAILER_BYTES = 8;

/** A frame whose checksum matches. */
export interface FoundFrame {
  readonly sequence: number;
  /** Whether each record is as a writer makes it. */
  readonly isRegular: boolean;
  /** What the target holds if the frame is firm. */
  readonly held: readonly Extent[];
  /** What users may have changed. */
  readonly changes: readonly Extent[];
  /** The end of the last byte of the device that a record names. */
  readonly end: number;
  /** The highest `BARRIER`, 0 if there is none. */
  readonly barrier: number;
  readonly hasBarrier: boolean;
  readonly hasBased: boolean;
  /** Returns a sector that has only this frame. */
  sector(): Uint8Array;
}

/** Yields the valid frames of an epoch, in the order of their places. */
export async function* framesOf(
  core: Core,
  file: File,
  bytes: number,
  epoch: number,
): AsyncGenerator<FoundFrame, void, undefined> {
  const piece = new Uint8Array(PIECE_BYTES);
  const view = new DataView(piece.buffer);
  const words = new Uint32Array(piece.buffer);
  for (let from = HEADER_BYTES; from < bytes; from += PIECE_BYTES) {
    const length = Math.min(PIECE_BYTES, bytes - from);
    piece.fill(0, length);
    await file.read(piece.subarray(0, length), from);
    for (let sector = 0; sector < length; sector += SECTOR_BYTES) {
      const lastPlace = sector + SECTOR_BYTES - FRAME_BYTES - RECORD_BYTES;
      for (let at = sector; at <= lastPlace; ) {
        // Most of a log is zeros, with which no frame begins.
        if (words[at / 4] === 0) {
          at += 8;
          continue;
        }
        const frameBytes = view.getUint16(at, true);
        if (!hasShape(view, at, sector + SECTOR_BYTES)) {
          at += 8;
          continue;
        }
        const frame = piece.subarray(at, at + frameBytes);
        const sum = view.getUint32(at + frameBytes - TRAILER_BYTES, true);
        if (view.getUint32(at + 4, true) === epoch % 2 ** 32 && core.crc32c(frame.subarray(0, -TRAILER_BYTES)) === sum)
          yield decode(frame.slice());
        at += frameBytes;
      }
    }
  }
}

function hasShape(view: DataView, at: number, sectorEnd: number): boolean {
  const length = view.getUint16(at, true);
  return (
    (length ^ view.getUint16(at + 2, true)) === 0xffff &&
    length >= FRAME_BYTES + RECORD_BYTES &&
    at + length <= sectorEnd &&
    (length - FRAME_BYTES) % RECORD_BYTES === 0 &&
    view.getUint32(at + length - 4, true) === FRAME_END
  );
}

function decode(frame: Uint8Array): FoundFrame {
  const view = new DataView(frame.buffer);
  const sequence = view.getUint32(8, true);
  const held: Extent[] = [];
  const changes: Extent[] = [];
  let [isRegular, hasBarrier, hasBased, barrier, end] = [true, false, false, 0, 0];
  for (let at = FRAME_HEADER_BYTES; at < frame.length - TRAILER_BYTES; at += RECORD_BYTES) {
    const type = view.getUint8(at + 7);
    const offset = view.getUint32(at, true) + (view.getUint32(at + 4, true) & 0xff_ffff) * 2 ** 32;
    const second = view.getBigUint64(at + 8, true);
    const length = lengthOf(type, second);
    end = Math.max(end, offset + length);
    const extent = { offset, length };
    const within = offset % CELL_BYTES;
    switch (type) {
      case WRITTEN:
        isRegular &&= length > 0 && within + length <= CELL_BYTES;
        held.push(extent);
        changes.push(extent);
        break;
      case WRITTEN_PAIR:
        isRegular &&= within === 0;
        held.push(extent);
        changes.push(extent);
        break;
      case FILLED:
        isRegular &&= length > 0;
        held.push(extent);
        break;
      case MODIFIED:
        isRegular &&= length > 0;
        changes.push(extent);
        break;
      case MAY_READ:
        isRegular &&= within === 0;
        break;
      case BARRIER:
        isRegular &&= offset === 0 && second <= BigInt(sequence);
        hasBarrier = true;
        barrier = Math.max(barrier, Number(second));
        break;
      case BASED:
        isRegular &&= offset === 0 && second === 0n;
        hasBased = true;
        break;
      default:
        isRegular &&= type === CONTINUED;
    }
  }
  const sector = (): Uint8Array => {
    const bytes = new Uint8Array(SECTOR_BYTES);
    bytes.set(frame);
    return bytes;
  };
  return { sequence, isRegular, held, changes, end, barrier, hasBarrier, hasBased, sector };
}

/** Bytes of the device that a record names. */
function lengthOf(type: number, second: bigint): number {
  if (type === WRITTEN) return Number(BigInt.asUintN(32, second));
  if (type === WRITTEN_PAIR) return 2 * CELL_BYTES;
  return type === FILLED || type === MODIFIED ? Number(second) : type === MAY_READ ? 1 : 0;
}

/** Applies what a firm frame says. */
export function applyFrame(frame: FoundFrame, state: CopyState): void {
  for (const { offset, length } of frame.held) state.apply(offset, length);
}
