/** What can be wrong with a log, by number, and where. The other side reads what stands there, and makes words of it. */

export const UNKNOWN_TYPE: i32 = 1;
export const BLOCK_OUTSIDE: i32 = 2;
export const PART_OUTSIDE: i32 = 3;
export const NOT_A_FRAME: i32 = 4;
export const FRAME_LENGTH: i32 = 5;
export const FRAME_CHECKSUM: i32 = 6;
export const FRAME_EPOCH: i32 = 7;
export const FRAME_SEQUENCE: i32 = 8;
export const FRAME_FIRM: i32 = 9;
export const RECORD_WORDS: i32 = 10;
export const WRITTEN_OUTSIDE: i32 = 11;
export const BARRIER_AHEAD: i32 = 12;
export const AFTER_CONTINUED: i32 = 13;
export const CHANGED: i32 = 14;
export const TOO_MANY_PARTS: i32 = 15;

let place: usize = 0;

/** Notes where the record or frame stands that is looked at. */
export function lookAt(at: usize): void {
  place = at;
}

/** The address of what was looked at last: of the problem, if there is one. */
export function problemAt(): usize {
  return place;
}
