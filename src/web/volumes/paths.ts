/** Finds the entry at a path, as a system with this volume as its root would. */

import type { Entry, Volume } from './volume.ts';

/** Linux's limit. */
const MAX_LINKS = 40;

export type PathResult =
  /** The entries from below the root to the end of the path, without links on the way. */
  | { readonly entries: readonly Entry[] }
  /** Says which name is missing, and where. */
  | { readonly missing: string };

/**
 * Follows a path such as `/etc/fstab`. Links on the way are followed, a link at the end is not. Where no name is equal,
 * one that differs in upper and lower case counts.
 * @throws {@link VolumeError} when the image is damaged; the signal's reason.
 */
export async function resolvePath(volume: Volume, path: string, signal?: AbortSignal): Promise<PathResult> {
  const left = partsOf(path);
  let entries: Entry[] = [];
  let links = 0;
  for (let name = left.shift(); name !== undefined; name = left.shift()) {
    if (name === '..') {
      entries.pop();
      continue;
    }
    const directory = entries.at(-1) ?? volume.root;
    const place = `/${entries.map((entry) => entry.name).join('/')}`;
    if (directory.kind !== 'directory') return { missing: `${place} is not a directory` };
    const found = named((await volume.list(directory, signal)).entries, name);
    if (found === undefined) return { missing: `there is no “${name}” in ${place}` };
    if (found.kind !== 'link' || left.length === 0) {
      entries.push(found);
      continue;
    }
    const { linkTarget = '' } = await volume.look(found, signal);
    if (++links > MAX_LINKS) return { missing: `${place} has a link that leads to itself: “${name}”` };
    if (linkTarget.startsWith('/')) entries = [];
    left.unshift(...partsOf(linkTarget));
  }
  return { entries };
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

function named(entries: readonly Entry[], name: string): Entry | undefined {
  const lower = name.toLowerCase();
  return entries.find((entry) => entry.name === name) ?? entries.find((entry) => entry.name.toLowerCase() === lower);
}
