/** Storage for devices of any size: metadata in real files, and a target that keeps nothing. */

import { CodError } from '../../dist/index.js';
import { nodeFileSystem } from '../../dist/node.js';

/**
 * Returns a file system.
 * @param {string} folder for the metadata
 * @param {string} target the name of the target
 * @param {number} [size] bytes of the target; undefined: it does not exist yet
 */
export function withoutTarget(folder, target, size) {
  const real = nodeFileSystem(folder);
  const nothing = {
    size: async () => size ?? 0,
    read: async (into) => void into.fill(0),
    write: async () => undefined,
    truncate: async (bytes) => {
      size = bytes;
    },
    sync: async () => undefined,
    close: async () => undefined,
  };
  return {
    bootId: real.bootId,
    open: async (name, how) => {
      if (name !== target) return real.open(name, how);
      if (size === undefined && !how?.create) throw new CodError('COD_NOT_FOUND', `${target} does not exist`);
      return nothing;
    },
    remove: (name) => real.remove(name),
  };
}

/** A source of zeros. */
export const zeros = (size) => ({
  size,
  identity: 'bench',
  read: async (into) => void into.fill(0),
  close: async () => undefined,
});
