/** Reading the states that datto/copyondemand leaves (docs/FORMAT.md, Format 1). */

import { BlockMap } from '../core/block-map.ts';
import { DirtyMap } from '../core/dirty-map.ts';
import { CodError } from '../core/errors.ts';
import { bytesOfBlock, type Geometry } from '../core/geometry.ts';
import { FORMAT1_HEADER_BYTES } from '../core/headers.ts';
import { Replay } from '../core/replay.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import { feedFile, type MetadataFile, type RecoveredState } from './recovered-state.ts';
import type { FileKind, SlotIndex } from './slots.ts';

/** More than any map of that program: what is longer is no checkpoint. */
const MAX_CHECKPOINT_BYTES = 2 ** 31;

interface Format1File {
  readonly name: string;
  readonly kind: FileKind;
  readonly slot: SlotIndex;
  readonly file: File;
  readonly bytes: number;
}

class Words {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = FORMAT1_HEADER_BYTES;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get at(): number {
    return this.#at;
  }

  next(): number {
    if (this.#at + 8 > this.#bytes.length) throw this.#short(8);
    const word = this.#view.getBigUint64(this.#at, true);
    if (word > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new CodError('COD_CORRUPT', `checkpoint word at offset ${this.#at} is 0x${word.toString(16)}`, {
        details: { offset: this.#at },
      });
    }
    this.#at += 8;
    return Number(word);
  }

  take(length: number): Uint8Array {
    if (this.#at + length > this.#bytes.length) throw this.#short(length);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  #short(wanted: number): CodError {
    return new CodError(
      'COD_CORRUPT',
      `checkpoint ends at ${this.#bytes.length} where ${wanted} bytes at offset ${this.#at} are due: cut short`,
      {
        details: { offset: this.#at, bytes: this.#bytes.length },
      },
    );
  }
}

/** Loads a checkpoint into empty maps and returns its number of dirty parts. */
async function loadCheckpoint(state: Format1File, shape: Geometry, map: BlockMap, dirty: DirtyMap): Promise<number> {
  if (state.bytes > MAX_CHECKPOINT_BYTES) throw new CodError('COD_CORRUPT', `${state.name}: ${state.bytes} bytes are no checkpoint`);
  const bytes = new Uint8Array(state.bytes);
  await state.file.read(bytes, 0);
  const words = new Words(bytes);
  try {
    for (let index = 0, length = words.next(); length !== 0; length = words.next(), index++) map.loadFormat1(index, words.take(length));
    let parts = 0;
    for (let type = words.next(); type !== 0; type = words.next(), parts++) {
      const at = words.at - 8;
      const [block, offset, length] = [words.next(), words.next(), words.next()];
      if (type !== 1 || length === 0 || offset + length > shape.blockSize) {
        throw new CodError('COD_CORRUPT', `dirty part at offset ${at}: type ${type}, block ${block}, bytes ${offset} + ${length}`, {
          details: { offset: at },
        });
      }
      if (block < shape.blockCount && !map.has(block)) addPart(shape, map, dirty, { block, start: offset, end: offset + length });
    }
    return parts;
  } catch (error) {
    if (error instanceof CodError)
      throw new CodError(error.code, `${state.name}: ${error.message}`, { details: { ...error.details, file: state.name } });
    throw error;
  }
}

function addPart(shape: Geometry, map: BlockMap, dirty: DirtyMap, part: { block: number; start: number; end: number }): void {
  const blockBytes = bytesOfBlock(shape, part.block);
  if (part.start >= blockBytes) return;
  const added = dirty.add(part.block, part.start, Math.min(part.end, blockBytes));
  if (added === 'complete') map.add(part.block, part.block + 1);
  if (added === 'full') throw new CodError('COD_NO_SPACE', `more than ${dirty.partCount} dirty parts`);
}

/**
 * Reads a state of format 1.
 * @throws {@link CodError} COD_CORRUPT for anything but a torn tail of a log.
 */
export async function recoverFormat1(core: Core, states: readonly Format1File[], shape: Geometry): Promise<RecoveredState> {
  const find = (kind: FileKind, slot: SlotIndex) => states.find((state) => state.kind === kind && state.slot === slot);
  const failover = find('checkpoint', 1);
  const checkpoint = failover ?? find('checkpoint', 0);
  const map = await BlockMap.open(shape);
  const dirty = new DirtyMap(core, shape);
  const replay = new Replay(core, shape);
  try {
    const records = new Map<string, { records: number; tornBytes: number }>();
    if (checkpoint !== undefined) {
      records.set(checkpoint.name, { records: await loadCheckpoint(checkpoint, shape, map, dirty), tornBytes: 0 });
    }
    for (const log of [find('log', 1), find('log', 0)]) {
      if (log === undefined) continue;
      await feedFile(core, log.file, { start: FORMAT1_HEADER_BYTES, end: log.bytes }, (piece) => replay.format1(piece));
      records.set(log.name, replay.endFormat1());
    }
    replay.emit(map, dirty);
    const files = states.map(
      ({ name, kind, bytes }): MetadataFile => ({ name, kind, format: 1, bytes, records: 0, tornBytes: 0, ...records.get(name) }),
    );
    return {
      format: 1,
      geometry: shape,
      map,
      dirty,
      files,
      session: undefined,
      epoch: failover === undefined ? 0 : 1,
      bothLogs: false,
      identity: undefined,
    };
  } catch (error) {
    map.dispose();
    dirty.dispose();
    throw error;
  } finally {
    replay.dispose();
  }
}
