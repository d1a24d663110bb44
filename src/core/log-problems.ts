/** The errors for what the core finds wrong with a log (src/wasm/problems.ts). */
import { CodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';
import * as problems from '../wasm/problems.ts';
import type { Geometry } from './geometry.ts';
import { FORMAT1_BLOCK_SIZE, FORMAT1_WRITTEN_BYTES, SECTOR_BYTES } from './layout.ts';

type Problem = (typeof problems)[keyof typeof problems];

/** What the log should be: the texts compare with it. `epoch` is missing for a log of format 1. */
interface Expected {
  readonly geometry: Geometry;
  readonly epoch?: number;
}

interface Context extends Expected {
  /** Bytes from the place of the problem to the end of its sector. */
  readonly sectorRest: number;
}

/** `found` is the value that is wrong, 0 if no single value is. */
type Describe = (at: DataView, context: Context) => { what: string; found: number };

/** The text of each problem, from the bytes at its place. `TOO_MANY_PARTS` has no place; replay.ts has its text. */
const PROBLEMS: Readonly<Record<Exclude<Problem, typeof problems.TOO_MANY_PARTS>, Describe>> = {
  [problems.UNKNOWN_TYPE]: (at) => {
    // A record of format 1 has its type in the whole first word, one of format 2 in the top byte.
    const word = u64(at, 0);
    const type = word >= 2 ** 56 ? Math.floor(word / 2 ** 56) : word;
    return { what: `unknown record type ${type}`, found: type };
  },
  [problems.BLOCK_OUTSIDE]: (at, { geometry }) => ({
    what: `block ${u64(at, 8)} is beyond the device (${geometry.blockCount} blocks)`,
    found: u64(at, 8),
  }),
  [problems.PART_OUTSIDE]: (at) => ({
    what: `part of ${u64(at, 24)} bytes at ${u64(at, 16)} exceeds its block (${FORMAT1_BLOCK_SIZE} bytes)`,
    found: u64(at, 16),
  }),
  [problems.NOT_A_FRAME]: (at) => ({
    what: `0x${at.getUint32(0, true).toString(16)} is not the beginning of a frame`,
    found: at.getUint32(0, true),
  }),
  [problems.FRAME_LENGTH]: (at, { sectorRest }) => ({
    what: `invalid frame length ${at.getUint16(0, true)}, with ${sectorRest} bytes left in the sector`,
    found: at.getUint16(0, true),
  }),
  [problems.FRAME_CHECKSUM]: () => ({ what: 'the checksum or the end mark of a frame does not match', found: 0 }),
  [problems.FRAME_EPOCH]: (at, { epoch }) => ({
    what: `frame of epoch ${at.getUint32(4, true)} in a log of epoch ${epoch}`,
    found: at.getUint32(4, true),
  }),
  [problems.FRAME_SEQUENCE]: (at) => ({
    what: `frame of sequence ${at.getUint32(8, true)} is out of order`,
    found: at.getUint32(8, true),
  }),
  [problems.FRAME_FIRM]: (at) => ({
    what: `frame of sequence ${at.getUint32(8, true)} has firm ${at.getUint32(12, true)}, above its own sequence`,
    found: at.getUint32(12, true),
  }),
  [problems.RECORD_WORDS]: (at) => ({
    what: `a record field that must be 0 is not: ${number56(at)}, ${u64(at, 8)}`,
    found: u64(at, 8),
  }),
  [problems.WRITTEN_OUTSIDE]: (at, { geometry }) => {
    const [offset, length] = [number56(at), u64(at, 8)];
    const what = `write of ${length} bytes at ${offset} is empty or beyond the device (${geometry.size} bytes)`;
    return { what, found: length };
  },
  [problems.BARRIER_AHEAD]: (at) => ({
    what: `barrier ${u64(at, 8)} is above the sequence of its own frame`,
    found: u64(at, 8),
  }),
  [problems.AFTER_CONTINUED]: () => ({ what: 'record after CONTINUED', found: 0 }),
  [problems.CHANGED]: (at) => ({
    what: `0x${at.getUint32(0, true).toString(16)} differs from the scanned bytes: the file has changed since`,
    found: at.getUint32(0, true),
  }),
};

/** The error for a problem in the piece at `pointer`, whose offset in the file is `offset`. */
export function problemOf(
  core: Core,
  piece: { kind: number; pointer: number; offset: number },
  expected: Expected,
): CodError {
  const place = core.exports.problemAt() >>> 0;
  const offset = piece.offset + place - piece.pointer;
  const at = new DataView(core.view(place, FORMAT1_WRITTEN_BYTES).slice().buffer);
  const context = { ...expected, sectorRest: SECTOR_BYTES - (offset % SECTOR_BYTES) };
  const { what, found } = PROBLEMS[piece.kind as keyof typeof PROBLEMS](at, context);
  return new CodError('COD_CORRUPT', `log at offset ${offset}: ${what}`, { details: { offset, found } });
}

/** The low 56 bits of the first word of a record of format 2. The whole word is no safe integer. */
function number56(at: DataView): number {
  return Number(BigInt.asUintN(56, at.getBigUint64(0, true)));
}

function u64(at: DataView, offset: number): number {
  return Number(at.getBigUint64(offset, true));
}
