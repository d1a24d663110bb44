/** CRC32C (Castagnoli, reflected 0x82f63b78) by slicing-by-16: 16 tables of 256 words, computed at the start. */

const tables = memory.data(16 * 1024, 16);

export function initCrc32c(): void {
  for (let i: u32 = 0; i < 256; i++) {
    let crc = i;
    for (let bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78 & -(crc & 1));
    store<u32>(tables + (i << 2), crc);
  }
  for (let i: u32 = 256; i < 16 * 256; i++) {
    const before = load<u32>(tables + ((i - 256) << 2));
    store<u32>(tables + (i << 2), (before >> 8) ^ load<u32>(tables + ((before & 0xff) << 2)));
  }
}

// @ts-ignore: decorator
@inline
function look(table: u32, byte: u32): u32 {
  return load<u32>(tables + (table << 10) + (byte << 2));
}

// @ts-ignore: decorator
@inline
function word(table: u32, value: u32): u32 {
  return (
    look(table, value & 0xff) ^
    look(table - 1, (value >> 8) & 0xff) ^
    look(table - 2, (value >> 16) & 0xff) ^
    look(table - 3, value >> 24)
  );
}

/** The CRC of `len` bytes at `ptr`. `seed` is the CRC of the bytes before them, 0 if there are none. */
export function crc32c(ptr: usize, len: u32, seed: u32): u32 {
  let crc = ~seed;
  const end = ptr + len;
  for (const last = end - (len & 15); ptr < last; ptr += 16) {
    const low = word(15, crc ^ load<u32>(ptr)) ^ word(11, load<u32>(ptr, 4));
    crc = low ^ word(7, load<u32>(ptr, 8)) ^ word(3, load<u32>(ptr, 12));
  }
  for (; ptr < end; ptr++) crc = (crc >> 8) ^ look(0, (crc ^ load<u8>(ptr)) & 0xff);
  return ~crc;
}
