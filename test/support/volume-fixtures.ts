/** Images of volumes that other programs wrote, with what they read from them (scripts/volume-fixtures.mjs). */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect } from 'vitest';
import type { Bytes } from '../../src/web/volumes/bytes.ts';
import { findVolume, readDisk } from '../../src/web/volumes/disk.ts';
import { type Entry, readPart, type Volume } from '../../src/web/volumes/volume.ts';
import { find } from './volumes.ts';

/** A file, directory or symbolic link as the other program reads it. */
export interface Fact {
  readonly path: string;
  readonly kind: 'file' | 'directory' | 'link';
  readonly size?: number;
  readonly changed?: number;
  /** The first 16 hexadecimal digits of the digest of the contents. */
  readonly sha256?: string;
  readonly target?: string;
}

const folder = new URL('../fixtures/volumes/', import.meta.url);

export function imageOf(name: string): Uint8Array {
  return new Uint8Array(gunzipSync(readFileSync(new URL(`${name}.img.gz`, folder))));
}

export function factsOf(name: string): readonly Fact[] {
  return JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8'));
}

/** Opens the volume that fills a disk. */
export async function volumeOf(disk: Bytes): Promise<Volume> {
  const { parts } = await readDisk(disk);
  const found = await findVolume(disk, parts[0]!);
  if (!('volume' in found)) throw new Error(found.reason);
  return found.volume;
}

/** Reads the whole file at a path. */
export async function contentsAt(volume: Volume, path: string): Promise<Uint8Array> {
  const file = await volume.look(await find(volume, path));
  return readPart(volume, file, { from: 0, to: file.size });
}

/** Returns the number of pieces of a file on the disk, and the bytes in its holes. */
export async function piecesAt(volume: Volume, path: string): Promise<{ pieces: number; holeBytes: number }> {
  const seen = { pieces: 0, holeBytes: 0 };
  for await (const { offset, length } of (await volume.look(await find(volume, path))).runs()) {
    if (offset === undefined) seen.holeBytes += length;
    else seen.pieces++;
  }
  return seen;
}

/** Reads every file of a volume that `isWanted`. The result is sorted as in the fixtures. */
export async function readAll(volume: Volume, isWanted = (_: { path: string }): boolean => true): Promise<Fact[]> {
  const facts: Fact[] = [];
  const visit = async (directory: Entry, prefix: string): Promise<void> => {
    const { entries, cut, remark } = await volume.list(directory);
    expect([cut, remark]).toEqual([false, undefined]);
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = `${prefix}${entry.name}`;
      if (!isWanted({ path })) continue;
      if (entry.kind === 'directory') {
        facts.push({ path, kind: 'directory' });
        await visit(entry, `${path}/`);
        continue;
      }
      const file = await volume.look(entry);
      if (file.linkTarget !== undefined) facts.push({ path, kind: 'link', target: file.linkTarget });
      else {
        const contents = await readPart(volume, file, { from: 0, to: file.size });
        const sha256 = createHash('sha256').update(contents).digest('hex').slice(0, 16);
        facts.push({ path, kind: 'file', size: file.size, changed: Math.floor(file.modifiedMs!), sha256 });
      }
    }
  };
  await visit(volume.root, '');
  return facts;
}
