/**
 * Memory that begins on a page, as required by writes that bypass the page cache (`O_DIRECT`). In JavaScript only
 * WebAssembly's memory does. Each such memory reserves 10 GiB of address space (V8, 2026), so buffers share a few.
 *
 * Invariant: a slot has one buffer at a time, until its owner releases it.
 */

/**
 * Length of a page. Direct writes need offsets and lengths that are multiples of it, as the blocks of file systems are
 * at most this long.
 */
export const PAGE_BYTES = 4096;

const WASM_PAGE_BYTES = 65_536;

/** A memory is cut into slots of the length that direct writes prefer. Pages that were never used take no memory. */
const SLOT_BYTES = 2 ** 21;
const SLOTS = 32;
/** 128 buffers: a stream has two to four, and a copy at most eight streams. */
const MAX_MEMORIES = 4;

interface SharedMemory {
  readonly buffer: ArrayBuffer;
  /** The buffers in use. */
  readonly taken: (Uint8Array | undefined)[];
  /** The slots before this one were used, and are not zero. */
  used: number;
}

const onPages = new WeakSet<ArrayBufferLike>();
const memories: SharedMemory[] = [];

function newMemory(length: number): ArrayBuffer | undefined {
  try {
    const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(length / WASM_PAGE_BYTES) });
    onPages.add(buffer);
    return buffer as ArrayBuffer;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return undefined;
  }
}

/**
 * Returns `length` zero bytes that begin on a page. They may begin elsewhere if too many buffers are in use, or address
 * space is short. To be given back with {@link releasePages}.
 */
export function pageBuffer(length: number): Uint8Array {
  if (length > SLOT_BYTES) return ordinary(newMemory(length), length);
  let memory = memories.find(({ taken }) => taken.includes(undefined));
  if (memory === undefined && memories.length < MAX_MEMORIES) {
    const buffer = newMemory(SLOTS * SLOT_BYTES);
    if (buffer !== undefined) memories.push((memory = { buffer, taken: Array(SLOTS).fill(undefined), used: 0 }));
  }
  if (memory === undefined) return ordinary(undefined, length);
  const slot = memory.taken.indexOf(undefined);
  const bytes = new Uint8Array(memory.buffer, slot * SLOT_BYTES, length);
  if (slot < memory.used) bytes.fill(0);
  memory.used = Math.max(memory.used, slot + 1);
  memory.taken[slot] = bytes;
  return bytes;
}

function ordinary(buffer: ArrayBuffer | undefined, length: number): Uint8Array {
  return buffer === undefined ? new Uint8Array(length) : new Uint8Array(buffer, 0, length);
}

/** Gives back a buffer, which nothing reads or writes any more. Does nothing for other memory. Idempotent. */
export function releasePages(bytes: Uint8Array): void {
  const index = memories.findIndex(({ buffer }) => buffer === bytes.buffer);
  const taken = memories[index]?.taken;
  const slot = bytes.byteOffset / SLOT_BYTES;
  if (taken === undefined || taken[slot] !== bytes) return;
  taken[slot] = undefined;
  // The pages of the first memory are kept for the next stream.
  if (index > 0 && taken.every((other) => other === undefined)) memories.splice(index, 1);
}

/**
 * Returns a buffer of at most `limit` bytes for a piece of a stream.
 * @param wanted length that the consumer prefers, on pages, to be released; undefined if it has no preference
 * @param otherwise length without a preference
 */
export function pieceBuffer(wanted: number | undefined, otherwise: number, limit: number): Uint8Array {
  return wanted === undefined ? new Uint8Array(Math.min(otherwise, limit)) : pageBuffer(Math.min(wanted, limit));
}

/** Whether `bytes` consists of whole pages of a {@link pageBuffer}. */
export function areWholePages({ buffer, byteOffset, length }: Uint8Array): boolean {
  return byteOffset % PAGE_BYTES === 0 && length % PAGE_BYTES === 0 && onPages.has(buffer);
}
