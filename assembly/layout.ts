/**
 * The constants of src/core/layout.ts that the core needs, as unsigned integers. A constant that only the core needs
 * follows them.
 */
import * as shared from '../src/core/layout';

export const SECTOR_BYTES: u32 = shared.SECTOR_BYTES;
export const FORMAT1_BLOCK_SIZE: u64 = shared.FORMAT1_BLOCK_SIZE;

/** Containers of one slice. */
export const SLICE_CONTAINERS: u32 = shared.SLICE_BLOCKS / shared.CONTAINER_BLOCKS;

export const ROARING_COOKIE: u32 = shared.ROARING_COOKIE;
export const ROARING_COOKIE_WITHOUT_RUNS: u32 = shared.ROARING_COOKIE_WITHOUT_RUNS;
export const ROARING_OFFSETS_FROM: u32 = shared.ROARING_OFFSETS_FROM;
export const ROARING_ARRAY_LIMIT: u32 = shared.ROARING_ARRAY_LIMIT;
export const ROARING_BITSET_BYTES: u32 = shared.ROARING_BITSET_BYTES;

export const FRAME_BYTES: u32 = shared.FRAME_BYTES;
export const FRAME_HEADER_BYTES: u32 = shared.FRAME_HEADER_BYTES;
export const FRAME_TRAILER_BYTES: u32 = FRAME_BYTES - FRAME_HEADER_BYTES;
export const RECORD_BYTES: u32 = shared.RECORD_BYTES;
/** Records of a frame that fills its sector. */
export const SECTOR_RECORDS: u32 = (SECTOR_BYTES - FRAME_BYTES) / RECORD_BYTES;
export const SHORTEST_FRAME: u32 = FRAME_BYTES + RECORD_BYTES;
/** The last four bytes of a frame. */
export const FRAME_END: u32 = 0x21646e65; // end!

export const WRITTEN: u32 = shared.WRITTEN;
export const BARRIER: u32 = shared.BARRIER;
export const CONTINUED: u32 = shared.CONTINUED;
export const BASED: u32 = shared.BASED;
export const FILLED: u32 = shared.FILLED;
export const WRITTEN_PAIR: u32 = shared.WRITTEN_PAIR;
export const MODIFIED: u32 = shared.MODIFIED;
export const CELL_BYTES: u32 = shared.CELL_BYTES;
/** Where the type stands in the first word of a record; the bits below it are a number. */
export const TYPE_SHIFT: u64 = 56;
export const NUMBER_MASK: u64 = (1 << TYPE_SHIFT) - 1;

export const FORMAT1_SYNCED_BYTES: u32 = shared.FORMAT1_SYNCED_BYTES;
export const FORMAT1_WRITTEN_BYTES: u32 = shared.FORMAT1_WRITTEN_BYTES;

export const BATCH_RECORDS: u32 = shared.BATCH_RECORDS;
export const MAX_BLOCK_PARTS: u32 = shared.MAX_BLOCK_PARTS;
