/** The place of a problem with a log. src/wasm/problems.ts has the numbers, src/core/log-problems.ts the texts. */

let place: usize = 0;

/** Notes the address of the record or frame that is checked next. */
export function lookAt(at: usize): void {
  place = at;
}

/** The address that was noted last: the place of the problem, if there is one. */
export function problemAt(): usize {
  return place;
}
