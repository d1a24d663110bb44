/** Reads the metadata of a copy without changing anything on disk. */

import { CodError } from '../errors.ts';
import type { FileSystem } from '../fs/file-system.ts';
import { readNamed } from '../fs/inline-file.ts';
import type { Core } from '../wasm/core.ts';
import { parsing } from '../wasm/cores.ts';
import type { MetadataFile } from './recovered-state.ts';
import { recover } from './recovery.ts';
import { Slots } from './slots.ts';

/** The state of a copy according to its metadata. All ranges are ascending, and touching ranges are merged. */
export interface Inspection {
  /** Name of the copy. */
  readonly target: string;
  /** Bytes of the device. */
  readonly size: number;
  /** Bytes of a block. */
  readonly blockSize: number;
  /** `ceil(size / blockSize)`. */
  readonly totalBlocks: number;
  /** Blocks that the target holds completely. */
  readonly syncedBlocks: number;
  /** The synced blocks, as block numbers; `last` is included. */
  readonly synced: readonly (readonly [first: number, last: number])[];
  /**
   * The blocks that were written in part, with the written ranges in bytes within the block. None of them is synced.
   */
  readonly dirty: readonly {
    readonly block: number;
    readonly ranges: readonly (readonly [offset: number, length: number])[];
  }[];
  /** Blocks that were written since they were copied. */
  readonly modifiedBlocks: number;
  /** The modified blocks, as block numbers; `last` is included. */
  readonly modified: readonly (readonly [first: number, last: number])[];
  /** The metadata files that exist: checkpoints first, then logs. */
  readonly files: readonly MetadataFile[];
}

/**
 * Reads the metadata of a copy, and changes nothing. While a device has the copy open, its files may change during the
 * call and look damaged: repeat the call then.
 *
 * @param target name of the copy
 * @param options.size the device's size in bytes, for metadata of format 1, which does not store it. Default: the size
 *   of the target.
 * @throws {@link CodError} COD_NOT_FOUND when the copy has no metadata, or the size is unknown; COD_EXISTS when a file
 *   that is not ours has the name of a metadata file; COD_CORRUPT when metadata is damaged; COD_VERSION when a newer
 *   version wrote it; COD_TARGET_IO or COD_LOCKED when a file cannot be read.
 * @example
 * ```ts
 * import { bytesSource, inspectMetadata, openDevice } from 'copyondemand';
 * import { memfsFileSystem } from 'copyondemand/memfs';
 *
 * const fileSystem = memfsFileSystem();
 * const source = bytesSource(new Uint8Array(2 ** 20));
 * const device = await openDevice({ source, fileSystem, target: 'disk.raw', hydrate: false });
 * await device.write(new Uint8Array(8192).fill(1), 4096);
 * await device.close();
 *
 * const { synced, totalBlocks } = await inspectMetadata(fileSystem, 'disk.raw');
 * console.log(JSON.stringify(synced), totalBlocks); // [[1,2]] 256
 * ```
 */
export async function inspectMetadata(
  fileSystem: FileSystem,
  target: string,
  options: { size?: number } = {},
): Promise<Inspection> {
  const slots = new Slots(fileSystem, target, { readOnly: true });
  try {
    return await parsing((core) => inspect(core, slots, fileSystem, target, options));
  } finally {
    await slots.close();
  }
}

async function inspect(
  core: Core,
  slots: Slots,
  fileSystem: FileSystem,
  target: string,
  options: { size?: number },
): Promise<Inspection> {
  const found = await recover(core, slots, {
    size: async () => options.size ?? (await sizeOf(fileSystem, target)),
    read: (into, offset) => readNamed(fileSystem, target, into, offset),
  });
  if (found === undefined)
    throw new CodError('COD_NOT_FOUND', `${target} has no metadata: it is not a copy, or its copy is finished`);
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
      modifiedBlocks: state.modified.count,
      modified: Array.from(state.modified.runs(), ([start, end]) => [start, end - 1] as const),
      files,
    };
  } finally {
    state.dispose();
  }
}

async function sizeOf(fileSystem: FileSystem, target: string): Promise<number> {
  try {
    const file = await fileSystem.open(target, { readOnly: true });
    try {
      return await file.size();
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new CodError(
      'COD_NOT_FOUND',
      `${target}: metadata of format 1 does not contain the image's size; pass \`size\``,
      {
        cause: error,
      },
    );
  }
}
