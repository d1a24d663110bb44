/** What recovery gives, whichever format it read. */

import type { BlockMap } from '../core/block-map.ts';
import type { DirtyMap } from '../core/dirty-map.ts';
import type { Geometry } from '../core/geometry.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import type { FileKind } from './slots.ts';

/** One metadata file as a listing shows it. */
export interface MetadataFile {
  readonly name: string;
  readonly kind: FileKind;
  readonly format: 1 | 2;
  readonly bytes: number;
  /** Records that were read; of a checkpoint: the dirty parts in it. */
  readonly records: number;
  /** Bytes of a record or frame that was cut short at the end. */
  readonly tornBytes: number;
}

/** The state of a copy as its metadata tells it. Owns its maps: `dispose` them when they are not taken over. */
export interface RecoveredState {
  readonly format: 1 | 2;
  readonly geometry: Geometry;
  readonly map: BlockMap;
  readonly dirty: DirtyMap;
  readonly files: readonly MetadataFile[];
  readonly session: Uint8Array | undefined;
  /** The epoch of the checkpoint that counts; for format 1, one that leaves the slot alone that counts. */
  readonly epoch: number;
  /** Whether the log behind that checkpoint's own counts too, so that both log slots are in use. */
  readonly bothLogs: boolean;
  readonly identity: string | undefined;
}

/** Calls `feed` with the file's bytes from `start` to `end` in pieces, through the core's staging area, until it returns false. */
export async function feedFile(
  core: Core,
  file: File,
  range: { start: number; end: number },
  feed: (piece: Uint8Array) => unknown,
): Promise<void> {
  for (let at = range.start; at < range.end; ) {
    const length = Math.min(core.staging.length, range.end - at);
    const piece = core.staging.subarray(0, length);
    await file.read(piece, at);
    if (feed(piece) === false) return;
    at += length;
  }
}
