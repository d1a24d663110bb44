/** Storage in memory: a memfs volume. */

import { Volume } from 'memfs';
import { CodError } from '../errors.ts';
import type { FileSystem, Lease } from './file-system.ts';
import { fsAdapter, type FsLike as MemfsVolume } from './fs-adapter.ts';

/** How {@link memfsFileSystem} behaves. */
export interface MemfsFileSystemOptions {
  /**
   * What stands for the boot of the machine. A volume lives and dies with its process, and whatever was written to it is there as long as
   * it is: so `'memfs'`, unless told otherwise. `undefined` for a file system that, as in a browser, keeps only what was synced.
   */
  readonly bootId?: string | undefined;
}

/** The flags as memfs numbers them, on every platform. */
const FLAGS = { readOnly: 0, readWrite: 2, create: 64 };

/** The names that are locked, for each volume. */
const locks = new WeakMap<MemfsVolume, Set<string>>();

/**
 * Opens a file system over `volume`: a `Volume`, or what `memfs()` and `createFsFromVolume()` return as `fs`.
 * Default: a new, empty volume. Names are relative to `/`; directories must exist.
 * Every operation is done synchronously, before its promise is returned. Locks exclude each other within this thread.
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
