/** What recovery returns, whichever format it read. */

import type { CopyState } from '../core/copy-state.ts';
import type { File } from '../fs/file-system.ts';
import type { Extent } from './proof.ts';
import type { FileKind } from './slots.ts';

/** Bytes of a piece that {@link feedFile} reads. */
const PIECE_BYTES = 2 ** 16;

/** A metadata file, as `inspectMetadata` lists it. */
export interface MetadataFile {
  /** Name in the file system. */
  readonly name: string;
  /** What the file holds. */
  readonly kind: FileKind;
  /** Version of the format (docs/FORMAT.md). Format 1 is that of datto/copyondemand. */
  readonly format: 1 | 2;
  /** Size of the file in bytes. */
  readonly bytes: number;
  /** Records that were read; of a checkpoint: its dirty parts. */
  readonly records: number;
  /** Bytes of a record or frame that is cut short at the end of a log. */
  readonly tornBytes: number;
}

/** The state of a copy according to its metadata. Owns `state`: dispose of it, or pass it on. */
export interface RecoveredState {
  readonly format: 1 | 2;
  readonly state: CopyState;
  readonly files: readonly MetadataFile[];
  /** 16 bytes; format 1 has none. */
  readonly session: Uint8Array | undefined;
  /** The epoch of the checkpoint that counts. For format 1: an epoch whose next slot is free. */
  readonly epoch: number;
  /** Whether the log of the next epoch counts too, so that both log slots are in use. */
  readonly bothLogs: boolean;
  readonly identity: string | undefined;
  /** Whether the rest of the target is zero: see `CheckpointHeader`. */
  readonly restIsZero: boolean;
  /** Bytes that count because the target reads as unfirm records say. */
  readonly proved: readonly Extent[];
}

/**
 * Passes the bytes [start, end) of a file to `feed` in pieces, until it returns or resolves to false. A piece is valid
 * until then.
 */
export async function feedFile(
  file: File,
  range: { start: number; end: number },
  feed: (piece: Uint8Array) => unknown,
): Promise<void> {
  // Not the core's own memory: other tasks use it meanwhile.
  const buffer = new Uint8Array(PIECE_BYTES);
  for (let at = range.start; at < range.end; at += buffer.length) {
    const piece = buffer.subarray(0, range.end - at);
    await file.read(piece, at);
    if ((await feed(piece)) === false) return;
  }
}
