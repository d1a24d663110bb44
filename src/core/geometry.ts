/** The division of a device into blocks, and the checks of block numbers that all of src/core uses. */
import { MAX_BLOCK_SIZE, MIN_BLOCK_SIZE, SLICE_BLOCKS } from './layout.ts';

/** A device of `size` bytes in `blockCount` blocks of `blockSize` bytes. The last block may be short. */
export interface Geometry {
  readonly size: number;
  readonly blockSize: number;
  readonly blockCount: number;
}

/** The most bytes of a bitset of all blocks. roaring-wasm stops working for good at 2 GiB (measured). */
export const MAX_BITMAP_BYTES: number = 1.5 * 2 ** 30;

/**
 * The geometry of a device of `size` bytes.
 *
 * @throws {TypeError} if an option is not a number
 * @throws {RangeError} if `blockSize` is not a power of two from 4096 to 2^26, `size` is not a safe integer from 0 on,
 * or the device has too many blocks; the message then names a block size that is large enough
 */
export function geometry(options: { size: number; blockSize: number }): Geometry {
  const { size, blockSize } = options;
  if (typeof size !== 'number') throw new TypeError(`size must be a number, not ${typeof size}`);
  if (typeof blockSize !== 'number') throw new TypeError(`blockSize must be a number, not ${typeof blockSize}`);
  if (!Number.isSafeInteger(size) || size < 0)
    throw new RangeError(`size ${size} is not an integer from 0 to 2^53 - 1`);
  if (!(blockSize >= MIN_BLOCK_SIZE && blockSize <= MAX_BLOCK_SIZE) || !Number.isInteger(Math.log2(blockSize))) {
    throw new RangeError(`blockSize ${blockSize} is not a power of two from ${MIN_BLOCK_SIZE} to ${MAX_BLOCK_SIZE}`);
  }
  const blockCount = Math.ceil(size / blockSize);
  if (blockCount / 8 > MAX_BITMAP_BYTES) {
    let larger = blockSize;
    while (Math.ceil(size / larger) / 8 > MAX_BITMAP_BYTES) larger *= 2;
    const advice = larger <= MAX_BLOCK_SIZE ? `use a blockSize of at least ${larger}` : 'no blockSize is large enough';
    throw new RangeError(
      `a device of ${size} bytes has ${blockCount} blocks of ${blockSize} bytes, too many for memory: ${advice}`,
    );
  }
  return { size, blockSize, blockCount };
}

/** The number of bytes of `block`. */
export function bytesOfBlock(geometry: Geometry, block: number): number {
  return Math.min(geometry.blockSize, geometry.size - block * geometry.blockSize);
}

/** The number of slices of the maps. */
export function sliceCount({ blockCount }: Geometry): number {
  return Math.ceil(blockCount / SLICE_BLOCKS);
}

/** The number of blocks of a slice. The last slice may be short. */
export function blocksOfSlice({ blockCount }: Geometry, slice: number): number {
  return Math.min(SLICE_BLOCKS, blockCount - slice * SLICE_BLOCKS);
}

/** @throws {RangeError} if `block` is not within the device */
export function checkBlock(geometry: Geometry, block: number): void {
  if (!Number.isInteger(block) || block < 0 || block >= geometry.blockCount) {
    throw new RangeError(`block ${block} is not within the device (${geometry.blockCount} blocks)`);
  }
}

/** @throws {RangeError} if [start, end) is not a range of blocks of the device; an empty range is valid */
export function checkBlocks(geometry: Geometry, start: number, end: number): void {
  if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || start > end || end > geometry.blockCount) {
    throw new RangeError(`blocks [${start}, ${end}) are not within the device (${geometry.blockCount} blocks)`);
  }
}
