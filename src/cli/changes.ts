/**
 * `copyondemand changes`: lists the extents that users modified, since they were copied or since a snapshot. With
 * `--output` it writes them to a qcow2 image. The copy is only read.
 */

import { basename, resolve } from 'node:path';
import { nodeFileSystem } from '../control/node-file-system.ts';
import type { ByteExtent } from '../core/range-set.ts';
import { CodError } from '../errors.ts';
import type { FileSystem } from '../fs/file-system.ts';
import type { Inspection } from '../log/inspect.ts';
import { assertNotOwned } from '../log/ownership.ts';
import { emitError, UsageError } from './failure.ts';
import { inspectTarget } from './inspect.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';
import { Cursor, changedSince, contentsSince } from './since.ts';
import { counted, formatBytes } from './units.ts';

/** Parsed options of the command. */
export interface ChangesFlags {
  readonly json?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
  /** Path of a snapshot of TARGET. */
  readonly since?: string;
  /** Path of the qcow2 image to write. */
  readonly output?: string;
  /** Name of the backing file of that image. */
  readonly backingFile?: string;
}

/** Extents are written to stdout in pieces of so many lines. */
const LINES = 4096;

/**
 * Prints the changed extents of the copy at TARGET, ascending and merged.
 * @throws {@link UsageError} if TARGET is empty, or options contradict each other; the errors of {@link inspectTarget},
 * of {@link contentsSince} and of {@link save}.
 */
export async function changes(target: string, flags: ChangesFlags): Promise<void> {
  const { json = false, since, output } = flags;
  const emit = jsonLines(process.stdout, { enabled: json });
  const interruption = listenForInterruption();
  try {
    checkUsage(target, flags);
    const fileSystem = nodeFileSystem('.', output === undefined ? { readOnly: true } : {});
    // What is saved must be of one moment.
    if (output !== undefined) await assertNotOwned(fileSystem, flags.metadata ?? target);
    const inspection = await inspectTarget(target, flags);
    const extents =
      since === undefined
        ? modifiedIn(inspection)
        : changedSince(fileSystem, inspection, await contentsSince(fileSystem, inspection, since));
    const kept: ByteExtent[] = [];
    let [count, bytes, lines] = [0, 0, ''];
    for await (const { offset, length } of extents) {
      interruption.signal.throwIfAborted();
      count++;
      bytes += length;
      if (output !== undefined) kept.push({ offset, length });
      lines += json ? `${JSON.stringify({ event: 'changed', offset, length })}\n` : `${offset} ${length}\n`;
      if (count % LINES !== 0) continue;
      process.stdout.write(lines);
      lines = '';
    }
    process.stdout.write(lines);
    if (output !== undefined) await save(fileSystem, { inspection, extents: kept, flags, signal: interruption.signal });
    const { size, files } = inspection;
    const more = { ...(since === undefined ? {} : { since }), ...(output === undefined ? {} : { output }) };
    emit('done', { target, size, extents: count, bytes, ...more });
    if (json) return;
    process.stderr.write(`${target}: ${describe({ since, size, bytes, count })}\n`);
    if (files.some(({ format }) => format === 1) && !files.some(({ format }) => format === 2))
      process.stderr.write(`${target}: format 1 does not say who wrote a block, so every copied block is listed\n`);
    if (output !== undefined) process.stderr.write(`${output}: written\n`);
  } catch (error) {
    emitError(emit, error);
    throw error;
  } finally {
    interruption.stop();
  }
}

function checkUsage(target: string, { since, output, backingFile }: ChangesFlags): void {
  if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
  if (since === '' || output === '') throw new UsageError('--since and --output need the path of a file');
  if (since !== undefined && resolve(since) === resolve(target))
    throw new UsageError('--since needs the path of a snapshot of TARGET');
  if (output !== undefined && since === undefined) throw new UsageError('--output needs --since');
  if (backingFile !== undefined && output === undefined) throw new UsageError('--backing-file needs --output');
}

function* modifiedIn({ size, blockSize, modified }: Inspection): Generator<ByteExtent, void, undefined> {
  for (const [first, last] of modified) {
    const offset = first * blockSize;
    yield { offset, length: Math.min((last + 1) * blockSize, size) - offset };
  }
}

function describe({
  since,
  size,
  bytes,
  count,
}: {
  since?: string | undefined;
  size: number;
  bytes: number;
  count: number;
}): string {
  const [nothing, what] =
    since === undefined ? ['users modified nothing', 'users modified'] : [`as ${since}`, `since ${since} changed`];
  return bytes === 0 ? nothing : `${what} ${formatBytes(bytes)} of ${formatBytes(size)} in ${counted(count, 'extent')}`;
}

interface Saving {
  readonly inspection: Inspection;
  readonly extents: readonly ByteExtent[];
  readonly flags: ChangesFlags;
  readonly signal: AbortSignal;
}

/**
 * Writes the extents to a new qcow2 image over the snapshot, durably.
 * @throws {@link CodError} COD_EXISTS if the file exists; COD_LOCKED if the copy is in use; COD_INCOMPLETE if TARGET
 * does not hold a changed block; COD_UNSUPPORTED if qcow2 cannot hold the disk; COD_NO_SPACE; COD_TARGET_IO.
 */
async function save(fileSystem: FileSystem, { inspection, extents, flags, signal }: Saving): Promise<void> {
  const { target, size, blockSize } = inspection;
  const { since, output, metadata = target, backingFile = basename(since!) } = flags;
  const { checkBackingName, clusterBytesFor, writeOverlay } = await import('./qcow2-overlay.ts');
  checkBackingName(backingFile);
  const clusterBytes = clusterBytesFor(size, blockSize);
  const whole = widened(extents, size, clusterBytes);
  refuseMissing(inspection, whole);
  const image = await fileSystem.open(target, { readOnly: true });
  try {
    const file = await fileSystem.open(output!, { create: true, exclusive: true, mode: 0o600 });
    try {
      await writeOverlay(file, {
        size,
        clusterBytes,
        extents: whole,
        backingFile,
        backingFormat: backingFile.endsWith('.qcow2') ? 'qcow2' : 'raw',
        read: async (into, offset) => {
          signal.throwIfAborted();
          await image.read(into, offset);
        },
      });
      // An owner that came meanwhile may have written what was read.
      await assertNotOwned(fileSystem, metadata);
    } catch (error) {
      await file.close();
      await fileSystem.remove(output!);
      throw error;
    }
    await file.close();
  } finally {
    await image.close();
  }
}

/** The extents in whole clusters, merged. */
function widened(extents: readonly ByteExtent[], size: number, clusterBytes: number): ByteExtent[] {
  const whole: ByteExtent[] = [];
  for (const { offset, length } of extents) {
    const start = offset - (offset % clusterBytes);
    const end = Math.min(Math.ceil((offset + length) / clusterBytes) * clusterBytes, size);
    const before = whole.at(-1);
    if (before !== undefined && start <= before.offset + before.length)
      whole[whole.length - 1] = { offset: before.offset, length: end - before.offset };
    else whole.push({ offset: start, length: end - start });
  }
  return whole;
}

/** @throws {@link CodError} COD_INCOMPLETE */
function refuseMissing({ target, blockSize, synced }: Inspection, extents: readonly ByteExtent[]): void {
  const held = new Cursor(synced);
  for (const { offset, length } of extents) {
    for (let block = Math.floor(offset / blockSize); block * blockSize < offset + length; block++) {
      if (held.has(block)) continue;
      const message = `${target} does not hold all of block ${block}, which has changed: complete the copy first`;
      throw new CodError('COD_INCOMPLETE', message, { details: { target, block } });
    }
  }
}
