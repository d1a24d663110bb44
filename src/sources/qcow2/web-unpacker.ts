/** `#unpacker` in browsers, and wherever the condition `node` is not set. */

import { fzstdUnpacker } from './fzstd-unpacker.ts';
import type { Compression } from './header.ts';
import { inflateRaw } from './inflate.ts';
import type { Unpack } from './unpacker.ts';

/** Resolves to the function for a kind of compression. */
export async function platformUnpacker(compression: Compression): Promise<Unpack> {
  return compression === 'zlib' ? inflateRaw : fzstdUnpacker();
}
