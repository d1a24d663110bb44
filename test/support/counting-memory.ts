/** Counts the memory that a piece of work allocates. */

/** Runs `work`, and returns the bytes of all arrays that it allocated on the JavaScript heap. */
export async function countingMemory<T>(work: () => Promise<T>): Promise<{ result: T; bytes: number }> {
  const names = ['Uint8Array', 'ArrayBuffer', 'Uint32Array', 'Float64Array'] as const;
  const originals = names.map((name) => globalThis[name]);
  let bytes = 0;
  for (const name of names) {
    const original = globalThis[name] as unknown as { new (...args: unknown[]): object; BYTES_PER_ELEMENT?: number };
    const counting: object = new Proxy(original, {
      construct: (target, args: unknown[], newTarget): object => {
        if (typeof args[0] === 'number') {
          bytes += args[0] * (original.BYTES_PER_ELEMENT ?? 1);
          // The gigabyte is not allocated: the request alone is the failure.
          if (args[0] > 2 ** 30) throw new Error(`allocation of an array of ${args[0]} elements`);
        }
        return Reflect.construct(target, args, newTarget === counting ? target : newTarget) as object;
      },
    });
    Object.defineProperty(globalThis, name, { value: counting, configurable: true, writable: true });
  }
  try {
    return { result: await work(), bytes };
  } finally {
    for (const [index, name] of names.entries())
      Object.defineProperty(globalThis, name, { value: originals[index], configurable: true, writable: true });
  }
}
