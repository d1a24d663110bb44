/**
 * Checkpoint files (docs/FORMAT.md): a body, and a header that commits it.
 *
 * Invariant: the header is written only after the body was synced. Therefore:
 * - A valid header whose body does not match is damage, never the trace of a crash.
 * - A slot that is being overwritten has no valid header.
 */

import type { CopyState } from '../core/copy-state.ts';
import { type CheckpointHeader, encodeCheckpointHeader } from '../core/headers.ts';
import { HEADER_BYTES, padded } from '../core/layout.ts';
import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';

const ZERO_HEADER = new Uint8Array(HEADER_BYTES);

/** A checkpoint's body and the header that will commit it, at one moment of the maps. */
export interface CheckpointImage {
  readonly header: Uint8Array;
  /** Bytes of header and body together. */
  readonly bytes: number;
  readonly body: Uint8Array;
}

/**
 * Serializes the maps as they are now.
 * @param reuse a body that is no longer needed; its memory is used again if it is large enough
 */
export function takeCheckpoint(
  core: Core,
  state: CopyState,
  names: { session: Uint8Array; epoch: number; standalone: boolean; identity: Uint8Array | undefined },
  reuse?: Uint8Array,
): CheckpointImage {
  const { geometry } = state;
  const identityBytes = names.identity ?? new Uint8Array(0);
  const { bitmaps, dirty } = state.sections();
  const bitmapBytes = bitmaps.reduce((sum, { length }) => sum + length, 0);
  const bodyBytes = padded(identityBytes.length) + padded(bitmapBytes) + padded(dirty.length);
  const backing =
    reuse !== undefined && reuse.buffer.byteLength >= bodyBytes
      ? reuse.buffer
      : new ArrayBuffer(bodyBytes + (bodyBytes >> 2));
  const body = new Uint8Array(backing, 0, bodyBytes);
  let at = 0;
  for (const section of [[identityBytes], bitmaps, [dirty]]) {
    for (const piece of section) {
      body.set(piece, at);
      at += piece.length;
    }
    body.fill(0, at, padded(at));
    at = padded(at);
  }
  const header = encodeCheckpointHeader(core, {
    session: names.session,
    epoch: names.epoch,
    size: geometry.size,
    blockSize: geometry.blockSize,
    standalone: names.standalone,
    bodyBytes,
    bodyChecksum: core.crc32c(body),
    identityBytes: names.identity?.length,
    bitmapBytes,
    dirtyBytes: dirty.length,
    syncedBlocks: state.blocks.count,
    dirtyBlocks: state.dirty.blockCount,
  });
  return { header, body, bytes: HEADER_BYTES + bodyBytes };
}

/** Writes the body into a slot that does not count. Not durable, and void until {@link commitCheckpoint}. */
export async function writeCheckpointBody(file: File, image: CheckpointImage): Promise<void> {
  await file.write(ZERO_HEADER, 0);
  await file.write(image.body, HEADER_BYTES);
  if ((await file.size()) > image.bytes) await file.truncate(image.bytes);
}

/** Writes the header over a durable body. The checkpoint counts once the file is synced again. */
export async function commitCheckpoint(file: File, image: CheckpointImage): Promise<void> {
  await file.write(image.header, 0);
}

/** What {@link readCheckpointBody} found; the sections are views of one buffer. */
export interface CheckpointSections {
  readonly identity: Uint8Array | undefined;
  readonly bitmaps: Uint8Array;
  readonly dirty: Uint8Array;
}

/**
 * Reads and checks the body of a valid header.
 * @throws {@link CodError} COD_CORRUPT if it is cut short or does not match its checksum.
 */
export async function readCheckpointBody(
  core: Core,
  file: File,
  header: CheckpointHeader,
): Promise<CheckpointSections> {
  const available = (await file.size()) - HEADER_BYTES;
  if (available < header.bodyBytes) {
    throw new CodError(
      'COD_CORRUPT',
      `checkpoint body has ${available} bytes, but its header says ${header.bodyBytes}: the file is cut short`,
      {
        details: { bytes: available, expected: header.bodyBytes },
      },
    );
  }
  const body = new Uint8Array(header.bodyBytes);
  await file.read(body, HEADER_BYTES);
  const checksum = core.crc32c(body);
  if (checksum !== header.bodyChecksum) {
    throw new CodError(
      'COD_CORRUPT',
      `checkpoint body: checksum 0x${checksum.toString(16)}, but its header says 0x${header.bodyChecksum.toString(16)}`,
      {
        details: { checksum, expected: header.bodyChecksum },
      },
    );
  }
  const identityBytes = header.identityBytes ?? 0;
  const bitmapsAt = padded(identityBytes);
  const dirtyAt = bitmapsAt + padded(header.bitmapBytes);
  return {
    identity: header.identityBytes === undefined ? undefined : body.subarray(0, identityBytes),
    bitmaps: body.subarray(bitmapsAt, bitmapsAt + header.bitmapBytes),
    dirty: body.subarray(dirtyAt, dirtyAt + header.dirtyBytes),
  };
}
