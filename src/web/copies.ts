/**
 * The list of the copies in this browser. A reloaded page uses it to resume a copy.
 *
 * The list is in the local storage. The copies themselves are in the origin private file system. No secret of a URL is
 * stored: a copy whose URL had one opens without its source until the user gives the URL again.
 */

import type { CopyPlace } from '../browser.ts';
import { hasSecret, withoutSecrets, withoutSignature } from './secrets.ts';

export interface CopyRecord {
  /** Identifies the copy, also in the address of the page. */
  readonly id: string;
  readonly name: string;
  /** `undefined` if the source is a file of this computer: the user has to pick the file again. Without secrets. */
  readonly url: string | undefined;
  /** The URL had a secret: the user has to give the URL again. */
  readonly hadSecret: boolean;
  readonly size: number;
  readonly openedMs: number;
  readonly syncedBytes: number;
  /** Limit of the background copy in bytes per second. 0: paused. `undefined`: no limit. */
  readonly rate: number | undefined;
}

const PREFIX = 'copyondemand:';
const SAMPLE_BYTES = 4096;

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
    const { name, url, hadSecret, size, openedMs, syncedBytes, rate } = JSON.parse(
      localStorage.getItem(PREFIX + id) ?? '',
    ) as Partial<CopyRecord>;
    if (typeof name !== 'string' || typeof size !== 'number') return undefined;
    return {
      id,
      name,
      url: typeof url === 'string' ? withoutSecrets(url) : undefined,
      hadSecret: hadSecret === true || (typeof url === 'string' && hasSecret(url)),
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

/** What a page opens: a URL, a picked file, or a kept copy without its source. */
export type Image = string | File | CopyRecord;

/** Removes the secrets that an earlier version of this page has stored. */
export function forgetSecrets(): void {
  for (const record of listCopies()) keepRecord(record);
}

/** The source that a kept copy can be opened with at once. Undefined: the user has to give it again. */
export function sourceOf(record: CopyRecord): string | undefined {
  if (record.url === undefined || record.hadSecret) return undefined;
  resumeAs(record.url, record.id);
  return record.url;
}

export function isWithoutSource(image: Image): image is CopyRecord {
  return typeof image === 'object' && !(image instanceof File);
}

/** What the record of a copy says of its source. */
export function storedSource(image: Image): Pick<CopyRecord, 'url' | 'hadSecret'> {
  if (isWithoutSource(image)) return { url: image.url, hadSecret: image.hadSecret };
  if (image instanceof File) return { url: undefined, hadSecret: false };
  return { url: withoutSecrets(image), hadSecret: hasSecret(image) };
}

/** Images that belong to a copy with another id than their own. */
const resumed = new Map<string | File, string>();

/** From now on `image` is the source of the copy `id`. */
export function resumeAs(image: string | File, id: string): void {
  resumed.set(image, id);
}

/**
 * Derives the id of an image's copy. All tabs derive the same id, so they share one copy. The id of a file depends on
 * its modification time and its bytes too: two files of one name and size are two images.
 */
export async function idOf(image: Image): Promise<string> {
  if (isWithoutSource(image)) return image.id;
  const known = resumed.get(image);
  if (known !== undefined) return known;
  if (!(image instanceof File)) return digest(`url:${withoutSignature(image)}`);
  const { name, size, lastModified } = image;
  const samples = [0, Math.floor(size / 2), Math.max(0, size - SAMPLE_BYTES)];
  const blocks = samples.map((start) => image.slice(start, start + SAMPLE_BYTES));
  return digest(`file:${name}:${size}:${lastModified}:`, ...blocks);
}

/**
 * Finds the kept copy that may be that of `image` although its id is another one: ids were once made of a file's name
 * and size, or of the whole URL, and a URL may come with another secret.
 */
export async function similarCopy(image: string | File): Promise<CopyRecord | undefined> {
  if (image instanceof File) return recordOf(await digest(`file:${image.name}:${image.size}`));
  const known = withoutSecrets(image);
  return (
    recordOf(await digest(`url:${image}`)) ?? listCopies().find(({ url, hadSecret }) => hadSecret && url === known)
  );
}

async function digest(...parts: (string | Blob)[]): Promise<string> {
  // A file that cannot be read has an error of its own when it is opened.
  const names = parts.filter((part) => typeof part === 'string');
  const bytes = await new Blob(parts).arrayBuffer().catch(() => new Blob(names).arrayBuffer());
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(sum.subarray(0, 8), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function nameOf(image: Image): string {
  if (typeof image === 'object') return image.name;
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

/** Says where an image comes from. */
export function originOf(image: Image): string {
  const url = isWithoutSource(image) ? image.url : image;
  return typeof url === 'string' ? new URL(url).host : 'a file on this computer';
}
