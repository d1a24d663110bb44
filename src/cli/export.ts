/** `copyondemand export`: converts the metadata of a copy that was closed cleanly to format 1. */

import { nodeFileSystem } from '../control/node-file-system.ts';
import { exportFormat1In } from '../log/export.ts';
import { systemEnvironment } from '../platform/environment.ts';
import { UsageError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';

/** Parsed options of the command. */
export interface ExportFlags {
  readonly format?: number;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
}

/**
 * Converts the metadata of the copy at TARGET, and says what format 1 does not hold.
 * @throws {@link UsageError} if TARGET is empty, or without a format; the errors of `exportFormat1`.
 */
export async function exportCopy(target: string, { format, metadata = target }: ExportFlags): Promise<void> {
  if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
  if (format === undefined) throw new UsageError('the format is missing: give --format 1');
  const interruption = listenForInterruption();
  try {
    const { isConverted, totalBlocks, syncedBlocks } = await exportFormat1In(systemEnvironment, {
      fileSystem: nodeFileSystem(),
      name: metadata,
      target,
      signal: interruption.signal,
    });
    const what = isConverted
      ? `exported to format 1, ${syncedBlocks} of ${totalBlocks} blocks copied; ` +
        'format 1 does not hold the identity of the source and which blocks users modified'
      : 'in format 1 already';
    process.stderr.write(`${target}: ${what}\n`);
  } finally {
    interruption.stop();
  }
}
