/** Where the problem with a log is. src/wasm/problems.ts has the problems; src/ reads the bytes there, and makes a text of them. */

let place: usize = 0;

/** Notes where the record or frame stands that is looked at. */
export function lookAt(at: usize): void {
  place = at;
}

/** The address of what was looked at last: of the problem, if there is one. */
export function problemAt(): usize {
  return place;
}
