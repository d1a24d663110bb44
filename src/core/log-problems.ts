/** The errors for what the core finds wrong with a log (src/wasm/problems.ts). */
import { CodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';
import * as problems from '../wasm/problems.ts';
import type { Geometry } from './geometry.ts';
import { FORMAT1_BLOCK_SIZE, FORMAT1_WRITTEN_BYTES } from './layout.ts';

type Problem = (typeof problems)[keyof typeof problems];

/** What the log should be: the texts compare with it. */
interface Expected {
  readonly geometry: Geometry;
}

/** `found` is the value that is wrong, 0 if no single value is. */
type Describe = (at: DataView, context: Expected) => { what: string; found: number };

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
  [problems.RECORD_WORDS]: (at) => ({
    what: `a record field that must be 0 is not: ${number56(at)}, ${u64(at, 8)}`,
    found: u64(at, 8),
  }),
  [problems.WRITTEN_OUTSIDE]: (at, { geometry }) => {
    const offset = number56(at);
    const place = `record of type ${at.getUint8(7)} at byte ${offset}`;
    return { what: `${place} leaves its cell or the device (${geometry.size} bytes)`, found: offset };
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
  const { what, found } = PROBLEMS[piece.kind as keyof typeof PROBLEMS](at, expected);
  return new CodError('COD_CORRUPT', `log at offset ${offset}: ${what}`, { details: { offset, found } });
}

/** The low 56 bits of the first word of a record of format 2. The whole word is no safe integer. */
function number56(at: DataView): number {
  return Number(BigInt.asUintN(56, at.getBigUint64(0, true)));
}

function u64(at: DataView, offset: number): number {
  return Number(at.getBigUint64(offset, true));
}
