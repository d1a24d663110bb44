/**
 * What instrumented code calls. `__fuzz` is a global, so that the code of all bundled sources finds it.
 *
 * While `recorded` is a list, comparisons add the pairs of values that they compared.
 */

export type Compared = number | bigint | string;

export interface Runtime {
  /** How often each place has run, modulo 256. */
  readonly hits: Uint8Array;
  /** Elements that were allocated. */
  allocated: number;
  /** Pairs of values that were compared and differ, or undefined while none are wanted. */
  recorded: [Compared, Compared][] | undefined;
}

/** A single allocation of this many elements is refused: the request alone is a failure. */
const MAX_ALLOCATION = 2 ** 30;
const MAX_RECORDED = 512;

/** An allocation whose length no limit bounds. */
export class TooMuchMemory extends Error {
  override readonly name = 'TooMuchMemory';
}

/** Installs the global that instrumented code calls. */
export function installRuntime(counters: number): Runtime {
  let switched: unknown;
  const runtime = {
    hits: new Uint8Array(Math.ceil(counters / 8) * 8),
    allocated: 0,
    recorded: undefined as [Compared, Compared][] | undefined,
    equal: (one: unknown, other: unknown) => {
      if (runtime.recorded !== undefined) record(one, other);
      return one === other;
    },
    unequal: (one: unknown, other: unknown) => {
      if (runtime.recorded !== undefined) record(one, other);
      return one !== other;
    },
    less: (one: number, other: number) => {
      if (runtime.recorded !== undefined) record(one, other);
      return one < other;
    },
    lessOrEqual: (one: number, other: number) => {
      if (runtime.recorded !== undefined) record(one, other);
      return one <= other;
    },
    greater: (one: number, other: number) => {
      if (runtime.recorded !== undefined) record(one, other);
      return one > other;
    },
    greaterOrEqual: (one: number, other: number) => {
      if (runtime.recorded !== undefined) record(one, other);
      return one >= other;
    },
    switchOn: <T>(value: T): T => {
      switched = value;
      return value;
    },
    switchCase: <T>(value: T): T => {
      if (runtime.recorded !== undefined) record(switched, value);
      return value;
    },
    allocates: <T>(length: T): T => {
      if (typeof length === 'number') {
        if (length > MAX_ALLOCATION) throw new TooMuchMemory(`allocation of ${length} elements`);
        runtime.allocated += length;
      }
      return length;
    },
    /** Called by the instrumented WASM core. */
    hit: (id: number) => {
      runtime.hits[id]!++;
    },
  };
  const isUseful = (value: unknown): value is Compared =>
    typeof value === 'number' || typeof value === 'bigint' || (typeof value === 'string' && value.length <= 64);
  const record = (one: unknown, other: unknown): void => {
    if (one === other || runtime.recorded!.length >= MAX_RECORDED) return;
    if (isUseful(one) && isUseful(other) && typeof one === typeof other) runtime.recorded!.push([one, other]);
  };
  Object.assign(globalThis, { __fuzz: runtime });
  return runtime;
}
