/** How a platform uncompresses clusters: the interface of `#unpacker`. */

import type { Packing } from './segment.ts';

/** Uncompresses the beginning of `packed`. @throws an error if that is not `length` bytes */
export type Unpack = Packing['unpack'];

export function wrongUnpacked(found: number, length: number): Error {
  return new Error(`${found} bytes instead of ${length}`);
}
