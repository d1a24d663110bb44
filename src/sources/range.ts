/** The check that every source makes before it reads. */

/** Checks that `[offset, offset + length)` is inside a source of `size` bytes. @throws `RangeError` if it is not. */
export function checkRange(size: number, offset: number, length: number): void {
  if (
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset <= size - length
  )
    return;
  throw new RangeError(`${length} bytes at ${offset} are not within the source (${size} bytes)`);
}
