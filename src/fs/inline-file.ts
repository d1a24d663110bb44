/**
 * Files whose calls can complete before they return. Our own backends provide the members below beside those of
 * {@link File}; a file without them works too.
 */

import type { Done } from '../async/done.ts';
import type { File, FileSystem } from './file-system.ts';

/** The length in which holes are looked for, in bytes. */
export const HOLE_BYTES: number = 2 ** 21;

export interface InlineFile extends File {
  /** Length of large writes, in bytes, that this file handles best; they should be whole {@link pageBuffer pages}. */
  readonly preferredWriteBytes?: number | undefined;
  /** As {@link File.read}: synchronously if the call is short. May throw. */
  submitRead?(into: Uint8Array, offset: number): Done;
  /** As {@link File.write}: synchronously if the call is short. May throw. */
  submitWrite?(from: Uint8Array, offset: number): Done;
  /**
   * Whether a range reads as zeros, as far as that is cheap to find out. Resolves to false where it is not known. Best
   * in pieces of {@link HOLE_BYTES}, of which each offset is a multiple.
   */
  isHole?(offset: number, length: number): Promise<boolean>;
  /** A promise that must be awaited when synchronous calls have kept the event loop for long enough. */
  pace?(): Done;
}

/** Fills `into` from `offset` on, now or later. */
export function readFile(file: InlineFile, into: Uint8Array, offset: number): Done {
  return file.submitRead === undefined ? file.read(into, offset) : file.submitRead(into, offset);
}

/** Writes `from` at `offset`, now or later. */
export function writeFile(file: InlineFile, from: Uint8Array, offset: number): Done {
  return file.submitWrite === undefined ? file.write(from, offset) : file.submitWrite(from, offset);
}

/** Reads from a file that is closed between the calls, since a handle may be exclusive. */
export async function readNamed(fileSystem: FileSystem, name: string, into: Uint8Array, offset: number): Promise<void> {
  const file = await fileSystem.open(name, { readOnly: true });
  try {
    await file.read(into, offset);
  } finally {
    await file.close();
  }
}
