/**
 * The list of the copies in this browser. A reloaded page uses it to resume a copy.
 *
 * The list is in the local storage. The copies themselves are in the origin private file system.
 */

import type { CopyPlace } from '../browser.ts';

export interface CopyRecord {
  /** Identifies the copy, also in the address of the page. */
  readonly id: string;
  readonly name: string;
  /** `undefined` if the source is a file of this computer: the user has to pick the file again. */
  readonly url: string | undefined;
  readonly size: number;
  readonly openedMs: number;
  readonly syncedBytes: number;
  /** Limit of the background copy in bytes per second. 0: paused. `undefined`: no limit. */
  readonly rate: number | undefined;
}

const PREFIX = 'copyondemand:';

export function placeOf(id: string): CopyPlace {
  return { directory: 'images', target: `${id}.raw` };
}

/** Returns all records, the most recently opened first. Skips entries that are no records of this page. */
export function listCopies(): CopyRecord[] {
  const records: CopyRecord[] = [];
  for (let index = 0; index < localStorage.length; index++) {
    const key = localStorage.key(index);
    const record = key?.startsWith(PREFIX) ? recordOf(key.slice(PREFIX.length)) : undefined;
    if (record !== undefined) records.push(record);
  }
  return records.sort((a, b) => b.openedMs - a.openedMs);
}

export function recordOf(id: string): CopyRecord | undefined {
  try {
    const { name, url, size, openedMs, syncedBytes, rate } = JSON.parse(
      localStorage.getItem(PREFIX + id) ?? '',
    ) as Partial<CopyRecord>;
    if (typeof name !== 'string' || typeof size !== 'number') return undefined;
    return {
      id,
      name,
      url: typeof url === 'string' ? url : undefined,
      size,
      openedMs: Number(openedMs),
      syncedBytes: Number(syncedBytes),
      rate,
    };
  } catch {
    return undefined;
  }
}

export function keepRecord(record: CopyRecord): void {
  localStorage.setItem(PREFIX + record.id, JSON.stringify(record));
}

export function dropRecord(id: string): void {
  localStorage.removeItem(PREFIX + id);
}

/** The source of a copy: a URL or a picked file. */
export type Image = string | File;

/** Derives the id of an image's copy. All tabs derive the same id, so they share one copy. */
export async function idOf(image: Image): Promise<string> {
  const text = image instanceof File ? `file:${image.name}:${image.size}` : `url:${image}`;
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
  return Array.from(digest.subarray(0, 8), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function nameOf(image: Image): string {
  if (image instanceof File) return image.name;
  const { pathname, host } = new URL(image);
  const last = pathname
    .split('/')
    .filter((part) => part !== '')
    .at(-1);
  try {
    return decodeURIComponent(last ?? host);
  } catch {
    return last ?? host;
  }
}
