/**
 * A file that says how fast to copy, and may be changed while the copy goes on.
 *
 * A file that is looked at every second, and no signal: whoever changes the rate need not know which process it is (in which container, after how many restarts)
 * nor may signal it; the rate outlives a restart; one file steers as many copies as are given it; and a terminal that closes sends SIGHUP too.
 */

import * as fs from 'node:fs';
import { errnoOf, ioError } from '../platform/errno.ts';
import { UsageError } from './failure.ts';
import { parseRate } from './units.ts';

const MAX_BYTES = 256;

export class RateFile {
  readonly #path: string;
  readonly #fallback: number | undefined;
  #rate: number | undefined;

  /** Does no I/O. `fallback` is the rate while the file is not there. */
  constructor(path: string, fallback: number | undefined) {
    this.#path = path;
    this.#fallback = fallback;
    this.#rate = fallback;
  }

  /**
   * Reads the file: a rate as for `--rate`, or `unlimited`. An empty file, as it is for a moment while it is being written, changes nothing.
   * @returns bytes per second; undefined: no limit
   * @throws {@link UsageError} for what is no rate; {@link CodError} COD_TARGET_IO if it cannot be read. What was read last stays true.
   */
  read(): number | undefined {
    const text = this.#text();
    if (text === undefined) this.#rate = this.#fallback;
    else if (text !== '') this.#rate = this.#parse(text);
    return this.#rate;
  }

  /** What was read last. */
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
        `the rate file ${this.#path} says ${JSON.stringify(text.slice(0, 40))}. Write it like 20M, 250mbit or unlimited.`,
      );
    }
  }

  #text(): string | undefined {
    let fd: number | undefined;
    try {
      // Opening a FIFO would wait for its other end.
      fd = fs.openSync(this.#path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
      const bytes = Buffer.alloc(MAX_BYTES);
      return bytes.toString('utf8', 0, fs.readSync(fd, bytes, 0, MAX_BYTES, null)).trim();
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw ioError(`read the rate file ${this.#path}`, error);
    } finally {
      if (fd !== undefined) fs.closeSync(fd);
    }
  }
}
