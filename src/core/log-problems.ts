/** The errors for what the core finds wrong with a log. */
import { CodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';
import * as problems from '../wasm/problems.ts';
import { FORMAT1_WRITTEN_BYTES, SECTOR_BYTES } from './layout.ts';

type Problem = (typeof problems)[keyof typeof problems];

/** The text of each problem, from the bytes at its place. The text of `TOO_MANY_PARTS` is in replay.ts: it has no place. */
const PROBLEMS: Readonly<
  Record<
    Exclude<Problem, typeof problems.TOO_MANY_PARTS>,
    (at: DataView, sectorRest: number) => { what: string; found: number }
  >
> = {
  [problems.UNKNOWN_TYPE]: (at) => {
    const word = u64(at, 0);
    const type = word >= 2 ** 56 ? Math.floor(word / 2 ** 56) : word;
    return { what: `record of unknown type ${type}`, found: type };
  },
  [problems.BLOCK_OUTSIDE]: (at) => ({
    what: `record of block ${u64(at, 8)}, which the device has not`,
    found: u64(at, 8),
  }),
  [problems.PART_OUTSIDE]: (at) => ({
    what: `part of ${u64(at, 24)} bytes from ${u64(at, 16)}, which is outside its block`,
    found: u64(at, 16),
  }),
  [problems.NOT_A_FRAME]: (at) => ({
    what: `0x${at.getUint32(0, true).toString(16)} is neither a frame nor the beginning of one`,
    found: at.getUint32(0, true),
  }),
  [problems.FRAME_LENGTH]: (at, rest) => ({
    what: `frame of ${at.getUint16(0, true)} bytes, ${rest} before the end of its sector`,
    found: at.getUint16(0, true),
  }),
  [problems.FRAME_CHECKSUM]: () => ({ what: 'frame whose checksum or end does not match', found: 0 }),
  [problems.FRAME_EPOCH]: (at) => ({
    what: `frame of epoch ${at.getUint32(4, true)}, which is another log's`,
    found: at.getUint32(4, true),
  }),
  [problems.FRAME_SEQUENCE]: (at) => ({
    what: `frame of sequence ${at.getUint32(8, true)}, which is not its place`,
    found: at.getUint32(8, true),
  }),
  [problems.FRAME_FIRM]: (at) => ({
    what: `frame of sequence ${at.getUint32(8, true)} that calls ${at.getUint32(12, true)} durable`,
    found: at.getUint32(12, true),
  }),
  [problems.RECORD_WORDS]: (at) => ({
    what: `record with a number that its type has not: ${u64(at, 8)}`,
    found: u64(at, 8),
  }),
  [problems.WRITTEN_OUTSIDE]: (at) => ({
    what: `record of ${u64(at, 8)} bytes from ${u64(at, 0) % 2 ** 56}, which are not all of the device`,
    found: u64(at, 8),
  }),
  [problems.BARRIER_AHEAD]: (at) => ({
    what: `barrier of sequence ${u64(at, 8)} in a frame that is no later`,
    found: u64(at, 8),
  }),
  [problems.AFTER_CONTINUED]: () => ({ what: 'something after CONTINUED', found: 0 }),
  [problems.CHANGED]: (at) => ({
    what: `0x${at.getUint32(0, true).toString(16)} is not what was scanned`,
    found: at.getUint32(0, true),
  }),
};

/** The error for a problem in the piece at `pointer`, whose offset in the file is `offset`. */
export function problemOf(core: Core, piece: { kind: number; pointer: number; offset: number }): CodError {
  const place = core.exports.problemAt() >>> 0;
  const offset = piece.offset + place - piece.pointer;
  const at = new DataView(core.view(place, FORMAT1_WRITTEN_BYTES).slice().buffer);
  const { what, found } = PROBLEMS[piece.kind as keyof typeof PROBLEMS](at, SECTOR_BYTES - (offset % SECTOR_BYTES));
  return new CodError('COD_CORRUPT', `log at offset ${offset}: ${what}`, { details: { offset, found } });
}

function u64(at: DataView, offset: number): number {
  return Number(at.getBigUint64(offset, true));
}
