/**
 * Buffers of large replies and payloads, which all clients of a process reuse: the first touch of a new buffer costs as
 * much as filling it.
 */

/** The most bytes that are kept for later requests: four of 2 MiB in flight. */
const MAX_SPARE_BYTES = 2 ** 23;

/** A shorter buffer costs little, and is not reused. */
const LARGE_BYTES = 2 ** 17;

const spare: ArrayBuffer[] = [];
let spareBytes = 0;
/** The buffers that were taken. */
const taken = new WeakSet<ArrayBufferLike>();

/** Returns `length` arbitrary bytes. */
export function takeBuffer(length: number): Uint8Array {
  if (length < LARGE_BYTES) return new Uint8Array(unsafe(length));
  // The latest is in the processor's cache. Most clients read in one length.
  const index = spare.findLastIndex(({ byteLength }) => byteLength >= length && byteLength <= 2 * length);
  const buffer = index < 0 ? unsafe(length) : spare.splice(index, 1)[0]!;
  if (index >= 0) spareBytes -= buffer.byteLength;
  taken.add(buffer);
  return new Uint8Array(buffer, 0, length);
}

/** Memory that is not filled with zeros. */
function unsafe(length: number): ArrayBuffer {
  return Buffer.allocUnsafeSlow(length).buffer;
}

/**
 * Gives back a buffer that nothing reads or writes any more. Does nothing for other memory. A buffer that something
 * may still use is not given back: it is collected as garbage.
 */
export function giveBuffer({ buffer }: Uint8Array<ArrayBufferLike>): void {
  if (!(buffer instanceof ArrayBuffer) || !taken.delete(buffer)) return;
  spare.push(buffer);
  spareBytes += buffer.byteLength;
  // The oldest ones may have a length that no client uses any more.
  while (spareBytes > MAX_SPARE_BYTES) spareBytes -= spare.shift()!.byteLength;
}
