/**
 * Memory that begins on a page, as required by writes that bypass the page cache (`O_DIRECT`). In JavaScript only
 * WebAssembly's memory does.
 */

/**
 * Length of a page. Direct writes need offsets and lengths that are multiples of it, as the blocks of file systems are
 * at most this long.
 */
export const PAGE_BYTES = 4096;

const WASM_PAGE_BYTES = 65_536;

const onPages = new WeakSet<ArrayBufferLike>();

/**
 * Returns `length` zero bytes that begin on a page. They may begin elsewhere if address space is short: each such
 * memory reserves gigabytes of it.
 */
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

/**
 * Returns a buffer of at most `limit` bytes for a piece of a stream.
 * @param wanted length that the consumer prefers, on pages; undefined if it has no preference
 * @param otherwise length without a preference
 */
export function pieceBuffer(wanted: number | undefined, otherwise: number, limit: number): Uint8Array {
  return wanted === undefined ? new Uint8Array(Math.min(otherwise, limit)) : pageBuffer(Math.min(wanted, limit));
}

/** Whether `bytes` consists of whole pages of a {@link pageBuffer}. */
export function areWholePages({ buffer, byteOffset, length }: Uint8Array): boolean {
  return byteOffset % PAGE_BYTES === 0 && length % PAGE_BYTES === 0 && onPages.has(buffer);
}
