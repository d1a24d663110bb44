/** The sum of a cell as docs/FORMAT.md defines it, in plain arithmetic of 64 bits. */

const MASK = 2n ** 64n - 1n;
const PRIME = 0x9e3779b185ebca87n;

function rotated(word: bigint, bits: bigint): bigint {
  return ((word << bits) | (word >> (64n - bits))) & MASK;
}

/** @param content at most 4096 bytes */
export function slowCellSum(content: Uint8Array): number {
  const padded = new Uint8Array(Math.ceil(content.length / 32) * 32);
  padded.set(content);
  const view = new DataView(padded.buffer);
  const lanes = [1n, 2n, 3n, 4n];
  for (let at = 0; at < padded.length; at += 8) {
    const lane = (at / 8) % 4;
    lanes[lane] = rotated(((lanes[lane]! ^ view.getBigUint64(at, true)) * PRIME) & MASK, 31n);
  }
  const [a, b, c, d] = lanes as [bigint, bigint, bigint, bigint];
  const sum = (rotated(a, 1n) + rotated(b, 7n) + rotated(c, 12n) + rotated(d, 18n)) & MASK;
  return Number((sum ^ (sum >> 32n)) & 0xffff_ffffn);
}
