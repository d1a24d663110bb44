/** Capabilities of the terminal. */

import type { WriteStream } from 'node:tty';

const DEFAULT_COLUMNS = 80;
const MAX_COLUMNS = 160;

/** Whether to print escape sequences for colour (no-color.org). */
export function hasColour(stream: WriteStream): boolean {
  return stream.isTTY === true && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb';
}

/** Returns the characters per line, bounded: a wider map shows no more. */
export function columnsOf(stream: WriteStream): number {
  return Math.min(MAX_COLUMNS, (stream.isTTY && stream.columns) || DEFAULT_COLUMNS);
}
