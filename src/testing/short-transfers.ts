/** A synchronous file API whose reads and writes move fewer bytes than they were asked to. */

import { type Random, seededRandom } from './random.ts';

/** The calls of `node:fs` that move bytes. Each returns the number of bytes that it moved. */
export interface TransferCalls {
  /** Reads up to `length` bytes at `position` into `into`, from its index `start` on. */
  readSync(fd: number, into: Uint8Array, start: number, length: number, position: number): number;
  /** Writes up to `length` bytes of `from`, from its index `start` on, at `position`. */
  writeSync(fd: number, from: Uint8Array, start: number, length: number, position: number): number;
}

/**
 * Returns `fs` with `readSync` and `writeSync` that move any number of bytes from 1 to what they were asked for. A
 * system call may do so at any time; a program that takes the call's length for its result loses bytes.
 *
 * @param fs a memfs volume, or `node:fs`. Its other calls are passed on.
 * @param random decides how many bytes each call moves. Default: seed 0.
 * @example
 * ```ts
 * import { memfsFileSystem } from 'copyondemand/memfs';
 * import { shortTransfers } from 'copyondemand/testing';
 * import { Volume } from 'memfs';
 *
 * const file = await memfsFileSystem(shortTransfers(new Volume())).open('notes', { create: true });
 * await file.write(new Uint8Array(4096).fill(7), 0); // takes several calls
 * const found = new Uint8Array(4096);
 * await file.read(found, 0);
 * console.log(found.every((byte) => byte === 7)); // true
 * ```
 */
export function shortTransfers<Fs extends TransferCalls>(fs: Fs, random: Random = seededRandom(0)): Fs {
  const shorter = (length: number): number => (length <= 1 ? length : 1 + random.below(length));
  const changed: TransferCalls = {
    readSync: (fd, into, start, length, position) => fs.readSync(fd, into, start, shorter(length), position),
    writeSync: (fd, from, start, length, position) => fs.writeSync(fd, from, start, shorter(length), position),
  };
  return new Proxy(fs, {
    get: (target, name) => {
      const value: unknown = Reflect.get(name in changed ? changed : target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
