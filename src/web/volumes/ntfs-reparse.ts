/** Reparse points of NTFS: symbolic links, and files whose contents another part of Windows keeps. */

import { utf16, viewOf } from './bytes.ts';

const TAG = { mountPoint: 0xa000_0003, link: 0xa000_000c, linuxLink: 0xa000_001d } as const;
const REFUSALS: ReadonlyMap<number, string> = new Map([
  [0x8000_0017, 'compressed by Windows (WOF): not read'],
  [0x8000_0013, 'deduplicated by Windows: not read'],
]);
const HEADER_BYTES = 8;

/** Whether this kind of reparse point is a link. */
export function isLinkTag(tag: number): boolean {
  return tag === TAG.mountPoint || tag === TAG.link || tag === TAG.linuxLink;
}

/** Returns the target of a link, or `undefined` if `raw` is no link or damaged. */
export function linkTarget(raw: Uint8Array): string | undefined {
  if (raw.length < HEADER_BYTES + 4) return undefined;
  const view = viewOf(raw);
  const tag = view.getUint32(0, true);
  if (tag === TAG.linuxLink) return new TextDecoder().decode(raw.subarray(HEADER_BYTES + 4));
  if (!isLinkTag(tag) || raw.length < 20) return undefined;
  const names = raw.subarray(tag === TAG.link ? 20 : 16);
  const name = (at: number): string => {
    const start = view.getUint16(at, true);
    return utf16(names.subarray(start, start + view.getUint16(at + 2, true)));
  };
  // The second name is the one to show. It may be missing.
  return name(12) || name(8).replace(/^\\\?\?\\/, '');
}

/** Returns why the contents of a reparse point cannot be read, or `undefined` if they are ordinary. */
export function refusalOf(raw: Uint8Array): string | undefined {
  return raw.length < 4 ? undefined : REFUSALS.get(viewOf(raw).getUint32(0, true));
}
