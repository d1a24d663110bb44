/** Assertions of the published suites, which therefore need no test runner. */

import { type CodErrorCode, isCodError } from '../errors.ts';

/** Throws unless `condition` holds; `message` says what was expected. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

/** Throws unless both are the same by `Object.is`. */
export function assertEqual<T>(actual: T, expected: T, what: string): void {
  assert(Object.is(actual, expected), `${what}: ${String(actual)}, not ${String(expected)}`);
}

/** Throws unless both have the same length and bytes. The message names the first difference. */
export function assertBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assertEqual(actual.length, expected.length, `${what}: length`);
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  assert(at === -1, `${what}: byte ${at} of ${expected.length} is ${actual[at]}, not ${expected[at]}`);
}

/** Throws unless `promise` rejects with a `CodError` of this code. */
export async function assertCode(promise: Promise<unknown>, code: CodErrorCode, what: string): Promise<void> {
  const error = await rejection(promise, what);
  assert(isCodError(error, code), `${what}: rejected with ${String(error)}, not with ${code}`);
}

/** Throws unless `promise` rejects with a `RangeError`. */
export async function assertRangeError(promise: Promise<unknown>, what: string): Promise<void> {
  const error = await rejection(promise, what);
  assert(error instanceof RangeError, `${what}: rejected with ${String(error)}, not with a RangeError`);
}

async function rejection(promise: Promise<unknown>, what: string): Promise<unknown> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  assert(outcome !== undefined, `${what}: resolved, but must reject`);
  return outcome.error;
}
