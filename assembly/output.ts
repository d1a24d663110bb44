/** The one buffer in which results leave the module. What is in it lasts until the next call that writes to it. */
import { alloc, free } from './memory';

let data: usize = 0;
let capacity: usize = 0;
let start: usize = 0;

/** Room for `bytes`; what was there is lost. Results begin there unless {@link outputFrom} says otherwise. */
export function reserve(bytes: usize): usize {
  if (capacity < bytes) {
    if (capacity) free(data, capacity);
    capacity = 0;
    data = alloc(bytes);
    capacity = bytes;
  }
  return (start = data);
}

export function outputFrom(at: usize): void {
  start = at;
}

/** Where the last result begins. */
export function output(): usize {
  return start;
}
