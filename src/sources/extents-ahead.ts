/**
 * The extents of a distant source, asked for ahead of a reader that goes from the beginning to the end. A source that
 * is mostly empty would otherwise take one round trip for each piece of the copy.
 *
 * A question covers a window. Windows grow while their answers are short, and shrink while they are long: a source may
 * need many round trips for a window of many extents, and the reader waits for all of them.
 *
 * The source's content does not change, so an answer stays true.
 */

import { addExtent, type ExtentList, partOf } from './extents.ts';
import type { SourceExtent } from './source.ts';

/** The first window: as long as the first piece that a copy asks for. */
const FIRST_BYTES = 2 ** 26;
/** NBD has lengths of 32 bits. */
const MAX_BYTES = 2 ** 31;
/** Windows grow after an answer of at most this many extents, and shrink after one of more than 64 times as many. */
const FEW_EXTENTS = 16;
const MANY_EXTENTS = 1024;
/** Windows that are asked for beyond the one that the reader has reached, while answers are short. */
const AHEAD = 4;
/** Windows whose answers are kept. */
const KEPT = 16;

interface Window {
  readonly start: number;
  readonly end: number;
  readonly answer: Promise<readonly SourceExtent[]>;
}

export class ExtentsAhead {
  readonly #ask: (offset: number, length: number) => Promise<readonly SourceExtent[]>;
  readonly #windows: Window[] = [];
  #windowBytes = FIRST_BYTES;

  /** @param ask rejects if the extents are not `length` bytes long together */
  constructor(ask: (offset: number, length: number) => Promise<readonly SourceExtent[]>) {
    this.#ask = ask;
  }

  /**
   * The extents of a range.
   * @param size of the source
   * @throws as the questions
   */
  async of(offset: number, length: number, size: number): Promise<readonly SourceExtent[]> {
    const end = offset + length;
    const extents: ExtentList = [];
    for (let at = offset; at < end; ) {
      const window = this.#windowAt(at, size);
      const stop = Math.min(end, window.end);
      for (const extent of partOf(await window.answer, at - window.start, stop - at))
        addExtent(extents, extent.length, extent.zero);
      at = stop;
    }
    if (this.#windowBytes > FIRST_BYTES) this.#askAhead(end, size);
    return extents;
  }

  #windowAt(offset: number, size: number): Window {
    return this.#windows.find(({ start, end }) => start <= offset && offset < end) ?? this.#begin(offset, size);
  }

  #askAhead(from: number, size: number): void {
    for (let at = from, asked = 0; at < size && asked < AHEAD; asked++) at = this.#windowAt(at, size).end;
  }

  #begin(start: number, size: number): Window {
    const after = this.#windows.filter((window) => window.start > start).map((window) => window.start);
    const end = Math.min(start + this.#windowBytes, size, ...after);
    const window: Window = { start, end, answer: this.#ask(start, end - start) };
    this.#windows.push(window);
    if (this.#windows.length > KEPT) this.#windows.shift();
    window.answer.then(
      ({ length }) => this.#fit(end - start, length),
      () => {
        // The next reader of the window asks again.
        const index = this.#windows.indexOf(window);
        if (index >= 0) this.#windows.splice(index, 1);
      },
    );
    return window;
  }

  #fit(bytes: number, extents: number): void {
    if (extents > MANY_EXTENTS) this.#windowBytes = Math.max(FIRST_BYTES, bytes / 2);
    else if (extents <= FEW_EXTENTS) this.#windowBytes = Math.min(MAX_BYTES, Math.max(this.#windowBytes, bytes * 2));
  }
}
