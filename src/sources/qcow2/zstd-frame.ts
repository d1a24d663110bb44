/** The end of a zstd frame (RFC 8878), since bytes of the next cluster follow it. */

/** A decoder should support windows of 8 MiB (RFC 8878, section 3.1.1.1.2). Larger ones would cost memory. */
const MAX_WINDOW_BYTES = 2 ** 23;

/**
 * Returns the frame that `packed` begins with.
 * @throws an error if that is not one whole frame, or its decoder would need more memory than 8 MiB
 */
export function zstdFrame(packed: Uint8Array): Uint8Array {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  if (packed.length < 6 || view.getUint32(0, true) !== 0xfd2f_b528) throw new Error('no zstd frame');
  const descriptor = packed[4]!;
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const sizeAt = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  let at = sizeAt + sizeBytes;
  if (at > packed.length) throw new Error('the frame is cut short');
  const windowBytes = isSingleSegment ? numberAt(packed, sizeAt, sizeBytes) : windowOf(packed[5]!);
  if (windowBytes > MAX_WINDOW_BYTES) throw new Error(`the frame needs a window of ${windowBytes} bytes`);
  for (let isLast = 0; !isLast; ) {
    if (at + 3 > packed.length) throw new Error('the frame is cut short');
    const header = packed[at]! | (packed[at + 1]! << 8) | (packed[at + 2]! << 16);
    isLast = header & 1;
    const isRepeated = ((header >> 1) & 3) === 1;
    at += 3 + (isRepeated ? 1 : header >> 3);
  }
  if ((descriptor & 4) !== 0) at += 4;
  if (at > packed.length) throw new Error('the frame is cut short');
  return packed.subarray(0, at);
}

function windowOf(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

function numberAt(bytes: Uint8Array, at: number, length: number): number {
  let value = length === 2 ? 256 : 0;
  for (let index = 0; index < length; index++) value += bytes[at + index]! * 256 ** index;
  return value;
}
