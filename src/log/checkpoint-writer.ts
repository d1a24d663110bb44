/**
 * Writes checkpoints into two files in turn (docs/FORMAT.md): the slices that changed, then the directory, then the
 * header that commits both.
 *
 * Invariants:
 * - A header is written only after the directory and the slices are durable. A slot that is being overwritten has no
 *   valid header of the newest epoch.
 * - `#slots` says at most what the files hold: a place has no number of changes while it is overwritten.
 * - A slice is written if it changed since the moment of what the slot holds. So a checkpoint holds at least the state
 *   of its moment.
 * - Files are overwritten in place and never get shorter, so that later checkpoints need little room.
 */

import { inTurns, type TurningClock } from '../async/turns.ts';
import type { CopyState } from '../core/copy-state.ts';
import { GrowingBuffer } from '../core/growing-buffer.ts';
import { encodeCheckpointHeader } from '../core/headers.ts';
import { DIRECTORY_ENTRY_BYTES, HEADER_BYTES, padded } from '../core/layout.ts';
import { newBytes } from '../core/new-bytes.ts';
import {
  bytesOfEntry,
  countsOf,
  EMPTY_SLICE,
  encodeDirectory,
  type SliceEntry,
  slicesStart,
} from '../core/slice-directory.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import { type SlotIndex, voidHeader } from './slots.ts';

/** Bytes that are summed before the event loop may turn, which takes 2 ms. */
const SUM_BYTES = 2 ** 22;
/** Slices of so many bytes, or so many slices, are written together before the event loop turns. */
const BATCH_BYTES = 2 ** 17;
const BATCH_SLICES = 16;

/** The place of a slice in a slot's file. */
interface Place {
  readonly entry: SliceEntry;
  /** The number of changes of the slice that it holds; undefined while it is being written. */
  changes: number | undefined;
}

/** Slices that are serialized and not written yet: adjacent ones share a write. */
interface Batch {
  readonly places: { readonly place: Place; readonly changes: number }[];
  /** Where bytes of the buffer belong in the file. */
  readonly writes: { readonly offset: number; readonly start: number; end: number }[];
}

/** What a slot's file holds. Nothing is known of the file of an earlier life. */
interface SlotContents {
  readonly places: (Place | undefined)[];
  /** Whether a header may be in the file that was not committed: writing it has failed. */
  hasStrayHeader: boolean;
}

/** A checkpoint whose slices and directory are written, and the header that will commit it. */
export interface CheckpointImage {
  readonly slot: SlotIndex;
  readonly header: Uint8Array;
  /** Bytes of header, directory and slices. */
  readonly bytes: number;
  /** Bytes that were written for it, with its header. */
  readonly writtenBytes: number;
}

export interface CheckpointWriterOptions {
  readonly core: Core;
  readonly clock: TurningClock;
  readonly session: Uint8Array;
  /** Runs a step that reads the maps. After a failure nothing may use them again. */
  readonly guardMaps: <T>(step: () => Promise<T>) => Promise<T>;
  /** Runs a sync, and makes sure that a failed sync is not repeated. */
  readonly guardSync: (sync: () => Promise<void>) => Promise<void>;
}

export class CheckpointWriter {
  readonly #options: CheckpointWriterOptions;
  readonly #state: CopyState;
  /** The source's identity in UTF-8. */
  #identity: Uint8Array | undefined;
  /** Where the slices begin in both files. */
  #start: number;
  readonly #slots: readonly [SlotContents, SlotContents] = [
    { places: [], hasStrayHeader: false },
    { places: [], hasStrayHeader: false },
  ];
  readonly #buffer = new GrowingBuffer();

  constructor(options: CheckpointWriterOptions, state: CopyState) {
    this.#options = options;
    this.#state = state;
    this.#start = slicesStart(state.geometry, 0);
  }

  /** Stores another identity from the next checkpoint on. Slices may move, so all are written again. */
  rename(identity: Uint8Array | undefined): void {
    this.#identity = identity;
    this.#start = slicesStart(this.#state.geometry, identity?.length ?? 0);
    for (const slot of this.#slots) slot.places.length = 0;
  }

  /**
   * Writes all of a checkpoint but its header into a slot that does not count. Not durable, and void until
   * {@link commit}. The checkpoint holds at least the state at the time of the call.
   */
  async write(
    file: File,
    names: { slot: SlotIndex; epoch: number; standalone: boolean; restIsZero: boolean },
  ): Promise<CheckpointImage> {
    const { guardSync } = this.#options;
    const slot = this.#slots[names.slot];
    await voidHeader(file);
    // A stray header may name slices that are overwritten below.
    if (slot.hasStrayHeader) await guardSync(() => file.sync());
    slot.hasStrayHeader = false;
    // Taken before the first slice: what changes from now on is written again by the next checkpoint of this slot.
    const present = this.#state.changes();
    this.#buffer.truncate(0);
    let writtenBytes = HEADER_BYTES;
    const batch: Batch = { places: [], writes: [] };
    for (const [slice, changes] of present.entries()) {
      if (slot.places[slice]?.changes === changes) continue;
      if (this.#buffer.length >= BATCH_BYTES || batch.places.length >= BATCH_SLICES) {
        writtenBytes += await this.#writeBatch(file, batch);
        await this.#options.clock.turn?.();
      }
      await this.#addSlice(batch, slot, { slice, changes });
    }
    writtenBytes += await this.#writeBatch(file, batch);
    const entries = slot.places.map((place) => place!.entry);
    const directory = this.#directory(entries);
    await file.write(directory, HEADER_BYTES);
    return {
      slot: names.slot,
      header: this.#header(names, entries, directory),
      bytes: this.#start + this.#extentOf(entries).used,
      writtenBytes: writtenBytes + directory.length,
    };
  }

  /** Writes the header over a durable body. The checkpoint counts once the file is synced again. */
  async commit(file: File, image: CheckpointImage): Promise<void> {
    const slot = this.#slots[image.slot];
    slot.hasStrayHeader = true;
    await file.write(image.header, 0);
    slot.hasStrayHeader = false;
  }

  /** Serializes a slice as it is now, and reserves its place. */
  async #addSlice(
    batch: Batch,
    slot: SlotContents,
    { slice, changes }: { slice: number; changes: number },
  ): Promise<void> {
    const buffer = this.#buffer;
    const start = buffer.length;
    const { found, checksum } = await this.#options.guardMaps(async () => {
      const found = await inTurns(this.#state.serializing(slice, buffer), this.#options.clock);
      return { found, checksum: await this.#sum(buffer.bytes.subarray(start)) };
    });
    const length = buffer.length - start;
    const offset = length === 0 ? 0 : this.#placeFor(slot, slice, length);
    const place = { entry: length === 0 ? EMPTY_SLICE : { ...found, offset, checksum }, changes: undefined };
    slot.places[slice] = place;
    batch.places.push({ place, changes });
    const last = batch.writes.at(-1);
    if (last !== undefined && last.offset + last.end - last.start === offset) last.end = buffer.length;
    else if (length > 0) batch.writes.push({ offset, start, end: buffer.length });
  }

  /** Writes the slices of a batch, empties it, and returns the number of bytes. */
  async #writeBatch(file: File, batch: Batch): Promise<number> {
    const { bytes, length } = this.#buffer;
    for (const { offset, start, end } of batch.writes.splice(0)) await file.write(bytes.subarray(start, end), offset);
    for (const { place, changes } of batch.places.splice(0)) place.changes = changes;
    this.#buffer.truncate(0);
    return length;
  }

  async #sum(bytes: Uint8Array): Promise<number> {
    let checksum = 0;
    for (let at = 0; at < bytes.length; at += SUM_BYTES) {
      if (at > 0) await this.#options.clock.turn?.();
      checksum = this.#options.core.crc32c(bytes.subarray(at, at + SUM_BYTES), checksum);
    }
    return checksum;
  }

  /** Where a slice of `bytes` is written: its present place if there is room behind it, else the first that fits. */
  #placeFor(slot: SlotContents, slice: number, bytes: number): number {
    const present = slot.places[slice]?.entry;
    if (present !== undefined && bytes <= bytesOfEntry(present)) return present.offset;
    const others = slot.places.flatMap((place, index) =>
      place === undefined || index === slice || bytesOfEntry(place.entry) === 0 ? [] : [place.entry],
    );
    const { end, used } = this.#extentOf(others);
    if (end - this.#start - used < bytes) return end;
    let at = this.#start;
    for (const other of others.sort((one, another) => one.offset - another.offset)) {
      if (other.offset - at >= bytes) break;
      at = other.offset + bytesOfEntry(other);
    }
    return at;
  }

  /** Where the last of the slices ends, and the bytes of all of them. */
  #extentOf(entries: readonly SliceEntry[]): { end: number; used: number } {
    let end = this.#start;
    let used = 0;
    for (const entry of entries) {
      if (bytesOfEntry(entry) === 0) continue;
      end = Math.max(end, entry.offset + bytesOfEntry(entry));
      used += bytesOfEntry(entry);
    }
    return { end, used };
  }

  /** The identity and the directory. */
  #directory(entries: readonly SliceEntry[]): Uint8Array {
    const identity = this.#identity ?? new Uint8Array(0);
    const bytes = newBytes(padded(identity.length) + entries.length * DIRECTORY_ENTRY_BYTES);
    bytes.set(identity);
    encodeDirectory(entries, bytes.subarray(padded(identity.length)));
    return bytes;
  }

  #header(
    { epoch, standalone, restIsZero }: { epoch: number; standalone: boolean; restIsZero: boolean },
    entries: readonly SliceEntry[],
    directory: Uint8Array,
  ): Uint8Array {
    const { core, session } = this.#options;
    const { size, blockSize } = this.#state.geometry;
    return encodeCheckpointHeader(core, {
      session,
      epoch,
      size,
      blockSize,
      standalone,
      restIsZero,
      bytes: this.#extentOf(entries).end,
      directoryChecksum: core.crc32c(directory),
      identityBytes: this.#identity?.length,
      ...countsOf(entries),
    });
  }
}
