/**
 * The sum of a cell's content, by which a record names what the target reads as. Four lanes of 64 bits, since one lane
 * would wait for its multiplications. One multiplication for each word, since their number is the time it takes.
 *
 * Not a checksum of the format's structures: those have CRC32C.
 */
const PRIME: u64 = 0x9e3779b185ebca87;

// @ts-ignore: decorator
@inline
function mix(lane: u64, word: u64): u64 {
  return rotl<u64>((lane ^ word) * PRIME, 31);
}

/** Returns the sum of `len` bytes, a multiple of 32. */
export function cellSum(ptr: usize, len: u32): u32 {
  let a: u64 = 1;
  let b: u64 = 2;
  let c: u64 = 3;
  let d: u64 = 4;
  for (const end = ptr + len; ptr < end; ptr += 32) {
    a = mix(a, load<u64>(ptr));
    b = mix(b, load<u64>(ptr, 8));
    c = mix(c, load<u64>(ptr, 16));
    d = mix(d, load<u64>(ptr, 24));
  }
  const sum = rotl<u64>(a, 1) + rotl<u64>(b, 7) + rotl<u64>(c, 12) + rotl<u64>(d, 18);
  return <u32>(sum ^ (sum >> 32));
}
