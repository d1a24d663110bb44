/** The only buffer for results. A result is valid until the next call that writes to the buffer. */
import { alloc, free } from './memory';

let data: usize = 0;
let capacity: usize = 0;
let start: usize = 0;

/** Returns room for `bytes`, and drops the last result. The result begins there unless {@link outputFrom} is called. */
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

/** The address of the last result. */
export function output(): usize {
  return start;
}
