/** Reads the metadata of a copy without changing anything on disk. */

import { CodError, isCodError } from '../errors.ts';
import type { FileSystem } from '../fs/file-system.ts';
import { readNamed } from '../fs/inline-file.ts';
import { parsing } from '../wasm/cores.ts';
import type { MetadataFile, RecoveredState } from './recovered-state.ts';
import { recover, recoverCheckpoint } from './recovery.ts';
import { Slots } from './slots.ts';
import { readUndisturbed } from './undisturbed.ts';

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
  /** The name of the source's content. Null if the source has none, and for format 1. */
  readonly identity: string | null;
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
 * Reads the metadata of a copy, and changes nothing. The result is also right while a device has the copy open: each
 * block is in a state that it had during the call, and nothing that was acknowledged before the call is missing.
 *
 * @param target name of the copy
 * @param options.metadata prefix of the metadata files' names. Default: `target`.
 * @param options.size the device's size in bytes, for metadata of format 1, which does not store it. Default: the size
 *   of the target.
 * @throws {@link CodError} COD_NOT_FOUND when the copy has no metadata, or the size is unknown; COD_EXISTS when a file
 *   that is not ours has the name of a metadata file; COD_CORRUPT when metadata is damaged; COD_VERSION when a newer
 *   version wrote it; COD_TARGET_IO or COD_LOCKED when a file cannot be read;
 *   COD_LOCKED when an owner changes the files faster than they can be read.
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
  options: { size?: number; metadata?: string } = {},
): Promise<Inspection> {
  const { metadata = target } = options;
  let enough: number | undefined;
  return readUndisturbed(
    fileSystem,
    metadata,
    () => inspectAll(fileSystem, target, options),
    // The log of a checkpoint two epochs later than one of this call begins during this call, so that checkpoint
    // contains whatever its log would say of the time before the call.
    () => inspectCheckpoint(fileSystem, { target, metadata }, (epoch) => epoch >= (enough ??= epoch + 2)),
  );
}

async function inspectAll(
  fileSystem: FileSystem,
  target: string,
  options: { size?: number; metadata?: string },
): Promise<Inspection> {
  const slots = new Slots(fileSystem, options.metadata ?? target, { readOnly: true });
  try {
    return await parsing(async (core) => {
      const found = await recover(core, slots, {
        size: async () => options.size ?? (await sizeOf(fileSystem, target)),
        read: (into, offset) => readNamed(fileSystem, target, into, offset),
        isLive: true,
      });
      if (found === undefined)
        throw new CodError('COD_NOT_FOUND', `${target} has no metadata: it is not a copy, or its copy is finished`);
      return inspectionOf(target, found);
    });
  } finally {
    await slots.close();
  }
}

/** Returns undefined if the newest checkpoint is not enough, or was overwritten meanwhile. */
async function inspectCheckpoint(
  fileSystem: FileSystem,
  { target, metadata }: { target: string; metadata: string },
  isEnough: (epoch: number) => boolean,
): Promise<Inspection | undefined> {
  const slots = new Slots(fileSystem, metadata, { readOnly: true });
  try {
    return await parsing(async (core) => {
      const found = await recoverCheckpoint(core, slots, isEnough);
      return found && inspectionOf(target, found);
    });
  } catch (error) {
    if (isCodError(error)) return undefined;
    throw error;
  } finally {
    await slots.close();
  }
}

/** Disposes of the state. */
function inspectionOf(target: string, { state, files, identity }: RecoveredState): Inspection {
  const { geometry, blocks } = state;
  try {
    return {
      target,
      size: geometry.size,
      blockSize: geometry.blockSize,
      totalBlocks: geometry.blockCount,
      syncedBlocks: blocks.count,
      identity: identity ?? null,
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

/** Returns the size of the target, for metadata of format 1. */
export async function sizeOf(fileSystem: FileSystem, target: string): Promise<number> {
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
