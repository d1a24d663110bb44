/**
 * Bounded access to the bytes of an image, which may be damaged or malicious.
 *
 * - No read goes beyond the image.
 * - No value in the image makes an allocation exceed a fixed limit.
 * - Every loop over structures of the image ends.
 */

/** Bytes that can be read at any offset. A read beyond `size` rejects with a {@link VolumeError}. */
export interface Bytes {
  readonly size: number;
  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
}

/** The image is damaged or not supported. The page shows the message to the user. */
export class VolumeError extends Error {
  override readonly name = 'VolumeError';
}

/** The longest single read, in bytes. */
export const MAX_READ_BYTES: number = 2 ** 24;

export function checkRange(bytes: Bytes, offset: number, length: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!whole || length > MAX_READ_BYTES || offset > bytes.size - length) {
    throw new VolumeError(`the image refers to ${length} bytes at ${offset}, beyond its ${bytes.size} bytes`);
  }
}

/** Returns bytes [start, start + size) of `whole`, cut at the end of `whole`. */
export function partOf(whole: Bytes, start: number, size: number): Bytes {
  const part: Bytes = {
    size: Math.max(0, Math.min(size, whole.size - start)),
    read: async (offset, length, signal) => {
      checkRange(part, offset, length);
      return whole.read(start + offset, length, signal);
    },
  };
  return part;
}

const PAGE_BYTES = 4096;
const MAX_PAGES = 1024;

/** Caches pages: at most 4 MiB, least recently read first out. Tables are read a few bytes at a time. */
export function remembered(bytes: Bytes): Bytes {
  const pages = new Map<number, Promise<Uint8Array>>();
  const page = (index: number, signal: AbortSignal | undefined): Promise<Uint8Array> => {
    let found = pages.get(index);
    if (found === undefined) {
      const at = index * PAGE_BYTES;
      found = bytes.read(at, Math.min(PAGE_BYTES, bytes.size - at), signal);
      found.catch(() => pages.delete(index));
      if (pages.size >= MAX_PAGES) pages.delete(pages.keys().next().value!);
    } else pages.delete(index);
    pages.set(index, found);
    return found;
  };
  const cached: Bytes = {
    size: bytes.size,
    read: async (offset, length, signal) => {
      checkRange(cached, offset, length);
      if (length > 4 * PAGE_BYTES) return bytes.read(offset, length, signal);
      const result = new Uint8Array(length);
      for (let done = 0; done < length; ) {
        const index = Math.floor((offset + done) / PAGE_BYTES);
        const from = offset + done - index * PAGE_BYTES;
        const piece = (await page(index, signal)).subarray(from, from + length - done);
        result.set(piece, done);
        done += piece.length;
      }
      return result;
    },
  };
  return cached;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Reads a little-endian u64.
 * @throws {@link VolumeError} when the value is not a safe integer.
 */
export function u64(view: DataView, at: number): number {
  const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
  if (!Number.isSafeInteger(value)) throw new VolumeError(`the image contains the number ${value}, beyond 2^53 - 1`);
  return value;
}

/** Decodes text up to the first NUL. */
export function text(bytes: Uint8Array, encoding = 'utf-8'): string {
  const end = bytes.indexOf(0);
  return new TextDecoder(encoding).decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Decodes UTF-16, little-endian, with its NULs. Unpaired surrogates stay, because names may have them. */
export function utf16(bytes: Uint8Array): string {
  const view = viewOf(bytes);
  return Array.from({ length: bytes.length >> 1 }, (_, index) =>
    String.fromCharCode(view.getUint16(index * 2, true)),
  ).join('');
}
