/** Storage in memory, over a memfs volume. */

import { Volume } from 'memfs';
import { CodError } from '../errors.ts';
import type { FileSystem, Lease } from './file-system.ts';
import { fsAdapter, type FsLike as MemfsVolume } from './fs-adapter.ts';

/** Options of {@link memfsFileSystem}. */
export interface MemfsFileSystemOptions {
  /**
   * Names the boot of the machine. Default: `'memfs'`, since a volume keeps everything that was written for as long as
   * it exists. Pass `undefined` for a file system that, as in a browser, keeps only what was synced.
   */
  readonly bootId?: string | undefined;
}

/** Flags of `open` in memfs, the same on every platform. */
const FLAGS = { readOnly: 0, readWrite: 2, create: 64 };

/** The locked names of each volume. */
const locks = new WeakMap<MemfsVolume, Set<string>>();

/**
 * Opens a file system over `volume`: a `Volume`, or the `fs` that `memfs()` and `createFsFromVolume()` return. Names
 * are relative to `/`; directories must exist.
 * Every operation completes synchronously, before its promise is returned. Locks exclude each other within this thread.
 * @param volume default: a new, empty volume
 */
export function memfsFileSystem(volume: MemfsVolume = new Volume(), options: MemfsFileSystemOptions = {}): FileSystem {
  return fsAdapter({
    fs: volume,
    flags: FLAGS,
    resolve: (name) => (name.startsWith('/') ? name : `/${name}`),
    sync: async () => {},
    syncName: async () => {},
    bootId: 'bootId' in options ? options.bootId : 'memfs',
    lock: (path) => lock(volume, path),
  });
}

async function lock(volume: MemfsVolume, path: string): Promise<Lease> {
  const names = locks.get(volume) ?? new Set();
  locks.set(volume, names);
  if (names.has(path)) throw new CodError('COD_LOCKED', `${path} is in use by this process`, { details: { path } });
  names.add(path);
  let held = true;
  return {
    release: async () => {
      if (held) names.delete(path);
      held = false;
    },
  };
}
