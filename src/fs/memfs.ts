/** Storage in memory, over a memfs volume. */

import { Volume } from 'memfs';
import { CodError } from '../errors.ts';
import type { FileSystem, Lease } from './file-system.ts';
import { fsAdapter, type FsLike as MemfsVolume } from './fs-adapter.ts';

/** Options of {@link memfsFileSystem}. */
export interface MemfsFileSystemOptions {
  /** Names the boot of the machine, as {@link FileSystem.bootId}. Default: `'memfs'`. */
  readonly bootId?: string | undefined;
}

/** Flags of `open` in memfs, the same on every platform. */
const FLAGS = { readOnly: 0, readWrite: 2, create: 64, exclusive: 128, noFollow: 0 };

/** The locked names of each volume. */
const locks = new WeakMap<MemfsVolume, Set<string>>();

/**
 * Opens a file system in memory, over a volume of memfs. Names are relative to `/`. Directories must exist.
 *
 * Every operation completes synchronously, before its promise is returned. `sync` has nothing to do. Locks exclude each
 * other within this thread.
 *
 * @param volume a `Volume`, or the `fs` that `memfs()` and `createFsFromVolume()` return. Default: a new, empty volume.
 * @example
 * ```ts
 * import { bytesSource, openDevice } from 'copyondemand';
 * import { memfsFileSystem } from 'copyondemand/memfs';
 * import { Volume } from 'memfs';
 *
 * const volume = new Volume();
 * const source = bytesSource(new Uint8Array(2 ** 20).fill(7));
 * const device = await openDevice({ source, fileSystem: memfsFileSystem(volume), target: 'disk.raw' });
 * await device.hydrated;
 * await device.finish();
 * console.log(volume.statSync('/disk.raw').size); // 1048576
 * ```
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
    assertNotOwned: (path) => refuseOwned(locks.get(volume), path),
  });
}

async function lock(volume: MemfsVolume, path: string): Promise<Lease> {
  const names = locks.get(volume) ?? new Set();
  locks.set(volume, names);
  refuseOwned(names, path);
  names.add(path);
  let held = true;
  return {
    check: async () => held,
    release: async () => {
      if (held) names.delete(path);
      held = false;
    },
  };
}

function refuseOwned(names: ReadonlySet<string> | undefined, path: string): void {
  if (names?.has(path))
    throw new CodError('COD_LOCKED', `${path} is in use by this process: close it first`, { details: { path } });
}
