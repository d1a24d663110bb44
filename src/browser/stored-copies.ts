/** Copies as files of the origin private file system, with or without a device that has them open. */

import { CodError } from '../errors.ts';
import { opfsDirectory, privateRoot, removeFile } from '../fs/opfs.ts';
import { ALL_SLOTS, slotName } from '../log/slots.ts';
import { deviceLock, keyOf } from './lock-names.ts';

/** The place of a copy in the origin private file system, as for `openDevice`. */
export interface CopyPlace {
  /** Name of the copy. */
  readonly target: string;
  /** Path of the directory that holds the copy, with `/` between names. Default: the root. */
  readonly directory?: string;
}

/** The lock of a device that was just closed is free within this time. */
const PATIENCE_MS = 3000;

/**
 * Removes a copy and its metadata; resolves if there is none. Waits up to 3 s for a device that is being closed.
 *
 * @throws {@link CodError} COD_LOCKED when a tab has the copy open, and nothing is removed; COD_UNSUPPORTED when
 *   the browser gives no storage.
 * @example
 * ```ts
 * import { removeCopy } from 'copyondemand/browser';
 *
 * await removeCopy({ target: 'disk.raw' });
 * ```
 */
export async function removeCopy({ target, directory = '' }: CopyPlace): Promise<void> {
  await privateRoot();
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  const remove = async (): Promise<void> => {
    clearTimeout(timer);
    const files = await opfsDirectory(directory);
    // The target first: a target without metadata would count as a file of the user, metadata alone does not.
    const metadata = ALL_SLOTS.map(({ kind, slot }) => slotName(target, kind, slot));
    for (const name of [target, ...metadata]) await removeFile(files, name);
  };
  try {
    await navigator.locks.request(deviceLock(keyOf({ directory, target })), { signal: patience.signal }, remove);
  } catch (error) {
    if (!patience.signal.aborted) throw error;
    throw new CodError('COD_LOCKED', `${target} is open in a tab: close it there`, { details: { target } });
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Returns the copy as a file, for example for a download. Unsynced blocks read as zeros: the file is complete once the
 * device is hydrated. The file can be read until the device is written to.
 *
 * @throws {@link CodError} COD_NOT_FOUND when there is no such copy; COD_UNSUPPORTED when the browser gives no storage.
 * @example
 * ```ts
 * import { copyAsFile, openDevice } from 'copyondemand/browser';
 *
 * const device = await openDevice({ source: 'https://example.org/disk.raw', target: 'disk.raw' });
 * await device.hydrated;
 * const link = document.createElement('a');
 * link.href = URL.createObjectURL(await copyAsFile({ target: 'disk.raw' }));
 * link.download = 'disk.raw';
 * link.textContent = 'Download the disk';
 * document.body.append(link);
 * await device.close();
 * ```
 */
export async function copyAsFile({ target, directory = '' }: CopyPlace): Promise<File> {
  try {
    return await (await (await opfsDirectory(directory)).getFileHandle(target)).getFile();
  } catch (cause) {
    if (!(cause instanceof DOMException && cause.name === 'NotFoundError')) throw cause;
    throw new CodError('COD_NOT_FOUND', `there is no copy named ${target}`, { cause });
  }
}
