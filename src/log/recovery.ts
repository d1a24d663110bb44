/**
 * Reading what is on disk: both formats, whatever a crash left of them (docs/FORMAT.md, Recovery). Reads only, so that it serves an
 * inspection as well as an open, and can be cut at any point.
 */

import { BlockMap } from '../core/block-map.ts';
import { DirtyMap } from '../core/dirty-map.ts';
import { type Geometry, geometry as makeGeometry } from '../core/geometry.ts';
import { type CheckpointHeader, decodeCheckpointHeader, decodeLogHeader, type LogHeader } from '../core/headers.ts';
import { FORMAT1_BLOCK_SIZE, HEADER_BYTES, SECTOR_BYTES } from '../core/layout.ts';
import { LogScan, type LogScanResult, Replay } from '../core/replay.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import { readCheckpointBody } from './checkpoint.ts';
import { recoverFormat1 } from './format1.ts';
import { feedFile, type MetadataFile, type RecoveredState } from './recovered-state.ts';
import { ALL_SLOTS, type FileKind, type SlotIndex, type Slots, slotOf } from './slots.ts';
import { bootNameBytes } from './write-intent-log.ts';

type Header = CheckpointHeader | LogHeader;

interface SlotState {
  readonly name: string;
  readonly kind: FileKind;
  readonly slot: SlotIndex;
  readonly file: File;
  readonly bytes: number;
  readonly header: Header | 'format1' | 'absent';
}

/** Adds the file's name to what is wrong with it. */
async function inFile<T>(name: string, task: () => Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (error) {
    if (!(error instanceof CodError) || error.details['file'] !== undefined) throw error;
    throw new CodError(error.code, `${name}: ${error.message}`, {
      cause: error.cause,
      details: { ...error.details, file: name },
    });
  }
}

function corrupt(message: string, details: Record<string, unknown> = {}): CodError {
  return new CodError('COD_CORRUPT', message, { details });
}

async function readSlots(core: Core, slots: Slots): Promise<SlotState[]> {
  const found: SlotState[] = [];
  for (const { kind, slot } of ALL_SLOTS) {
    const name = slots.name(kind, slot);
    const state = await inFile(name, async () => {
      const file = await slots.find(kind, slot);
      if (file === undefined) return undefined;
      const bytes = await file.size();
      const sector = new Uint8Array(HEADER_BYTES);
      const length = Math.min(bytes, HEADER_BYTES);
      await file.read(sector.subarray(0, length), 0);
      return { name, kind, slot, file, bytes, header: readHeader(core, kind, sector, length) };
    });
    if (state !== undefined) found.push(state);
  }
  return found;
}

function readHeader(core: Core, kind: FileKind, sector: Uint8Array, length: number): SlotState['header'] {
  const read = sector.subarray(0, length);
  const decoded = kind === 'log' ? decodeLogHeader(core, read) : decodeCheckpointHeader(core, read);
  return decoded.state === 'valid' ? decoded.header : decoded.state;
}

/** A state of format 2, checked across its files: all of one session and shape, each in its slot. */
interface Session {
  readonly checkpoints: readonly (SlotState & { header: CheckpointHeader })[];
  readonly logs: readonly (SlotState & { header: LogHeader })[];
}

function oneSession(states: readonly SlotState[]): Session {
  const valid = states.filter((state): state is SlotState & { header: Header } => typeof state.header === 'object');
  const first = valid[0];
  for (const state of valid) {
    const { header, name } = state;
    if (slotOf(header.epoch) !== state.slot) {
      throw corrupt(`${name}: epoch ${header.epoch} belongs into the other slot: the two files were swapped`, {
        file: name,
        epoch: header.epoch,
      });
    }
    if (first === undefined) continue;
    const { header: other } = first;
    if (header.session.some((byte, index) => byte !== other.session[index])) {
      throw corrupt(`${name} and ${first.name} belong to different copies`, { file: name });
    }
    if (header.size !== other.size || header.blockSize !== other.blockSize) {
      throw corrupt(`${name} and ${first.name} speak of devices of different shape`, { file: name });
    }
  }
  return {
    checkpoints: valid.filter(
      (state): state is SlotState & { header: CheckpointHeader } => state.kind === 'checkpoint',
    ),
    logs: valid.filter((state): state is SlotState & { header: LogHeader } => state.kind === 'log'),
  };
}

interface LogReading {
  readonly scan: LogScanResult;
  readonly sameBoot: boolean;
}

async function scanLog(core: Core, shape: Geometry, log: SlotState & { header: LogHeader }): Promise<LogScanResult> {
  const { header, file, bytes } = log;
  if (bytes !== header.capacity) {
    throw corrupt(`log has ${bytes} bytes where its header says ${header.capacity}`, {
      bytes,
      expected: header.capacity,
    });
  }
  const scan = new LogScan(core, shape, { epoch: header.epoch, capacity: header.capacity });
  try {
    await feedFile(core, file, { start: HEADER_BYTES, end: bytes }, (piece) => scan.feed(piece));
    return scan.finish();
  } finally {
    scan.dispose();
  }
}

/** Scans a log, and applies the records that count. */
async function readLog(
  core: Core,
  shape: Geometry,
  replay: Replay,
  log: SlotState & { header: LogHeader },
  bootName: Uint8Array,
): Promise<LogReading> {
  const { header, file } = log;
  const result = await scanLog(core, shape, log);
  const sameBoot =
    bootName.length > 0 &&
    header.bootName.length === bootName.length &&
    header.bootName.every((byte, index) => byte === bootName[index]);
  if (result.missing && (sameBoot || result.missingIsFirm)) {
    throw corrupt(`log frame ${result.frames} at offset ${result.endOffset} is missing, and later ones are there`, {
      offset: result.endOffset,
      sequence: result.frames,
    });
  }
  const end = sameBoot ? result.endOffset : result.barrierEndOffset;
  const wholeSectors = Math.ceil(end / SECTOR_BYTES) * SECTOR_BYTES;
  let at = HEADER_BYTES;
  await feedFile(core, file, { start: HEADER_BYTES, end: wholeSectors }, (piece) => {
    // Asked for before: the piece lies in memory that may move when it grows, and is empty then.
    const { length } = piece;
    replay.format2(piece, end - at);
    at += length;
  });
  return { scan: result, sameBoot };
}

/** Whether a log that does not count tells that its checkpoint was durable; what else is in it may be anything that a crash leaves. */
async function saysBased(core: Core, shape: Geometry, log: SlotState & { header: LogHeader }): Promise<boolean> {
  try {
    return (await scanLog(core, shape, log)).basedAnywhere;
  } catch (error) {
    if (isCodError(error, 'COD_CORRUPT')) return false;
    throw error;
  }
}

async function recoverFormat2(core: Core, states: readonly SlotState[], bootName: Uint8Array): Promise<RecoveredState> {
  const { checkpoints, logs } = oneSession(states);
  const newest = checkpoints.reduce<(typeof checkpoints)[number] | undefined>(
    (best, state) => (best === undefined || state.header.epoch > best.header.epoch ? state : best),
    undefined,
  );
  if (newest === undefined) {
    throw corrupt(`${logs[0]?.name}: a log is there, and no checkpoint that it could stand on`, {
      file: logs[0]?.name,
    });
  }
  const { header } = newest;
  const { epoch } = header;
  const shape = makeGeometry({ size: header.size, blockSize: header.blockSize });
  const map = await BlockMap.open(shape);
  const dirty = new DirtyMap(core, shape);
  const replay = new Replay(core, shape);
  try {
    const { sections, checkpointParts } = await inFile(newest.name, async () => {
      const sections = await readCheckpointBody(core, newest.file, header);
      map.load(sections.bitmaps);
      dirty.load(sections.dirty);
      if (map.count !== header.syncedBlocks || dirty.blockCount !== header.dirtyBlocks) {
        throw corrupt(
          `checkpoint holds ${map.count} synced and ${dirty.blockCount} dirty blocks where its header says ${header.syncedBlocks} and ${header.dirtyBlocks}`,
        );
      }
      return { sections, checkpointParts: dirty.partCount };
    });
    const readings = new Map<string, LogReading>();
    const logOf = (wanted: number) => logs.find((log) => log.header.epoch === wanted);
    for (const log of logs) {
      if (log.header.epoch > epoch + 1) {
        throw corrupt(
          `${log.name}: log of epoch ${log.header.epoch}, but the newest checkpoint is of epoch ${epoch}: a checkpoint is missing`,
          {
            file: log.name,
          },
        );
      }
    }
    const read = async (log: SlotState & { header: LogHeader }): Promise<LogReading> => {
      const reading = await inFile(log.name, () => readLog(core, shape, replay, log, bootName));
      readings.set(log.name, reading);
      return reading;
    };
    let continued = false;
    if (!header.standalone) {
      const own = logOf(epoch);
      if (own === undefined)
        throw corrupt(`the log of epoch ${epoch} is missing, which belongs to ${newest.name}`, { epoch });
      const reading = await read(own);
      continued = reading.sameBoot && reading.scan.continued;
    }
    const next = logOf(epoch + 1);
    if (continued) {
      if (next === undefined)
        throw corrupt(`the log of epoch ${epoch + 1} is missing, in which that of epoch ${epoch} goes on`, {
          epoch: epoch + 1,
        });
      const reading = await read(next);
      if (!reading.sameBoot)
        throw corrupt(`${next.name}: this log goes on from one of another boot`, { file: next.name });
    }
    if (next !== undefined && (readings.get(next.name)?.scan.basedAnywhere ?? (await saysBased(core, shape, next)))) {
      throw corrupt(`${next.name}: its checkpoint, of epoch ${epoch + 1}, was durable and is missing`, {
        file: next.name,
      });
    }
    replay.emit(map, dirty);
    const files = states
      .filter((state) => typeof state.header === 'object' || state.header === 'format1')
      .map((state): MetadataFile => {
        const scan = readings.get(state.name)?.scan;
        return {
          name: state.name,
          kind: state.kind,
          format: state.header === 'format1' ? 1 : 2,
          bytes: state.bytes,
          records: state === newest ? checkpointParts : (scan?.records ?? 0),
          tornBytes: scan?.tornBytes ?? 0,
        };
      });
    return {
      format: 2,
      geometry: shape,
      map,
      dirty,
      files,
      session: header.session,
      epoch,
      bothLogs: continued,
      identity: sections.identity === undefined ? undefined : new TextDecoder().decode(sections.identity),
    };
  } catch (error) {
    map.dispose();
    dirty.dispose();
    throw error;
  } finally {
    replay.dispose();
  }
}

/**
 * Reads the state of a copy, or nothing where there is none.
 *
 * @param size the device's size in bytes, which format 1 does not tell; asked for only then.
 * @throws {@link CodError} COD_CORRUPT, COD_VERSION; what the file system says.
 */
export async function recover(
  core: Core,
  slots: Slots,
  size: () => Promise<number>,
): Promise<RecoveredState | undefined> {
  const states = await readSlots(core, slots);
  if (states.some((state) => typeof state.header === 'object'))
    return recoverFormat2(core, states, bootNameBytes(slots.fileSystem.bootId));
  const old = states.filter((state) => state.header === 'format1');
  if (old.length === 0) return undefined;
  const shape = makeGeometry({ size: await size(), blockSize: FORMAT1_BLOCK_SIZE });
  return recoverFormat1(core, old, shape);
}
