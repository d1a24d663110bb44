/** The image that the tests in the browser copy. */

import { seededRandom } from '../../src/testing/random.ts';

/** Not a multiple of a block. */
export const IMAGE_BYTES: number = 3 * 2 ** 20 + 700;

export function imageBytes(): Uint8Array<ArrayBuffer> {
  return seededRandom(4).fill(new Uint8Array(IMAGE_BYTES)) as Uint8Array<ArrayBuffer>;
}
