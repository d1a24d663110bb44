/**
 * The allocator of the module: blocks whose sizes are powers of two from 16 bytes on, with one free list for each size.
 * New blocks are cut from the end of the memory. Blocks are never moved or joined, so an owner that doubles its block
 * wastes at most as much as it uses.
 *
 * Invariants:
 * - A block is freed with the size of its allocation, or with another size of the same power of two.
 * - The content of a new or recycled block is undefined.
 * - A request that the limit or the engine refuses sets `failure` and traps. The instance is unusable then.
 */
import { FAILED_GROW, FAILED_LIMIT, FAILED_NOTHING } from '../src/wasm/codes';

const SMALLEST: u32 = 4;
const freeLists = memory.data(32 * 4, 16);

let top: usize = (__heap_base + 15) & ~15;
let limit: usize = 1 << 30;
let failure: i32 = FAILED_NOTHING;

/** The reason why the instance trapped; FAILED_NOTHING for a plain trap. */
export function failureCode(): i32 {
  return failure;
}

/** Whether blocks of so many bytes can be cut from the end of the memory without a failure at the limit. */
export function hasRoom(bytes: u32): bool {
  return <u64>top + bytes <= <u64>limit;
}

/** Sets the size in bytes up to which the memory may grow. */
export function setLimit(bytes: u32): void {
  limit = bytes;
}

// @ts-ignore: decorator
@inline
function sizeClass(size: usize): u32 {
  return size <= 1 << SMALLEST ? SMALLEST : 32 - clz<u32>(<u32>size - 1);
}

export function alloc(size: usize): usize {
  if (size > 1 << 30) fail(FAILED_LIMIT);
  const index = sizeClass(size);
  const head = freeLists + (index << 2);
  const recycled = load<usize>(head);
  if (recycled) {
    store<usize>(head, load<usize>(recycled));
    return recycled;
  }
  // Aligned small blocks span as few cache lines as possible. Chunks of 256 bytes rely on their alignment.
  const align: usize = min<usize>(<usize>1 << index, 256) - 1;
  const block = (top + align) & ~align;
  const end = <u64>block + (<u64>1 << index);
  if (end > <u64>limit) fail(FAILED_LIMIT);
  const present = <u64>memory.size() << 16;
  if (end > present) {
    // The memory grows by a quarter, since untouched pages are free and src/ must renew its views after each growth.
    const wanted = max(end, min(present + (present >> 2), <u64>limit));
    if (memory.grow(<i32>((wanted - present + 0xffff) >> 16)) < 0) fail(FAILED_GROW);
  }
  top = <usize>end;
  return block;
}

export function free(block: usize, size: usize): void {
  const head = freeLists + (sizeClass(size) << 2);
  store<usize>(block, load<usize>(head));
  store<usize>(head, block);
}

/** Allocates zeroed memory. */
export function zeroed(size: usize): usize {
  const block = alloc(size);
  memory.fill(block, 0, size);
  return block;
}

function fail(code: i32): void {
  failure = code;
  unreachable();
}
