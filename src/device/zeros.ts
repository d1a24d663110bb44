/** Whether all of `bytes` are zero. Stops at the first that is not, so that it costs nothing on ordinary data. */
export function isZero(bytes: Uint8Array): boolean {
  const { length } = bytes;
  let index = 0;
  while (index < length && (bytes.byteOffset + index) % 4 !== 0) if (bytes[index++] !== 0) return false;
  if (index === length) return true;
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + index, Math.floor((length - index) / 4));
  const whole = words.length - (words.length % 8);
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
