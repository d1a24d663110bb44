/** Whether all of `bytes` are zero. Stops at the first that is not, so that it costs nothing on ordinary data. */
export function isZero(bytes: Uint8Array): boolean {
  const { length } = bytes;
  let index = 0;
  while (index < length && (bytes.byteOffset + index) % 4 !== 0) if (bytes[index++] !== 0) return false;
  if (index === length) return true;
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + index, (length - index) >> 2);
  const whole = words.length & ~7;
  let word = 0;
  for (; word < whole; word += 8) {
    if (
      (words[word]! |
        words[word + 1]! |
        words[word + 2]! |
        words[word + 3]! |
        words[word + 4]! |
        words[word + 5]! |
        words[word + 6]! |
        words[word + 7]!) !==
      0
    )
      return false;
  }
  for (; word < words.length; word++) if (words[word] !== 0) return false;
  for (index += words.length * 4; index < length; index++) if (bytes[index] !== 0) return false;
  return true;
}

/** Zeros are counted in units of this many bytes. */
const UNIT_BYTES = 4096;

/** The number of zeros at the beginning, or at the end, of these bytes: whole units, or all of them. */
export function zeroBytes(bytes: Uint8Array, atEnd: boolean): number {
  for (let count = 0; count < bytes.length; count += UNIT_BYTES) {
    const start = atEnd ? Math.max(0, bytes.length - count - UNIT_BYTES) : count;
    if (!isZero(bytes.subarray(start, atEnd ? bytes.length - count : count + UNIT_BYTES))) return count;
  }
  return bytes.length;
}
