/**
 * What can be wrong with a log, by number. AssemblyScript compiles this file too, so that both sides use the same
 * numbers; a constant is a literal without a type for that reason. src/core/log-problems.ts has the texts.
 */

export const UNKNOWN_TYPE = 1;
export const BLOCK_OUTSIDE = 2;
export const PART_OUTSIDE = 3;
export const RECORD_WORDS = 4;
export const WRITTEN_OUTSIDE = 5;
export const BARRIER_AHEAD = 6;
export const AFTER_CONTINUED = 7;
export const CHANGED = 8;
export const TOO_MANY_PARTS = 9;
