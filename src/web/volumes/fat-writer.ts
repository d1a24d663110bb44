/**
 * Puts a file into a FAT12, FAT16 or FAT32 volume.
 *
 * Everything that can refuse the file is checked before the first write. Then the writes have this order, with a flush
 * after each step:
 *
 * 1. the contents, into free clusters; the allocation table, all copies; the count of free clusters
 * 2. the directory entry, which makes the file visible, or replaces the contents of a file of this name
 * 3. the clusters of the replaced contents are freed
 *
 * A crash between two writes leaves at most lost clusters, copies of the table that differ, and a wrong count of free
 * clusters. Programs use the first copy, and the count is a hint. The directories are read anew, because a PC may have
 * changed the volume. Clusters that two files share are not looked for: this would need the whole volume.
 */

import { VolumeError, viewOf } from './bytes.ts';
import { ATTRIBUTE, ENTRY_BYTES } from './fat.ts';
import type { Directory } from './fat-directory.ts';
import { checkName, dosDate, storedName } from './fat-names.ts';
import type { ClusterRun } from './fat-table.ts';
import { FatTarget } from './fat-target.ts';
import type { WritableBytes } from './writable.ts';

export interface NewFile {
  /** The names of the directories above the file, from the root. */
  readonly path: readonly string[];
  readonly name: string;
  /** Bytes. At most 2^32 - 1, the format's limit. */
  readonly size: number;
  /** Time of the last change, in ms since 1970. */
  readonly modifiedMs: number;
  /** Reads a part of the contents. */
  read(from: number, length: number): Promise<Uint8Array>;
}

export interface PutOptions {
  /** Whether a file of this name is replaced. Default: false. */
  readonly replace?: boolean;
  /** The time of the new directory entry, in ms since 1970. */
  readonly nowMs: number;
  /** Called with the number of bytes that were written. */
  readonly onProgress?: (bytes: number) => void;
  /** Stops before the file becomes visible. Later it has no effect. */
  readonly signal?: AbortSignal;
}

const MAX_FILE_BYTES = 2 ** 32 - 1;
const PIECE_BYTES = 2 ** 20;
const ARCHIVE = 0x20;

/**
 * Puts a file into the volume in `bytes`. When it resolves with `written`, the file is durable.
 * @returns `exists`, and nothing is written, if a file of this name exists and `replace` is not set.
 * @throws {@link VolumeError} when the volume has no room, is damaged or was not unmounted, or cannot store the file.
 * Nothing is written then. Any error of `bytes` and `file.read`; the signal's reason.
 */
export async function putFile(
  bytes: WritableBytes,
  file: NewFile,
  { replace = false, nowMs, onProgress, signal }: PutOptions,
): Promise<'written' | 'exists'> {
  checkName(file.name);
  if (file.size > MAX_FILE_BYTES) throw new VolumeError('FAT cannot store a file of 4 GiB or more');
  const volume = await FatTarget.open(bytes, signal);
  const directory = await volume.directory(file.path, signal);
  const old = directory.find(file.name);
  if (old !== undefined && !replace && !(old.attributes & ATTRIBUTE.directory)) return 'exists';
  if (old !== undefined) await volume.checkReplaced(old, file.name, signal);

  const data = await volume.allocate(file.size, signal);
  const contents: Contents = { ...file, cluster: data[0]?.first ?? 0, isFat32: volume.layout.bits === 32 };
  const { writes, grownBytes } =
    old === undefined
      ? directory.plan(entriesOf(contents, directory, nowMs))
      : { writes: [{ offset: old.offset, bytes: withContents(old.raw, contents) }], grownBytes: undefined };
  const growth = grownBytes === undefined ? [] : await volume.allocate(grownBytes.length, signal);
  if (growth.length > 0) await volume.table.compare(directory.lastCluster!);

  await writeContents(bytes, volume, data, file, { onProgress, signal });
  if (grownBytes !== undefined) await writeRuns(bytes, volume, growth, grownBytes);
  signal?.throwIfAborted();
  await volume.publish();
  for (const write of writes) await bytes.write(write.offset, write.bytes);
  if (growth.length > 0) await volume.table.set(directory.lastCluster!, growth[0]!.first);
  await volume.publish();
  if (old !== undefined && old.cluster !== 0) {
    await volume.free(old.cluster);
    await volume.publish();
  }
  return 'written';
}

interface Contents {
  readonly name: string;
  readonly size: number;
  readonly modifiedMs: number;
  /** The first cluster. 0 for an empty file. */
  readonly cluster: number;
  readonly isFat32: boolean;
}

/** Returns the entries of a new name: the parts of its long name, if it needs one, and the short entry. */
function entriesOf(contents: Contents, directory: Directory, nowMs: number): Uint8Array {
  const taken = new Set(directory.entries.map(({ shortName }) => shortName.toUpperCase()));
  const { short, caseBits, long } = storedName(contents.name, (name) => taken.has(name));
  const own = new Uint8Array(ENTRY_BYTES);
  own.set(short);
  own[12] = caseBits;
  const { date, time } = dosDate(nowMs);
  const view = viewOf(own);
  view.setUint16(14, time, true);
  view.setUint16(16, date, true);
  const entries = new Uint8Array((long.length + 1) * ENTRY_BYTES);
  for (const [index, raw] of [...long, withContents(own, contents)].entries()) entries.set(raw, index * ENTRY_BYTES);
  return entries;
}

/** Returns a short entry with other contents. */
function withContents(raw: Uint8Array, { cluster, size, modifiedMs, isFat32 }: Contents): Uint8Array {
  const entry = raw.slice();
  const view = viewOf(entry);
  const { date, time } = dosDate(modifiedMs);
  entry[11] = entry[11]! | ARCHIVE;
  view.setUint16(18, date, true);
  // FAT12 and FAT16 have no upper half: programs of OS/2 keep other data there.
  if (isFat32) view.setUint16(20, Math.floor(cluster / 2 ** 16), true);
  view.setUint16(22, time, true);
  view.setUint16(24, date, true);
  view.setUint16(26, cluster % 2 ** 16, true);
  view.setUint32(28, size, true);
  return entry;
}

/** Writes the contents into their clusters. The rest of the last cluster becomes zeros. */
async function writeContents(
  bytes: WritableBytes,
  volume: FatTarget,
  runs: readonly ClusterRun[],
  file: NewFile,
  { onProgress, signal }: { onProgress: PutOptions['onProgress'] | undefined; signal: AbortSignal | undefined },
): Promise<void> {
  let done = 0;
  for (const { first, count } of runs) {
    const offset = volume.offsetOf(first);
    const length = count * volume.layout.clusterBytes;
    for (let at = 0; at < length; at += PIECE_BYTES) {
      signal?.throwIfAborted();
      const wanted = Math.min(PIECE_BYTES, length - at, file.size - done);
      const piece = await file.read(done, wanted);
      if (piece.length !== wanted) throw new VolumeError(`“${file.name}” is shorter than it was: pick it again`);
      const whole = new Uint8Array(Math.min(PIECE_BYTES, length - at));
      whole.set(piece);
      await bytes.write(offset + at, whole);
      done += wanted;
      onProgress?.(done);
    }
  }
}

async function writeRuns(
  bytes: WritableBytes,
  volume: FatTarget,
  runs: readonly ClusterRun[],
  contents: Uint8Array,
): Promise<void> {
  let done = 0;
  for (const { first, count } of runs) {
    const length = count * volume.layout.clusterBytes;
    await bytes.write(volume.offsetOf(first), contents.slice(done, done + length));
    done += length;
  }
}
