/** One owner of a log at a time. */

import { CodError } from '../errors.ts';
import type { FileSystem, Lease } from '../fs/file-system.ts';

/** The names in use of each file system object. They guard a backend without locks within this program. */
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
    let isReleased = false;
    return {
      release: async () => {
        // The name may have another owner since the first release.
        if (isReleased) return;
        isReleased = true;
        names.delete(name);
        await lease?.release();
      },
    };
  } catch (error) {
    names.delete(name);
    throw error;
  }
}
