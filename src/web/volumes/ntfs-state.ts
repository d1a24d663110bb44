/** The label of an NTFS volume, and whether its last changes may be missing. */

import { text, utf16, VolumeError, viewOf } from './bytes.ts';
import { DirectoryIndex } from './ntfs-index.ts';
import type { Mft } from './ntfs-mft.ts';
import { ATTRIBUTE, unprotect } from './ntfs-record.ts';
import { readPart, type Volume } from './volume.ts';

const RECORD = { log: 2, volume: 3 } as const;
const DIRTY = 1;
const MAX_LABEL_BYTES = 512;
const HIBERNATION_FILE = 'HIBERFIL.SYS';
const LOG_PAGE_BYTES = 4096;
const NO_CLIENT = 0xffff;
const LOG_IS_CLEAN = 2;

/** Returns the label, or an empty text if it cannot be read. */
export function labelOf(mft: Mft, signal?: AbortSignal): Promise<string> {
  return unlessDamaged('', async () => {
    const file = await mft.file(RECORD.volume, signal);
    const found = await file.attribute(ATTRIBUTE.volumeName, '', signal);
    return found === undefined ? '' : utf16(await file.value(found, MAX_LABEL_BYTES, signal));
  });
}

/** Returns why the last changes may be missing, or `undefined`. */
export async function remarkOf(mft: Mft, volume: Volume, signal?: AbortSignal): Promise<string | undefined> {
  if (await unlessDamaged(false, () => isHibernated(mft, volume, signal)))
    return 'hibernated by Windows, perhaps by Fast Startup: the last changes may be missing';
  if (await unlessDamaged(false, () => hasOpenLog(volume, signal)))
    return 'not unmounted: the log is not replayed here, so the last changes may be missing';
  if (await unlessDamaged(false, () => isDirty(mft, signal))) return 'marked as dirty: Windows would check it';
  return undefined;
}

async function isDirty(mft: Mft, signal: AbortSignal | undefined): Promise<boolean> {
  const file = await mft.file(RECORD.volume, signal);
  const found = await file.attribute(ATTRIBUTE.volumeInformation, '', signal);
  const raw = found === undefined ? new Uint8Array(0) : await file.value(found, MAX_LABEL_BYTES, signal);
  return raw.length >= 12 && (viewOf(raw).getUint16(10, true) & DIRTY) !== 0;
}

/** The file of a hibernation begins with `hibr`. After it was resumed, it begins otherwise. */
async function isHibernated(mft: Mft, volume: Volume, signal: AbortSignal | undefined): Promise<boolean> {
  const index = new DirectoryIndex(mft, await mft.file(volume.root.id, signal));
  for await (const { name, record } of index.names(signal)) {
    // The names are in the order of their capitals.
    if (name.toUpperCase() > HIBERNATION_FILE) return false;
    if (name.toUpperCase() !== HIBERNATION_FILE) continue;
    const entry = { name, kind: 'file', size: undefined, modifiedMs: undefined, id: record } as const;
    const beginning = await readPart(volume, await volume.look(entry, signal), { from: 0, to: 4 }, signal);
    return text(beginning).toLowerCase() === 'hibr';
  }
  return false;
}

/** Whether the newer of the log's two restart pages has a client, and does not say that the volume is clean. */
async function hasOpenLog(volume: Volume, signal: AbortSignal | undefined): Promise<boolean> {
  const entry = { name: '', kind: 'file', size: undefined, modifiedMs: undefined, id: RECORD.log } as const;
  const raw = await readPart(volume, await volume.look(entry, signal), { from: 0, to: 2 * LOG_PAGE_BYTES }, signal);
  const pages = [raw.subarray(0, LOG_PAGE_BYTES), raw.subarray(LOG_PAGE_BYTES)].map(restartOf);
  const newest = pages.reduce((a, b) => (a === undefined || (b !== undefined && b.sequence > a.sequence) ? b : a));
  return newest?.isOpen ?? false;
}

function restartOf(page: Uint8Array): { sequence: bigint; isOpen: boolean } | undefined {
  if (page.length !== LOG_PAGE_BYTES || text(page.subarray(0, 4)) !== 'RSTR') return undefined;
  unprotect(page, 'RSTR', 'the log of this volume');
  const view = viewOf(page);
  const at = view.getUint16(24, true);
  if (at + 16 > page.length) return undefined;
  const isClean = view.getUint16(at + 12, true) === NO_CLIENT || (view.getUint16(at + 14, true) & LOG_IS_CLEAN) !== 0;
  return { sequence: view.getBigUint64(at, true), isOpen: !isClean };
}

async function unlessDamaged<T>(otherwise: T, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof VolumeError) return otherwise;
    throw error;
  }
}
