/**
 * Raw deflate (RFC 1951) into a buffer of known length.
 *
 * A compressed cluster is followed by bytes of the next one. `DecompressionStream` refuses such bytes, and drops what
 * it has uncompressed before.
 */

import { wrongUnpacked } from './unpacker.ts';

/** A code table: for each value of the next `bits` bits, `symbol * 16 + length of its code`. 0: no such code. */
interface Codes {
  readonly table: Uint16Array;
  readonly bits: number;
}

const LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const LENGTH_BASE = [...basesOf(LENGTH_EXTRA.slice(0, 28), 3), 258];
const DISTANCE_EXTRA = Array.from({ length: 30 }, (_, code) => Math.max(0, (code >> 1) - 1));
const DISTANCE_BASE = basesOf(DISTANCE_EXTRA, 1);

function basesOf(extra: readonly number[], first: number): number[] {
  let base = first;
  return extra.map((bits) => {
    const own = base;
    base += 1 << bits;
    return own;
  });
}

let fixed: { literals: Codes; distances: Codes } | undefined;

function fixedCodes(): { literals: Codes; distances: Codes } {
  const lengths = new Uint8Array(288).fill(8).fill(9, 144, 256).fill(7, 256, 280);
  fixed ??= { literals: codesOf(lengths), distances: codesOf(new Uint8Array(30).fill(5)) };
  return fixed;
}

/** Builds the table of a canonical Huffman code from the length of each symbol's code. */
function codesOf(lengths: Uint8Array): Codes {
  const counts = new Uint16Array(16);
  for (const length of lengths) counts[length]!++;
  counts[0] = 0;
  let bits = 15;
  while (bits > 1 && counts[bits] === 0) bits--;
  const next = new Uint32Array(17);
  for (let length = 1; length <= 15; length++) {
    next[length + 1] = (next[length]! + counts[length]!) << 1;
    if (next[length]! + counts[length]! > 1 << length) throw new Error('too many codes');
  }
  const table = new Uint16Array(1 << bits);
  for (let symbol = 0; symbol < lengths.length; symbol++) {
    const length = lengths[symbol]!;
    if (length === 0) continue;
    let reversed = 0;
    for (let code = next[length]!++, bit = 0; bit < length; bit++, code >>= 1) reversed = (reversed << 1) | (code & 1);
    for (let at = reversed; at < table.length; at += 1 << length) table[at] = (symbol << 4) | length;
  }
  return { table, bits };
}

/**
 * Returns the first `length` bytes of a raw deflate stream. What follows the stream in `packed` is ignored.
 * @throws an error if the stream is damaged, or does not have `length` bytes
 */
export function inflateRaw(packed: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length);
  const endBit = packed.length * 8;
  let filled = 0;
  let bit = 0;

  /** The next 17 bits or more. Zeros follow the input. */
  const peek = (): number =>
    (packed[bit >> 3]! | (packed[(bit >> 3) + 1]! << 8) | (packed[(bit >> 3) + 2]! << 16)) >>> (bit & 7);
  const take = (count: number): number => {
    const value = peek() & ((1 << count) - 1);
    bit += count;
    return value;
  };
  const decode = ({ table, bits }: Codes): number => {
    const entry = table[peek() & ((1 << bits) - 1)]!;
    if (entry === 0 || bit > endBit) throw new Error(bit > endBit ? 'the input is cut short' : 'no such code');
    bit += entry & 15;
    return entry >> 4;
  };

  const stored = (): void => {
    const at = ((bit + 7) >> 3) + 4;
    const count = packed[at - 4]! | (packed[at - 3]! << 8);
    if (at > packed.length || (count ^ 0xffff) !== (packed[at - 2]! | (packed[at - 1]! << 8)))
      throw new Error('a stored block contradicts its length');
    const bytes = packed.subarray(at, at + Math.min(count, length - filled));
    if (bytes.length < count && filled + bytes.length < length) throw new Error('the input is cut short');
    out.set(bytes, filled);
    filled += bytes.length;
    bit = (at + count) * 8;
  };

  const dynamicCodes = (): { literals: Codes; distances: Codes } => {
    const [literals, distances, lengths] = [take(5) + 257, take(5) + 1, take(4) + 4];
    const codeLengths = new Uint8Array(19);
    for (let index = 0; index < lengths; index++) codeLengths[LENGTH_ORDER[index]!] = take(3);
    const codes = codesOf(codeLengths);
    const all = new Uint8Array(literals + distances);
    for (let index = 0; index < all.length; ) {
      const symbol = decode(codes);
      if (symbol < 16) {
        all[index++] = symbol;
        continue;
      }
      if (symbol === 16 && index === 0) throw new Error('a code length repeats none');
      const value = symbol === 16 ? all[index - 1]! : 0;
      const count = symbol === 16 ? 3 + take(2) : symbol === 17 ? 3 + take(3) : 11 + take(7);
      if (index + count > all.length) throw new Error('too many code lengths');
      all.fill(value, index, (index += count));
    }
    return { literals: codesOf(all.subarray(0, literals)), distances: codesOf(all.subarray(literals)) };
  };

  const compressed = ({ literals, distances }: { literals: Codes; distances: Codes }): void => {
    while (filled < length) {
      const symbol = decode(literals);
      if (symbol < 256) {
        out[filled++] = symbol;
        continue;
      }
      if (symbol === 256) return;
      const code = symbol - 257;
      if (code > 28) throw new Error('no such length');
      const count = Math.min(LENGTH_BASE[code]! + take(LENGTH_EXTRA[code]!), length - filled);
      const distanceCode = decode(distances);
      if (distanceCode > 29) throw new Error('no such distance');
      let from = filled - DISTANCE_BASE[distanceCode]! - take(DISTANCE_EXTRA[distanceCode]!);
      if (from < 0) throw new Error('a distance beyond the beginning');
      for (const end = filled + count; filled < end; ) out[filled++] = out[from++]!;
    }
  };

  for (let isLast = 0; filled < length && !isLast; ) {
    isLast = take(1);
    const kind = take(2);
    if (kind === 0) stored();
    else if (kind === 1) compressed(fixedCodes());
    else if (kind === 2) compressed(dynamicCodes());
    else throw new Error('no such kind of block');
    if (bit > endBit) throw new Error('the input is cut short');
  }
  if (filled < length) throw wrongUnpacked(filled, length);
  return out;
}
