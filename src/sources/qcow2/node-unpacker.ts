/**
 * `#unpacker` under the condition `node`: zlib of Node, several times as fast as JavaScript.
 *
 * Calls are synchronous. A cluster of 64 KiB takes 0.1 ms, and handing it to a thread takes longer (Node 20, 2026).
 */

import zlib from 'node:zlib';
import { fzstdUnpacker } from './fzstd-unpacker.ts';
import type { Compression } from './header.ts';
import { type Unpack, wrongUnpacked } from './unpacker.ts';
import { zstdFrame } from './zstd-frame.ts';

/** Node has zstd since 22.15. */
const { zstdDecompressSync } = zlib as { zstdDecompressSync?: (bytes: Uint8Array, options: object) => Uint8Array };

/** Resolves to the function for a kind of compression. */
export async function platformUnpacker(compression: Compression): Promise<Unpack> {
  if (compression === 'zlib') return inflate;
  if (zstdDecompressSync === undefined) return fzstdUnpacker();
  return (packed, length) => whole(zstdDecompressSync(zstdFrame(packed), outputOf(length)), length);
}

function inflate(packed: Uint8Array, length: number): Uint8Array {
  // The stream's end may be missing, as QEMU allows: the length alone tells that it is complete.
  const options = { ...outputOf(length), finishFlush: zlib.constants.Z_SYNC_FLUSH };
  return whole(zlib.inflateRawSync(packed, options), length);
}

function outputOf(length: number): { chunkSize: number; maxOutputLength: number } {
  return { chunkSize: length, maxOutputLength: length };
}

function whole(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length !== length) throw wrongUnpacked(bytes.length, length);
  return bytes;
}
