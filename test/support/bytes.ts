/** Comparison of byte arrays in the time that a comparison takes: `toEqual` looks at each element, at some microseconds each. */

import { expect } from 'vitest';

/** Fails, naming the first byte that differs, unless both are equal. */
export function expectBytes(found: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(found, expected) === 0) return;
  expect(found.length, 'length').toBe(expected.length);
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  expect.fail(`byte ${at} is ${found[at]} instead of ${expected[at]}`);
}
