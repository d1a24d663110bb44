/** Fast comparison of byte arrays: `toEqual` takes some microseconds per element. */

import { expect } from 'vitest';

/** Fails if the arrays differ, and names the first different byte. */
export function expectBytes(found: Uint8Array, expected: Uint8Array): void {
  // A page has no Buffer.
  if ('Buffer' in globalThis && Buffer.compare(found, expected) === 0) return;
  expect(found.length, 'length').toBe(expected.length);
  let at = 0;
  while (at < found.length && found[at] === expected[at]) at++;
  if (at === found.length) return;
  expect.fail(`byte ${at} is ${found[at]} instead of ${expected[at]}`);
}
