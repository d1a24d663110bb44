/** zstd by fzstd, where the platform has none. Loaded for images with zstd only. */

import { type Unpack, wrongUnpacked } from './unpacker.ts';
import { zstdFrame } from './zstd-frame.ts';

export async function fzstdUnpacker(): Promise<Unpack> {
  const { Decompress } = await import('fzstd');
  return (packed, length) => {
    const out = new Uint8Array(length);
    let filled = 0;
    // The one-shot function does not say how many bytes it has uncompressed.
    const decompress = new Decompress((bytes) => {
      if (bytes.length > length - filled) throw wrongUnpacked(filled + bytes.length, length);
      out.set(bytes, filled);
      filled += bytes.length;
    });
    decompress.push(zstdFrame(packed), true);
    if (filled !== length) throw wrongUnpacked(filled, length);
    return out;
  };
}
