/** Copies as they lie in the origin private file system, while no device has them open or beside one that has. */

import { CodError } from '../errors.ts';
import { opfsDirectory, opfsFileSystem } from '../fs/opfs.ts';
import { ALL_SLOTS, slotName } from '../log/slots.ts';
import { deviceLock, keyOf } from './lock-names.ts';
import { type BrowserSource, describeSource, openSource } from './source-description.ts';

/** Where a copy is, as `openDevice` was told. */
export interface CopyPlace {
  readonly target: string;
  readonly directory?: string;
}

/** A device that was closed a moment ago is waited for. */
const PATIENCE_MS = 3000;

/**
 * Removes a copy and its metadata; resolves if there is none.
 * @throws {@link CodError} COD_LOCKED if a tab has it open, and nothing was removed then.
 */
export async function removeCopy({ target, directory = '' }: CopyPlace): Promise<void> {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  const remove = async (): Promise<void> => {
    clearTimeout(timer);
    const files = opfsFileSystem(await opfsDirectory(directory));
    // The target first: metadata without one is refused or begun anew, a target without its metadata would be somebody's file.
    const metadata = ALL_SLOTS.map(({ kind, slot }) => slotName(target, kind, slot));
    for (const name of [target, ...metadata]) await files.remove(name);
  };
  try {
    await navigator.locks.request(deviceLock(keyOf({ directory, target })), { signal: patience.signal }, remove);
  } catch (error) {
    if (!patience.signal.aborted) throw error;
    throw new CodError('COD_LOCKED', `a tab has ${target} open`, { details: { target } });
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The copy as a file, such as for a download, as long as nobody writes to it. Complete once the device is hydrated; what is not there yet reads as zeros.
 * @throws {@link CodError} COD_NOT_FOUND
 */
export async function copyAsFile({ target, directory = '' }: CopyPlace): Promise<File> {
  try {
    return await (await (await opfsDirectory(directory)).getFileHandle(target)).getFile();
  } catch (cause) {
    if (!(cause instanceof DOMException && cause.name === 'NotFoundError')) throw cause;
    throw new CodError('COD_NOT_FOUND', `there is no copy ${target}`, { cause });
  }
}

/**
 * What is known of an image before it is copied: its size, and what names this very content, if anything does.
 * @throws {@link CodError} as `openDevice`, for what is wrong with the source: it is asked for one byte.
 */
export async function inspectSource(source: BrowserSource): Promise<{ size: number; identity: string | undefined }> {
  const opened = await openSource(describeSource(source));
  const { size, identity } = opened;
  await opened.close();
  return { size, identity };
}
