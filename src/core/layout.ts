/**
 * Constants of both formats (docs/FORMAT.md) and of the portable Roaring format, each defined here only.
 *
 * assembly/layout.ts compiles this file too. So a constant is one literal without a type: AssemblyScript reads `number`
 * as f64, and takes `2 ** 32` for a call of `pow`.
 */

/** The unit that a disk writes atomically. A frame never crosses a sector. */
export const SECTOR_BYTES = 512;

/** The newest version that this package reads, and the version that it writes. */
export const FORMAT_VERSION = 2;
/** Bytes of a header of format 2: one sector. */
export const HEADER_BYTES = 512;
/** Bytes of a header of format 1: magic and version. */
export const FORMAT1_HEADER_BYTES = 16;

/** Bytes of the smallest block: one page. */
export const MIN_BLOCK_SIZE = 4096;
/** Bytes of the largest block: 2^26. */
export const MAX_BLOCK_SIZE = 0x400_0000;
/** Bytes of each block of format 1. */
export const FORMAT1_BLOCK_SIZE = 4096;

/** Blocks of one container of a bitmap: 2^16. */
export const CONTAINER_BLOCKS = 0x1_0000;
/** Blocks of one slice of the maps: 2^24, so that no step of a checkpoint holds the event loop for long. */
export const SLICE_BLOCKS = 0x100_0000;
/** Blocks of one bitmap of format 1: 2^32 - 1. */
export const FORMAT1_SHARD_BLOCKS = 0xffff_ffff;

/** The first cookie of a bitmap with runs, in the low 16 bits; the high 16 bits are the number of containers - 1. */
export const ROARING_COOKIE = 12347;
/** The cookie of a bitmap without runs. */
export const ROARING_COOKIE_WITHOUT_RUNS = 12346;
/** The most containers of a bitmap: 2^16, one for each value of the high 16 bits. */
export const ROARING_MAX_CONTAINERS = 0x1_0000;
/** A bitmap with runs has a list of offsets from this number of containers on. */
export const ROARING_OFFSETS_FROM = 4;
/** The most values of an array; a container of more values is a bitset or runs. */
export const ROARING_ARRAY_LIMIT = 4096;
/** Bytes of a container that is a bitset. */
export const ROARING_BITSET_BYTES = 8192;

/** The size of a log is a multiple of this. */
export const LOG_UNIT_BYTES = 4096;
/** Bytes of the longest log: 2^28. A reader allocates what a header says, so a larger number is refused. */
export const MAX_LOG_BYTES = 0x1000_0000;
/** Bytes of a frame without its records: 16 before them, 8 behind them. */
export const FRAME_BYTES = 24;
/** Bytes of a frame before its records. */
export const FRAME_HEADER_BYTES = 16;
/** Bytes of a record of format 2. */
export const RECORD_BYTES = 16;
/** Bytes of a record of format 1 that says that a block is synced. */
export const FORMAT1_SYNCED_BYTES = 16;
/** Bytes of a record of format 1 that says that a part of a block was written: the longest record. */
export const FORMAT1_WRITTEN_BYTES = 32;

/** Bytes of a cell: the unit of the target whose content a record names by a sum. */
export const CELL_BYTES = 4096;

/** Bytes of the units of the target in which a closed copy knows what is zero. */
export const REST_UNIT_BYTES = 0x1_0000;

/** The types of a record of format 2. */
export const WRITTEN = 1;
export const BARRIER = 2;
export const CONTINUED = 3;
export const BASED = 4;
export const MAY_READ = 5;
export const WRITTEN_PAIR = 6;
/** From here on the second word is a number of bytes. */
export const FILLED = 7;
export const MODIFIED = 8;

/** The most records of one batch of the encoder that are no marks; marks fit besides. */
export const BATCH_RECORDS = 16_384;

/** The most parts of one dirty block: 2^16. Each addition moves the parts behind it. */
export const MAX_BLOCK_PARTS = 0x1_0000;
/** Bytes of the dirty sections of all slices, at most: 2^28, four times what a device keeps. */
export const MAX_DIRTY_BYTES = 0x1000_0000;
/** Bytes of a slice's entry in the directory of a checkpoint. */
export const DIRECTORY_ENTRY_BYTES = 40;
/** Bytes of the longest identity of a source. A longer text would be the content and not a name. */
export const MAX_IDENTITY_BYTES = 65_536;
/** Bytes of the longest checkpoint without any block: header, {@link MAX_IDENTITY_BYTES}, and entries of 768 slices. */
export const MAX_EMPTY_CHECKPOINT_BYTES = 96_768;
/** The highest epoch: 2^52, so that the epochs after it are safe integers. */
export const MAX_EPOCH = 0x10_0000_0000_0000;

/** `length`, rounded up to a multiple of 8, as the identity and each bitmap in a checkpoint are. */
export function padded(length: number): number {
  return Math.ceil(length / 8) * 8;
}
