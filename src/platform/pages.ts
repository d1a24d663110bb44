/** Memory that begins on a page: what a file system takes that moves bytes past the page cache (`O_DIRECT`), and the only kind in JavaScript is WebAssembly's. */

/** Of memory, and what such a file system wants offsets and lengths to be multiples of; its blocks are as long at most. */
export const PAGE_BYTES = 4096;

const WASM_PAGE_BYTES = 65_536;

const onPages = new WeakSet<ArrayBufferLike>();

/** `length` bytes of zeros that begin on a page; or not, where address space is short: each such memory reserves gigabytes of it. */
export function pageBuffer(length: number): Uint8Array {
  try {
    const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(length / WASM_PAGE_BYTES) });
    onPages.add(buffer);
    return new Uint8Array(buffer, 0, length);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return new Uint8Array(length);
  }
}

/** Room for a piece of a stream whose consumer would like `wanted` bytes on pages, or does not care. */
export function pieceBuffer(wanted: number | undefined, otherwise: number, limit: number): Uint8Array {
  return wanted === undefined ? new Uint8Array(Math.min(otherwise, limit)) : pageBuffer(Math.min(wanted, limit));
}

/** Whether `bytes` are whole pages of a {@link pageBuffer}. */
export function areWholePages({ buffer, byteOffset, length }: Uint8Array): boolean {
  return byteOffset % PAGE_BYTES === 0 && length % PAGE_BYTES === 0 && onPages.has(buffer);
}
