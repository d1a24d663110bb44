/** Node's `memcmp`, which is seven times as fast as a loop over words (Node 20, x64, 2026). Browsers have none. */
const compare = (globalThis as { Buffer?: { compare?(one: Uint8Array, other: Uint8Array): number } }).Buffer?.compare;
/** How far bytes are from those that they are compared with: their first this many must be zero. */
const SHIFT = 64;

/** Whether all of `bytes` are zero. Stops at the first that is not, so that it costs nothing on ordinary data. */
export function isZero(bytes: Uint8Array): boolean {
  const { length } = bytes;
  // Before a call into the system's code, which costs more than most answers.
  if (length === 0 || bytes[0] !== 0) return length === 0;
  return compare === undefined || length < 256 ? areWordsZero(bytes) : areEqual(bytes, compare);
}

/** Compares bytes with their neighbours, which takes half the memory that comparing with zeros would. */
function areEqual(bytes: Uint8Array, compare: (one: Uint8Array, other: Uint8Array) => number): boolean {
  return areWordsZero(bytes.subarray(0, SHIFT)) && compare(bytes.subarray(SHIFT), bytes.subarray(0, -SHIFT)) === 0;
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
