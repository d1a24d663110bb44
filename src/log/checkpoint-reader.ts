/**
 * Reads checkpoints (docs/FORMAT.md): the directory first, then one slice after another.
 *
 * Invariant: a valid header was written only after its directory and slices were durable. A directory or a slice that
 * does not match its checksum is therefore damage, never the trace of a crash.
 */

import { inTurns, type TurningClock } from '../async/turns.ts';
import type { CopyState } from '../core/copy-state.ts';
import { GrowingBuffer } from '../core/growing-buffer.ts';
import type { CheckpointHeader } from '../core/headers.ts';
import { HEADER_BYTES, padded } from '../core/layout.ts';
import { newBytes } from '../core/new-bytes.ts';
import { bytesOfEntry, decodeDirectory, type SliceEntry, slicesStart } from '../core/slice-directory.ts';
import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';

/** Bytes that are read and summed before the event loop turns, which takes 2 ms. */
const STEP_BYTES = 2 ** 22;

/** A checkpoint's file, and what reading it needs. */
export interface CheckpointFile {
  readonly core: Core;
  readonly file: File;
  readonly header: CheckpointHeader;
  readonly clock: TurningClock;
}

/**
 * Loads a checkpoint into an empty state and returns the source's identity in UTF-8.
 *
 * @throws {@link CodError} COD_CORRUPT if the checkpoint is damaged. The state is of no use then.
 */
export async function readCheckpoint(checkpoint: CheckpointFile, state: CopyState): Promise<Uint8Array | undefined> {
  const { file, header, clock } = checkpoint;
  const available = await file.size();
  if (available < header.bytes) {
    throw corrupt(`checkpoint has ${available} bytes, but its header says ${header.bytes}: the file is cut short`, {
      bytes: available,
      expected: header.bytes,
    });
  }
  const { identity, entries } = await readDirectory(checkpoint, state);
  const buffer = new GrowingBuffer();
  for (const [slice, entry] of entries.entries()) {
    if (bytesOfEntry(entry) === 0) continue;
    buffer.truncate(0);
    const bytes = buffer.extend(bytesOfEntry(entry));
    await readSlice(checkpoint, { slice, entry, into: bytes });
    await clock.turn?.();
    await inTurns(state.loading(slice, entry, bytes), clock);
    await clock.turn?.();
  }
  return identity;
}

/** Reads identity and directory. @throws {@link CodError} COD_CORRUPT if their checksum does not match. */
export async function readDirectory(
  { core, file, header }: CheckpointFile,
  { geometry }: CopyState,
): Promise<{ identity: Uint8Array | undefined; entries: SliceEntry[] }> {
  const { identityBytes, directoryChecksum } = header;
  const start = slicesStart(geometry, identityBytes ?? 0);
  const bytes = newBytes(start - HEADER_BYTES);
  await file.read(bytes, HEADER_BYTES);
  refuseOtherSum('checkpoint directory', core.crc32c(bytes), directoryChecksum);
  const directory = bytes.subarray(padded(identityBytes ?? 0));
  const entries = decodeDirectory(directory, geometry, { ...header, start });
  return { identity: identityBytes === undefined ? undefined : bytes.subarray(0, identityBytes), entries };
}

/** Reads a slice. @throws {@link CodError} COD_CORRUPT if its checksum does not match. */
export async function readSlice(
  { core, file, clock }: CheckpointFile,
  { slice, entry, into }: { slice: number; entry: SliceEntry; into: Uint8Array },
): Promise<void> {
  let checksum = 0;
  for (let at = 0; at < into.length; at += STEP_BYTES) {
    if (at > 0) await clock.turn?.();
    const piece = into.subarray(at, at + STEP_BYTES);
    await file.read(piece, entry.offset + at);
    checksum = core.crc32c(piece, checksum);
  }
  refuseOtherSum(`slice ${slice} of the checkpoint`, checksum, entry.checksum);
}

function refuseOtherSum(what: string, checksum: number, expected: number): void {
  if (checksum === expected) return;
  const [found, wanted] = [checksum.toString(16), expected.toString(16)];
  throw corrupt(`${what}: checksum 0x${found} does not match the stored 0x${wanted}`, { checksum, expected });
}

function corrupt(message: string, details: Record<string, unknown>): CodError {
  return new CodError('COD_CORRUPT', message, { details });
}
