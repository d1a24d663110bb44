/** `copyondemand changes`: lists the extents that users modified since they were copied. Reads only. */

import type { Inspection } from '../log/inspect.ts';
import { emitError, UsageError } from './failure.ts';
import { inspectTarget } from './inspect.ts';
import { jsonLines } from './json-lines.ts';
import { counted, formatBytes } from './units.ts';

/** Parsed options of the command. */
export interface ChangesFlags {
  readonly json?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
}

/** Extents are written to stdout in pieces of so many lines. */
const LINES = 4096;

/**
 * Prints the modified extents of the copy at TARGET, ascending and merged.
 * @throws {@link UsageError} if TARGET is empty; the errors of {@link inspectTarget}.
 */
export async function changes(target: string, { json = false, ...flags }: ChangesFlags): Promise<void> {
  const emit = jsonLines(process.stdout, { enabled: json });
  try {
    if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
    const inspection = await inspectTarget(target, flags);
    const { size, blockSize, modified, files } = inspection;
    let bytes = 0;
    let lines = '';
    for (const [index, [first, last]] of modified.entries()) {
      const offset = first * blockSize;
      const length = Math.min((last + 1) * blockSize, size) - offset;
      bytes += length;
      lines += json ? `${JSON.stringify({ event: 'changed', offset, length })}\n` : `${offset} ${length}\n`;
      if ((index + 1) % LINES !== 0) continue;
      process.stdout.write(lines);
      lines = '';
    }
    process.stdout.write(lines);
    emit('done', { target, size, extents: modified.length, bytes });
    if (!json) process.stderr.write(`${describe(inspection, bytes)}\n`);
    if (files.some(({ format }) => format === 1) && !files.some(({ format }) => format === 2))
      process.stderr.write(`${target}: format 1 does not say who wrote a block, so every copied block is listed\n`);
  } catch (error) {
    emitError(emit, error);
    throw error;
  }
}

function describe({ target, size, modified }: Inspection, bytes: number): string {
  const what = bytes === 0 ? 'users modified nothing' : `users modified ${formatBytes(bytes)} of ${formatBytes(size)}`;
  return `${target}: ${what}${bytes === 0 ? '' : ` in ${counted(modified.length, 'extent')}`}`;
}
