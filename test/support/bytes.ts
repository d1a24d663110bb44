/** Comparison of byte arrays in the time that a comparison takes: `toEqual` looks at each element, at some microseconds each. */

import { expect } from 'vitest';

/** Fails, naming the first byte that differs, unless both are equal. */
export function expectBytes(found: Uint8Array, expected: Uint8Array): void {
  expect(found.length, 'length').toBe(expected.length);
  let at = 0;
  while (at < found.length && found[at] === expected[at]) at++;
  if (at === found.length) return;
  expect.fail(`byte ${at} is ${found[at]} instead of ${expected[at]}`);
}
