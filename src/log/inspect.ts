/** Reads the metadata of a copy without changing anything on disk. */

import { CodError } from '../errors.ts';
import type { FileSystem } from '../fs/file-system.ts';
import { Core } from '../wasm/core.ts';
import type { MetadataFile } from './recovered-state.ts';
import { recover } from './recovery.ts';
import { Slots } from './slots.ts';

/** The state of a copy; ranges are sorted, merged and, for blocks, inclusive of `last`. */
export interface Inspection {
  readonly target: string;
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  readonly totalBlocks: number;
  readonly syncedBlocks: number;
  readonly synced: readonly (readonly [first: number, last: number])[];
  readonly dirty: readonly {
    readonly block: number;
    readonly ranges: readonly (readonly [offset: number, length: number])[];
  }[];
  readonly files: readonly MetadataFile[];
}

/**
 * Reads the metadata of a copy.
 *
 * @param options.size the device's size in bytes, which format 1 does not tell. Default: that of the target.
 * @throws {@link CodError} COD_NOT_FOUND if there is no metadata; COD_CORRUPT, COD_VERSION; what the file system says.
 */
export async function inspectMetadata(
  fileSystem: FileSystem,
  target: string,
  options: { size?: number } = {},
): Promise<Inspection> {
  const slots = new Slots(fileSystem, target);
  try {
    const found = await recover(Core.create(), slots, () =>
      options.size === undefined ? sizeOf(fileSystem, target) : Promise.resolve(options.size),
    );
    if (found === undefined)
      throw new CodError('COD_NOT_FOUND', `${target} has no metadata beside it: it is no copy, or a finished one`);
    const { state, files } = found;
    const { geometry, blocks } = state;
    try {
      return {
        target,
        size: geometry.size,
        blockSize: geometry.blockSize,
        totalBlocks: geometry.blockCount,
        syncedBlocks: blocks.count,
        synced: Array.from(state.syncedRuns(), ([start, end]) => [start, end - 1] as const),
        dirty: Array.from(state.dirtyBlocks(), ({ block, parts }) => ({
          block,
          ranges: parts.map(([start, end]) => [start, end - start] as const),
        })),
        files,
      };
    } finally {
      state.dispose();
    }
  } finally {
    await slots.close();
  }
}

async function sizeOf(fileSystem: FileSystem, target: string): Promise<number> {
  try {
    const file = await fileSystem.open(target);
    try {
      return await file.size();
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new CodError('COD_NOT_FOUND', `${target}: its size is needed to read metadata of format 1; make it known`, {
      cause: error,
    });
  }
}
