/** What every source checks before it reads. */

/** Throws a RangeError unless `[offset, offset + length)` lies inside a source of `size` bytes. */
export function checkRange(size: number, offset: number, length: number): void {
  if (
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset <= size - length
  )
    return;
  throw new RangeError(`source: ${length} bytes at ${offset} are not inside its ${size} bytes`);
}
