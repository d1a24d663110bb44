/**
 * Other numbers that the core returns. AssemblyScript compiles this file too, so that both sides use the same numbers;
 * a constant is a literal without a type for that reason.
 */

/** Why the instance trapped: a plain trap, the memory limit, or an engine that refused more memory. */
export const FAILED_NOTHING = 0;
export const FAILED_LIMIT = 1;
export const FAILED_GROW = 2;

/** What became of a part: added, added and the whole block is covered, or refused because a limit would be passed. */
export const DIRTY = 0;
export const COMPLETE = 1;
export const LIMIT = 2;

/** In the last word of a slot of the dirty map: the parts are in a list, and the other bits are their number. */
export const LISTED = 0x8000_0000;

/** A call has ended one of its steps: call again. No problem has this number. */
export const MORE = -1;
