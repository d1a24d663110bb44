/** `copyondemand inspect`: prints what the metadata of a copy says. Reads only. */

import { stat } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { nodeFileSystem } from '../control/node-file-system.ts';
import { CodError, isCodError } from '../errors.ts';
import type { Inspection } from '../log/inspect.ts';
import { inspectMetadata } from '../log/inspect.ts';
import { emitError, UsageError } from './failure.ts';
import { jsonLines } from './json-lines.ts';
import { drawCells, drawLegend, type MapExtents, mapCells } from './map-picture.ts';
import { withRepairAdvice } from './repair-advice.ts';
import { columnsOf, hasColour } from './terminal.ts';
import { counted, formatBytes, formatPercent } from './units.ts';

/** Parsed options of the command. */
export interface InspectFlags {
  readonly json?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
  readonly map?: boolean;
  /** Bytes. */
  readonly size?: number;
}

/**
 * Prints the state of the copy at TARGET.
 * @throws {@link UsageError} if TARGET is empty; the errors of {@link inspectTarget}.
 */
export async function inspect(target: string, flags: InspectFlags): Promise<void> {
  const inspection = await inspectOrTell(target, flags);
  if (flags.json) {
    process.stdout.write(`${JSON.stringify(inspection)}\n`);
    return;
  }
  process.stdout.write(describe(inspection));
  if (flags.map) process.stdout.write(`\n${drawMap(inspection, process.stdout)}`);
}

async function inspectOrTell(target: string, flags: InspectFlags): Promise<Inspection> {
  try {
    if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
    return await inspectTarget(target, flags);
  } catch (error) {
    emitError(jsonLines(process.stdout, { enabled: flags.json === true }), error);
    throw error;
  }
}

/**
 * Reads the metadata beside the path `target`. The result names `files` without their directory.
 * @throws {@link CodError} COD_SIZE_MISMATCH if the copy has another size than `size`; the errors of
 * {@link inspectMetadata}.
 */
export async function inspectTarget(
  target: string,
  { size, metadata }: Pick<InspectFlags, 'size' | 'metadata'>,
): Promise<Inspection> {
  const prefix = metadata ?? target;
  const fileSystem = nodeFileSystem(dirname(prefix), { readOnly: true });
  try {
    const inspection = await inspectMetadata(fileSystem, resolve(target), {
      metadata: basename(prefix),
      ...(size === undefined ? {} : { size }),
    });
    checkSize(inspection, size);
    return { ...inspection, target };
  } catch (error) {
    throw await withRepairAdvice(await explain(error, target), target, metadata);
  }
}

function checkSize({ target, size }: Inspection, given: number | undefined): void {
  if (given === undefined || given === size) return;
  throw new CodError('COD_SIZE_MISMATCH', `--size is ${given}, but ${target} is a copy of ${size} bytes`, {
    details: { size, given },
  });
}

/**
 * Says what is at TARGET if it has no metadata. Names `--size` in the error for metadata of format 1, which does not
 * store the size.
 */
async function explain(error: unknown, target: string): Promise<unknown> {
  if (!isCodError(error, 'COD_NOT_FOUND')) return error;
  if (!isCodError(error.cause, 'COD_NOT_FOUND')) return withoutMetadata(target);
  const message = `${target} is missing, and its metadata (format 1) does not contain the size: pass --size`;
  return new CodError('COD_NOT_FOUND', message, { cause: error });
}

/** Tells a copy that may be finished (`isImage`) from nothing at all, as far as the file shows it. */
async function withoutMetadata(target: string): Promise<CodError> {
  const found = await stat(target).catch(() => undefined);
  const isFile = found?.isFile() === true;
  const isImage = isFile ? found.size > 0 : found?.isBlockDevice() === true;
  const image = `is ${isFile ? `a file of ${formatBytes(found.size)}` : 'a block device'}: a finished copy or no copy`;
  const nothing = isFile ? 'is empty: no copy' : found === undefined ? 'does not exist: nothing is here' : 'is no file';
  return new CodError('COD_NOT_FOUND', `${target} has no metadata and ${isImage ? image : nothing}`, {
    details: { target, isImage, ...(isFile ? { size: found.size } : {}) },
  });
}

function describe(inspection: Inspection): string {
  const { target, size, blockSize, totalBlocks, syncedBlocks, synced, dirty, modifiedBlocks, files } = inspection;
  const parts = dirty.reduce((sum, { ranges }) => sum + ranges.length, 0);
  const partly = `${counted(dirty.length, 'block')} partly written (${counted(parts, 'part')}), the rest not copied`;
  const bytes = syncedBlocks === totalBlocks ? size : Math.min(size, syncedBlocks * blockSize);
  const rows = files.map(({ name, kind, format, bytes, records, tornBytes }) => [
    name,
    kind,
    `format ${format}`,
    formatBytes(bytes),
    counted(records, kind === 'log' ? 'record' : 'dirty part'),
    tornBytes > 0 ? `torn tail of ${counted(tornBytes, 'byte')}` : '',
  ]);
  return [
    `${target}: a copy of ${formatBytes(size)} in ${counted(totalBlocks, 'block')} of ${formatBytes(blockSize)}`,
    `  copied   ${formatPercent(syncedBlocks, totalBlocks)}, ${formatBytes(bytes)} in ` +
      `${counted(syncedBlocks, 'block')}, ${counted(synced.length, 'extent')}`,
    `  dirty    ${dirty.length === 0 ? 'none' : partly}`,
    `  modified ${modifiedBlocks === 0 ? 'none' : counted(modifiedBlocks, 'block')}`,
    '  metadata',
    ...table(rows).map((line) => `    ${line}`),
    '',
  ].join('\n');
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
}

/** Returns the map as a row of cells that fits the stream, with its range of bytes and a legend. */
export function drawMap(inspection: Inspection, stream: NodeJS.WriteStream): string {
  const { size } = inspection;
  const options = { colour: hasColour(stream) };
  const cells = mapCells(extentsOf(inspection), columnsOf(stream) - 4);
  const end = formatBytes(size);
  return [
    `  ${drawCells(cells, options)}`,
    `  0${end.padStart(Math.max(cells.length - 1, end.length + 1))}`,
    `  ${drawLegend(options)}   (${formatBytes(Math.round(size / cells.length))} each)`,
    '',
  ].join('\n');
}

/** Returns the map of a copy, to be drawn. */
export function extentsOf({ totalBlocks, synced, dirty }: Inspection): MapExtents {
  return {
    totalBlocks,
    synced: synced.map(([first, last]) => [first, last + 1] as const),
    dirtyBlocks: dirty.map(({ block }) => block),
  };
}
