/** Reads the metadata that datto/copyondemand writes (docs/FORMAT.md, Format 1). */

import { inTurns, type TurningClock } from '../async/turns.ts';
import { CopyState } from '../core/copy-state.ts';
import { addFormat1Bitmap } from '../core/format1-bitmaps.ts';
import { Format1Replay } from '../core/format1-replay.ts';
import type { Geometry } from '../core/geometry.ts';
import { CONTAINER_BLOCKS, FORMAT1_HEADER_BYTES } from '../core/layout.ts';
import { newBytes } from '../core/new-bytes.ts';
import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import { feedFile, type MetadataFile, type RecoveredState } from './recovered-state.ts';
import type { FileKind, SlotIndex } from './slots.ts';

/** Bytes read at a time. A checkpoint may have many parts, and a damaged one may claim more than the file holds. */
const WINDOW_BYTES = 2 ** 18;
/** The most bytes of a container. One of runs that do not touch takes at most 2^17 bytes, and other kinds take less. */
const CONTAINER_BYTES = 2 ** 17 + 16;

interface Format1File {
  readonly name: string;
  readonly kind: FileKind;
  readonly slot: SlotIndex;
  readonly file: File;
  readonly bytes: number;
}

/** Reads a checkpoint word by word. Holds only a window of it in memory. */
class Words {
  readonly #state: Format1File;
  #window = new DataView(new ArrayBuffer(0));
  /** Offsets in the file: of the window, and of the next word. */
  #windowAt = FORMAT1_HEADER_BYTES;
  #at = FORMAT1_HEADER_BYTES;

  constructor(state: Format1File) {
    this.#state = state;
  }

  get at(): number {
    return this.#at;
  }

  /** Makes sure that the next `bytes` bytes are in memory. */
  async need(bytes: number): Promise<void> {
    if (this.#at + bytes <= this.#windowAt + this.#window.byteLength) return;
    if (this.#at + bytes > this.#state.bytes) {
      throw new CodError(
        'COD_CORRUPT',
        `checkpoint ends at ${this.#state.bytes}, but needs ${bytes} bytes at offset ${this.#at}: it is cut short`,
        {
          details: { offset: this.#at, bytes: this.#state.bytes },
        },
      );
    }
    const window = newBytes(Math.min(Math.max(bytes, WINDOW_BYTES), this.#state.bytes - this.#at));
    await this.#state.file.read(window, this.#at);
    this.#window = new DataView(window.buffer);
    this.#windowAt = this.#at;
  }

  /** Returns the next word, which {@link need} must have covered. */
  next(): number {
    const word = this.#window.getBigUint64(this.#at - this.#windowAt, true);
    if (word > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new CodError(
        'COD_CORRUPT',
        `checkpoint word at offset ${this.#at} is 0x${word.toString(16)}, above 2^53 - 1`,
        {
          details: { offset: this.#at },
        },
      );
    }
    this.#at += 8;
    return Number(word);
  }

  /** Returns the next bytes, which {@link need} must have covered. */
  take(length: number): Uint8Array {
    this.#at += length;
    return new Uint8Array(this.#window.buffer, this.#at - length - this.#windowAt, length);
  }
}

/** Loads a checkpoint into an empty state and returns its number of dirty parts. */
async function loadCheckpoint(file: Format1File, state: CopyState): Promise<number> {
  const { blockCount, blockSize } = state.geometry;
  const words = new Words(file);
  const next = async (): Promise<number> => {
    await words.need(8);
    return words.next();
  };
  // A bitmap has one block more than the device.
  const mostBitmapBytes = (2 + Math.ceil(blockCount / CONTAINER_BLOCKS)) * CONTAINER_BYTES;
  try {
    for (let index = 0, length = await next(); length !== 0; length = await next(), index++) {
      if (length > mostBitmapBytes) {
        throw new CodError('COD_CORRUPT', `bitmap ${index} has ${length} bytes, too many for ${blockCount} blocks`, {
          details: { length },
        });
      }
      await words.need(length);
      addFormat1Bitmap(state, state.geometry, index, words.take(length));
    }
    let parts = 0;
    for (let type = await next(); type !== 0; type = await next(), parts++) {
      const at = words.at - 8;
      await words.need(24);
      const [block, offset, length] = [words.next(), words.next(), words.next()];
      if (type !== 1 || length === 0 || offset + length > blockSize) {
        throw new CodError(
          'COD_CORRUPT',
          `invalid dirty part at offset ${at}: type ${type}, block ${block}, ${length} bytes at ${offset}`,
          { details: { offset: at } },
        );
      }
      applyPart(state, block, offset, offset + length);
    }
    return parts;
  } catch (error) {
    if (!(error instanceof CodError)) throw error;
    throw new CodError(error.code, `${file.name}: ${error.message}`, {
      details: { ...error.details, file: file.name },
    });
  }
}

/** Applies a part of a block. Drops what lies beyond the device: format 1 counts one block too many. */
function applyPart(state: CopyState, block: number, start: number, end: number): void {
  const { size, blockSize, blockCount } = state.geometry;
  if (block >= blockCount) return;
  const offset = block * blockSize + start;
  const stop = Math.min(block * blockSize + end, size);
  if (offset < stop) state.apply(offset, stop - offset);
}

/**
 * Recovers a state of format 1.
 * @throws {@link CodError} COD_CORRUPT for any damage but a torn tail of a log.
 */
export async function recoverFormat1(
  core: Core,
  states: readonly Format1File[],
  shape: Geometry,
  clock: TurningClock,
): Promise<RecoveredState> {
  const find = (kind: FileKind, slot: SlotIndex) => states.find((state) => state.kind === kind && state.slot === slot);
  const failover = find('checkpoint', 1);
  const checkpoint = failover ?? find('checkpoint', 0);
  const state = await CopyState.open(core, shape);
  const replay = new Format1Replay(core, shape);
  try {
    const records = new Map<string, { records: number; tornBytes: number }>();
    if (checkpoint !== undefined) {
      records.set(checkpoint.name, { records: await loadCheckpoint(checkpoint, state), tornBytes: 0 });
    }
    for (const log of [find('log', 1), find('log', 0)]) {
      if (log === undefined) continue;
      await feedFile(log.file, { start: FORMAT1_HEADER_BYTES, end: log.bytes }, (piece) => {
        replay.format1(piece);
        return !replay.hasEnded;
      });
      records.set(log.name, replay.endFormat1());
    }
    await inTurns(state.merging(replay), clock);
    await inTurns(state.modifyingAll(), clock);
    const files = states.map(
      ({ name, kind, bytes }): MetadataFile => ({
        name,
        kind,
        format: 1,
        bytes,
        records: 0,
        tornBytes: 0,
        ...records.get(name),
      }),
    );
    return {
      format: 1,
      state,
      files,
      session: undefined,
      epoch: failover === undefined ? 0 : 1,
      bothLogs: false,
      proved: [],
      identity: undefined,
      restIsZero: false,
    };
  } catch (error) {
    state.dispose();
    throw error;
  } finally {
    replay.dispose();
  }
}
