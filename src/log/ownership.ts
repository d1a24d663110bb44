/** One owner of a log at a time. */

import { CodError } from '../errors.ts';
import type { FileSystem, Lease } from '../fs/file-system.ts';

/** The names in use, for each file system object: a backend without locks is guarded within this program at least. */
const inUse = new WeakMap<FileSystem, Set<string>>();

/**
 * Takes the ownership of `name`; the lease releases it.
 * @throws {@link CodError} COD_LOCKED if it has an owner; the errors of the file system.
 */
export async function takeOwnership(fileSystem: FileSystem, name: string): Promise<Lease> {
  const names = inUse.get(fileSystem) ?? new Set();
  inUse.set(fileSystem, names);
  if (names.has(name)) {
    throw new CodError('COD_LOCKED', `${name} is already open in this program; close it first`, { details: { name } });
  }
  names.add(name);
  try {
    const lease = await fileSystem.lock?.(name);
    return {
      release: async () => {
        names.delete(name);
        await lease?.release();
      },
    };
  } catch (error) {
    names.delete(name);
    throw error;
  }
}
