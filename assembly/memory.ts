/**
 * All memory of the module: power-of-two blocks from sixteen bytes on, each size with its own free list, the rest
 * bumped from the end. Nothing is moved or joined, so an owner that doubles wastes at most as much as it uses.
 *
 * Invariants: a block is given back with the size it was asked for (or any size of the same power of two); fresh and
 * recycled blocks alike hold anything. A request past the limit, or one that the engine refuses, traps with
 * `failure` set: the instance is then unusable, by contract.
 */
import { FAILED_GROW, FAILED_LIMIT, FAILED_NOTHING } from '../src/wasm/codes';

const SMALLEST: u32 = 4;
const freeLists = memory.data(32 * 4, 16);

let top: usize = (__heap_base + 15) & ~15;
let limit: usize = 1 << 30;
let failure: i32 = FAILED_NOTHING;

/** Why the instance trapped; FAILED_NOTHING for a plain trap. */
export function failureCode(): i32 {
  return failure;
}

/** Fixes how far the memory may grow, in bytes. */
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
  // Small blocks never straddle a cache line more than they must; chunks of 256 bytes rely on their alignment.
  const align: usize = min<usize>(<usize>1 << index, 256) - 1;
  const block = (top + align) & ~align;
  const end = <u64>block + (<u64>1 << index);
  if (end > <u64>limit) fail(FAILED_LIMIT);
  const present = <u64>memory.size() << 16;
  if (end > present) {
    // Untouched pages cost nothing, so growing is generous: views must be renewed after each.
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

/** Memory of zeros. */
export function zeroed(size: usize): usize {
  const block = alloc(size);
  memory.fill(block, 0, size);
  return block;
}

function fail(code: i32): void {
  failure = code;
  unreachable();
}
