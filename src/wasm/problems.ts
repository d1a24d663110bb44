/**
 * What can be wrong with a log, by number. AssemblyScript compiles this file too, so that both sides use the same
 * numbers; a constant is a literal without a type for that reason. src/core/log-problems.ts has the texts.
 */

export const UNKNOWN_TYPE = 1;
export const BLOCK_OUTSIDE = 2;
export const PART_OUTSIDE = 3;
export const NOT_A_FRAME = 4;
export const FRAME_LENGTH = 5;
export const FRAME_CHECKSUM = 6;
export const FRAME_EPOCH = 7;
export const FRAME_SEQUENCE = 8;
export const FRAME_FIRM = 9;
export const RECORD_WORDS = 10;
export const WRITTEN_OUTSIDE = 11;
export const BARRIER_AHEAD = 12;
export const AFTER_CONTINUED = 13;
export const CHANGED = 14;
export const TOO_MANY_PARTS = 15;
