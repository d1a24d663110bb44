/** Prevents a copy from overwriting its own source. */

import { type BigIntStats, stat } from 'node:fs';
import { promisify } from 'node:util';
import { CodError } from '../errors.ts';
import { ALL_SLOTS, slotName } from '../log/slots.ts';

const statBig = promisify(stat) as (path: string, options: { bigint: true }) => Promise<BigIntStats>;

/**
 * Refuses a source that is the target or one of its metadata files, under any name. Links are followed.
 * @param metadata prefix of the names of the metadata
 * @throws {@link CodError} COD_EXISTS if they are the same file.
 */
export async function refuseSameFile(source: string, target: string, metadata: string = target): Promise<void> {
  const origin = await statIfThere(source);
  if (origin === undefined) return;
  for (const name of [
    target,
    ...ALL_SLOTS.map(({ kind, slot }) => slotName(metadata, kind, slot)),
    `${metadata}.lock`,
  ]) {
    const file = await statIfThere(name);
    if (file === undefined || !isSame(file, origin)) continue;
    const role = name === target ? 'the target' : `${name}, a metadata file of the copy`;
    throw new CodError('COD_EXISTS', `the source ${source} is the same file as ${role}: name another target`, {
      details: { source, target },
    });
  }
}

/** A block device may have several names that are no links. */
function isSame(one: BigIntStats, other: BigIntStats): boolean {
  if (one.isBlockDevice() && other.isBlockDevice()) return one.rdev === other.rdev;
  return one.dev === other.dev && one.ino === other.ino;
}

async function statIfThere(path: string): Promise<BigIntStats | undefined> {
  return statBig(path, { bigint: true }).catch(() => undefined);
}
