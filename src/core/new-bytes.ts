/** Memory whose length depends on the data. */

import { outOfMemory } from '../errors.ts';

/**
 * Returns `length` zero bytes.
 *
 * @throws {@link CodError} COD_NO_MEMORY
 */
export function newBytes(length: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(length);
  } catch (error) {
    throw outOfMemory(`${length} bytes`, error);
  }
}
