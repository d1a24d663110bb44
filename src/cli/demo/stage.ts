/**
 * The demo's output: numbered steps and a map. On a terminal the map is redrawn in one line; elsewhere it is printed a
 * few times.
 */

import type { WriteStream } from 'node:tty';
import { type Cell, drawCells, drawLegend } from '../map-picture.ts';
import { hasColour } from '../terminal.ts';
import { formatPercent } from '../units.ts';
import type { State } from './messages.ts';

const INDENT = '     ';
/** Without a terminal, the map is printed each time this share of the image was copied. */
const PLAIN_STEP = 0.2;
const MIN_COLUMNS = 80;

/** Prints the demo's output to a stream. */
export class Stage {
  readonly #stream: WriteStream;
  readonly #colour: boolean;
  /** Whether the map is redrawn in place. A map that wraps to two lines could not be. */
  readonly #redraws: boolean;
  #step = 0;
  #live = false;
  #nextPlain = 0;

  constructor(stream: WriteStream) {
    this.#stream = stream;
    this.#colour = hasColour(stream);
    this.#redraws = stream.isTTY === true && stream.columns >= MIN_COLUMNS;
  }

  /** Prints a heading with the next number. */
  step(text: string): void {
    this.#settle();
    const number = ` ${++this.#step} `;
    this.#stream.write(`\n${this.#colour ? `\x1b[1m${number} ${text}\x1b[0m` : `${number} ${text}`}\n`);
    this.#nextPlain = 0;
  }

  /** Prints a line under the current heading. */
  line(text = ''): void {
    this.#settle();
    this.#stream.write(text === '' ? '\n' : `${INDENT}${text}\n`);
  }

  /** Redraws the map in place. Where that is not possible, prints it after each {@link PLAIN_STEP}. */
  map(state: State): void {
    const share = state.copiedBytes / state.size;
    if (this.#redraws) {
      this.#stream.write(`\r\x1b[K${INDENT}${this.picture(state)}`);
      this.#live = true;
    } else if (share >= this.#nextPlain) {
      this.#nextPlain = share === 1 ? Number.POSITIVE_INFINITY : (Math.floor(share / PLAIN_STEP) + 1) * PLAIN_STEP;
      this.line(this.picture(state));
    }
  }

  /** Prints a legend of the map. */
  legend(): void {
    this.line(drawLegend({ colour: this.#colour }));
  }

  /** Returns the map and the copied share as one line. */
  picture({ cells, copiedBytes, size }: State): string {
    return `${this.cells(cells)}  ${formatPercent(copiedBytes, size)}`;
  }

  cells(cells: readonly Cell[]): string {
    return drawCells(cells, { colour: this.#colour });
  }

  /** Ends the line of the live map. */
  #settle(): void {
    if (this.#live) this.#stream.write('\n');
    this.#live = false;
  }

  /** Ends the output, and the line of a live map. */
  end(): void {
    this.#settle();
  }
}
