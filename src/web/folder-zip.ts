/**
 * Packs a directory of a volume into a zip archive while it is read: stored, not compressed, with zip64 where needed.
 *
 * Symbolic links are stored as links. Devices, sockets and what cannot be read are left out, and named in the result
 * and in a file of the archive.
 */

import { makeZip } from 'client-zip';
import { VolumeError } from './volumes/bytes.ts';
import { type Entry, type FileInfo, readFile, type Volume } from './volumes/volume.ts';

export interface FolderFile {
  /** The path in the archive. */
  readonly path: string;
  /** `undefined` for a directory. */
  readonly info: FileInfo | undefined;
  readonly modifiedMs: number | undefined;
}

export interface FolderFiles {
  readonly files: FolderFile[];
  /** Sum of the files' sizes. */
  bytes: number;
  /** What is not in the archive or not in whole, and why. */
  readonly problems: string[];
}

/** The library counts entries in 16 bits unless an archive exceeds 4 GiB. */
const MAX_ENTRIES = 65_000;
const MAX_DEPTH = 100;
const MAX_LISTED_PROBLEMS = 10_000;
const PIECE_BYTES = 2 ** 20;
const LINK_MODE = 0o120777;
const FIRST_MS = Date.UTC(1980, 0, 2);
const LAST_MS = Date.UTC(2107, 11, 30);

/**
 * Collects what is in a directory.
 * @throws Any error of the device; the signal's reason. Damage of the image is a problem in the result.
 */
export async function collectFolder(
  volume: Volume,
  directory: Entry,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (found: FolderFiles) => void },
): Promise<FolderFiles> {
  const found: FolderFiles = { files: [], bytes: 0, problems: [] };
  const collect = async (parent: Entry, path: string, depth: number): Promise<void> => {
    const { entries, cut } = await volume.list(parent, signal);
    if (cut) report(found, path === '' ? '/' : path, `only the first ${entries.length} entries are read`);
    const names = new Set<string>();
    for (const entry of entries) {
      signal.throwIfAborted();
      const own = path + uniqueName(entry.name, names);
      if (found.files.length === MAX_ENTRIES) {
        report(found, own, `left out: an archive has at most ${MAX_ENTRIES} entries`);
        return;
      }
      await attempt(found, own, async () => {
        if (entry.kind === 'directory') {
          if (depth === MAX_DEPTH) throw new VolumeError(`left out: more than ${MAX_DEPTH} directories deep`);
          found.files.push({ path: `${own}/`, info: undefined, modifiedMs: entry.modifiedMs });
          await collect(entry, `${own}/`, depth + 1);
        } else if (entry.kind === 'other') throw new VolumeError('left out: a device, a socket or a pipe');
        else {
          const info = await volume.look(entry, signal);
          found.files.push({ path: own, info, modifiedMs: info.modifiedMs });
          found.bytes += info.size;
        }
      });
      onProgress(found);
    }
  };
  await attempt(found, '/', () => collect(directory, '', 0));
  return found;
}

/** Makes the archive. Files that turn out to be unreadable are added to the problems. */
export function zipFolder(
  volume: Volume,
  found: FolderFiles,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (bytes: number) => void },
): AsyncIterable<Uint8Array> {
  let done = 0;
  async function* contents(path: string, info: FileInfo): AsyncGenerator<Uint8Array> {
    try {
      for await (const piece of readFile(
        volume,
        info,
        { from: 0, to: info.size },
        { pieceBytes: PIECE_BYTES, signal },
      )) {
        yield piece;
        done += piece.length;
        onProgress(done);
      }
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
      report(found, path, `cut: ${error.message}`);
    }
  }
  async function* entries() {
    for (const { path, info, modifiedMs } of found.files) {
      const lastModified = new Date(Math.min(LAST_MS, Math.max(FIRST_MS, modifiedMs ?? 0)));
      if (info === undefined) yield { name: path, lastModified };
      else if (info.linkTarget !== undefined)
        yield { name: path, lastModified, input: info.linkTarget, mode: LINK_MODE };
      else yield { name: path, lastModified, input: contents(path, info) };
    }
    if (found.problems.length > 0)
      yield { name: 'NOT READ.txt', lastModified: new Date(), input: `${found.problems.join('\n')}\n` };
  }
  return readAll(makeZip(entries()));
}

async function* readAll(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Runs `read`. Damage of the image becomes a problem. */
async function attempt(found: FolderFiles, path: string, read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (error) {
    if (!(error instanceof VolumeError)) throw error;
    report(found, path, error.message);
  }
}

function report({ problems }: FolderFiles, path: string, reason: string): void {
  if (problems.length < MAX_LISTED_PROBLEMS) problems.push(`${path}: ${reason}`);
}

/** Returns a name that cannot leave the archive's directory, and that no other entry of the directory has. */
function uniqueName(name: string, names: Set<string>): string {
  const plain = name.replaceAll(/[/\\\0]/g, '_');
  const safe = plain === '' || plain === '.' || plain === '..' ? '_' : plain;
  let unique = safe;
  for (let number = 2; names.has(unique); number++) unique = `${safe} (${number})`;
  names.add(unique);
  return unique;
}
