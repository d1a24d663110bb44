/** `copyondemand finish`: makes a complete copy an ordinary file, by removing its metadata. Needs no source. */

import { isCodError } from '../errors.ts';
import { emitError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';
import { checkTarget, openTarget } from './target-device.ts';
import { formatBytes } from './units.ts';

/** Parsed options of the command. */
export interface FinishFlags {
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly takeOver?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
}

/**
 * Removes the metadata of the complete copy at `target`. An ordinary file is left as it is, so the command may be
 * repeated.
 * @throws {@link CodError} COD_INCOMPLETE; COD_NOT_FOUND if there is no file; the errors of `openDevice` and `finish`.
 */
export async function finish(target: string, flags: FinishFlags): Promise<void> {
  checkTarget(target);
  const emit = jsonLines(process.stdout, { enabled: flags.json === true });
  const interruption = listenForInterruption();
  try {
    const bytes = await finishCopy(target, flags, interruption.signal);
    emit('done', { target, ...(bytes === undefined ? {} : { bytes }) });
    if (flags.quiet || flags.json) return;
    const what = bytes === undefined ? 'has no metadata already' : `complete, ${formatBytes(bytes)}; metadata removed`;
    process.stderr.write(`${target}: ${what}\n`);
  } catch (error) {
    emitError(emit, error);
    throw error;
  } finally {
    interruption.stop();
  }
}

/** Returns the size of the copy in bytes; undefined if the target is an ordinary file. */
async function finishCopy(target: string, flags: FinishFlags, signal: AbortSignal): Promise<number | undefined> {
  try {
    const device = await openTarget({ uri: undefined, target, flags: { ...flags, hydrate: false }, signal });
    try {
      const { syncedBlocks, totalBlocks } = device.status();
      // The last step of the copy may have been cut short, and is made up for.
      if (syncedBlocks === totalBlocks) await device.hydrated;
      await device.finish();
      return device.size;
    } finally {
      await device.close().catch(() => undefined);
    }
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND') && error.details['isImage'] === true) return undefined;
    throw error;
  }
}
