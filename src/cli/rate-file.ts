/**
 * A file that holds the rate of a copy and may change during the copy. It is read every second.
 *
 * Reasons for a file instead of a signal:
 * - The user needs no process number, which changes with each restart and differs in a container.
 * - The user needs no permission to signal the process.
 * - The rate survives a restart.
 * - One file controls any number of copies.
 * - SIGHUP is not free for this: a terminal that closes sends it too.
 */

import * as fs from 'node:fs';
import { errnoOf, ioError } from '../platform/errno.ts';
import { UsageError } from './failure.ts';
import { parseRate } from './units.ts';

const MAX_BYTES = 256;

export class RateFile {
  readonly path: string;
  /** Bytes per second while the file does not exist. Undefined: no limit. */
  fallback: number | undefined;
  #rate: number | undefined;

  /**
   * Does no I/O.
   * @param fallback as the field of that name
   */
  constructor(path: string, fallback: number | undefined) {
    this.path = path;
    this.fallback = fallback;
    this.#rate = fallback;
  }

  /**
   * Reads the file: a rate as for `--rate`, or `unlimited`. An empty file changes nothing, since a file is empty for a
   * moment while it is rewritten.
   * @returns bytes per second; undefined: no limit
   * @throws {@link UsageError} if the file holds no rate; {@link CodError} COD_TARGET_IO if it cannot be read. The last
   * rate stays in force.
   */
  read(): number | undefined {
    const text = this.#text();
    if (text === undefined) this.#rate = this.fallback;
    else if (text !== '') this.#rate = this.#parse(text);
    return this.#rate;
  }

  /** The last rate read, in bytes per second. Undefined: no limit. */
  get rate(): number | undefined {
    return this.#rate;
  }

  #parse(text: string): number | undefined {
    if (text === 'unlimited') return undefined;
    try {
      return parseRate(text);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      throw new UsageError(
        `rate file ${this.path}: ${JSON.stringify(text.slice(0, 40))} is not a rate; use 20M, 250mbit or unlimited`,
      );
    }
  }

  #text(): string | undefined {
    let fd: number | undefined;
    try {
      // O_NONBLOCK, since opening a FIFO would block until its other end is opened.
      fd = fs.openSync(this.path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
      const bytes = Buffer.alloc(MAX_BYTES);
      return bytes.toString('utf8', 0, fs.readSync(fd, bytes, 0, MAX_BYTES, null)).trim();
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw ioError(`read the rate file ${this.path}`, error);
    } finally {
      if (fd !== undefined) fs.closeSync(fd);
    }
  }
}
