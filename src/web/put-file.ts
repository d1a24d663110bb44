/** Puts a file of the user into a volume of the copy, unless a PC runs from it. */

import { holdVolumes } from './disk-lock.ts';
import type { Session } from './session.ts';
import { putFile } from './volumes/fat-writer.ts';
import type { Partition } from './volumes/partition-table.ts';
import { writablePartOf } from './volumes/writable.ts';

/**
 * Writes the file, and flushes the device.
 * @throws Error when a PC or another tab changes the volumes of this copy, and as {@link putFile}.
 */
export async function putIntoVolume(
  session: Session,
  { partition, path }: { partition: Partition; path: readonly string[] },
  file: File,
  options: { replace: boolean; signal: AbortSignal; onProgress: (bytes: number) => void },
): Promise<'written' | 'exists'> {
  if (session.hasPc)
    throw new Error('A PC runs from this disk, and a file system has one writer: switch it off first.');
  const release = await holdVolumes(session);
  if (release === undefined) throw new Error('A PC or a page in another tab writes to this disk: end it there first.');
  try {
    const disk = {
      size: session.size,
      read: session.read.bind(session),
      write: (offset: number, bytes: Uint8Array) => session.device.write(bytes, offset),
      flush: () => session.device.flush(),
    };
    const { name, size, lastModified } = file;
    const read = async (from: number, length: number): Promise<Uint8Array> =>
      new Uint8Array(await file.slice(from, from + length).arrayBuffer());
    return await putFile(
      writablePartOf(disk, partition.start, partition.size),
      { path, name, size, modifiedMs: lastModified, read },
      { ...options, nowMs: Date.now() },
    );
  } finally {
    release();
  }
}
