/** What the terminal can show. */

import type { WriteStream } from 'node:tty';

const DEFAULT_COLUMNS = 80;
const MAX_COLUMNS = 160;

/** Whether escape sequences for colour are welcome (no-color.org). */
export function hasColour(stream: WriteStream): boolean {
  return stream.isTTY === true && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb';
}

/** Characters to a line; bounded, since a picture of a map gains nothing from more. */
export function columnsOf(stream: WriteStream): number {
  return Math.min(MAX_COLUMNS, (stream.isTTY && stream.columns) || DEFAULT_COLUMNS);
}
