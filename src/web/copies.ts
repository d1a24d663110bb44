/** What this browser has copies of, so that a page that is loaded again goes on. Kept in the local storage; the copies themselves lie in the origin private file system. */

import type { CopyPlace } from '../browser.ts';

export interface CopyRecord {
  /** Names the copy, here and in the address of the page. */
  readonly id: string;
  readonly name: string;
  /** Where it comes from; `undefined` for a file of this computer, which has to be picked again. */
  readonly url: string | undefined;
  readonly size: number;
  readonly openedMs: number;
  readonly syncedBytes: number;
  /** Bytes per second of the background copy, 0: it rests, `undefined`: no limit. */
  readonly rate: number | undefined;
}

const PREFIX = 'copyondemand:';

export function placeOf(id: string): CopyPlace {
  return { directory: 'images', target: `${id}.raw` };
}

/** The last opened first. What somebody else has put there is passed over. */
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

/** An image to be opened: a URL or a picked file. */
export type Image = string | File;

/** The same image has the same copy, in all tabs. */
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
