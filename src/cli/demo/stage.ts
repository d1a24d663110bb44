/** How the demo looks: numbered steps, and a map that fills up on one line of a terminal, or on a few plain lines elsewhere. */

import type { WriteStream } from 'node:tty';
import { type Cell, drawCells, drawLegend } from '../map-picture.ts';
import { hasColour } from '../terminal.ts';
import { formatPercent } from '../units.ts';
import type { State } from './messages.ts';

const INDENT = '     ';
/** Without a terminal the map is printed each time so much more was copied. */
const PLAIN_STEP = 0.2;
const MIN_COLUMNS = 80;

/** Prints to a stream. */
export class Stage {
  readonly #stream: WriteStream;
  readonly #colour: boolean;
  /** Whether the map may be drawn over itself: on a line that is cut in two it could not. */
  readonly #redraws: boolean;
  #step = 0;
  #live = false;
  #nextPlain = 0;

  constructor(stream: WriteStream) {
    this.#stream = stream;
    this.#colour = hasColour(stream);
    this.#redraws = stream.isTTY === true && stream.columns >= MIN_COLUMNS;
  }

  /** A heading with the next number. */
  step(text: string): void {
    this.#settle();
    const number = ` ${++this.#step} `;
    this.#stream.write(`\n${this.#colour ? `\x1b[1m${number} ${text}\x1b[0m` : `${number} ${text}`}\n`);
    this.#nextPlain = 0;
  }

  /** A line under the present heading. */
  line(text = ''): void {
    this.#settle();
    this.#stream.write(text === '' ? '\n' : `${INDENT}${text}\n`);
  }

  /** Draws the map in place of the one before it, or, without a terminal, now and then. */
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

  /** What the map's characters mean. */
  legend(): void {
    this.line(drawLegend({ colour: this.#colour }));
  }

  /** The map and how much of it is copied, for a line. */
  picture({ cells, copiedBytes, size }: State): string {
    return `${this.cells(cells)}  ${formatPercent(copiedBytes, size)}`;
  }

  cells(cells: readonly Cell[]): string {
    return drawCells(cells, { colour: this.#colour });
  }

  /** Leaves the line of the live map. */
  #settle(): void {
    if (this.#live) this.#stream.write('\n');
    this.#live = false;
  }

  /** Ends the output properly, whatever was on the last line. */
  end(): void {
    this.#settle();
  }
}
