/**
 * Reads the metadata of a copy: both formats, in any state that a crash leaves. Rule numbers below are those of
 * docs/FORMAT.md, "Recovery". Recovery changes nothing on disk: an inspection uses it too, and it may be interrupted
 * anywhere.
 */

import { inTurns, type TurningClock } from '../async/turns.ts';
import { CopyState } from '../core/copy-state.ts';
import { type Geometry, geometry as makeGeometry } from '../core/geometry.ts';
import {
  type CheckpointHeader,
  decodeCheckpointHeader,
  decodeLogHeader,
  foreignFile,
  type LogHeader,
} from '../core/headers.ts';
import { FORMAT1_BLOCK_SIZE, HEADER_BYTES, MAX_EMPTY_CHECKPOINT_BYTES, SECTOR_BYTES } from '../core/layout.ts';
import { LogScan, type LogScanResult, Replay } from '../core/replay.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import { parsing, sharedCore } from '../wasm/cores.ts';
import { readCheckpoint } from './checkpoint-reader.ts';
import { recoverFormat1 } from './format1.ts';
import { type Extent, Proof, type ReadTarget } from './proof.ts';
import { feedFile, type MetadataFile, type RecoveredState } from './recovered-state.ts';
import { ALL_SLOTS, beginningOf, type FileKind, type SlotIndex, type Slots, slotOf } from './slots.ts';

/** The target, as recovery reads it. */
interface Storage {
  size(): Promise<number>;
  readonly read: ReadTarget;
  readonly isLive?: boolean;
}

/** The logs of a live copy are read at most this often. */
const MAX_LOOKS = 50;

type Header = CheckpointHeader | LogHeader;

/** A metadata file and its header. */
interface FoundFile<H = Header | 'format1' | 'absent' | 'blank'> {
  readonly name: string;
  readonly kind: FileKind;
  readonly slot: SlotIndex;
  readonly file: File;
  readonly bytes: number;
  readonly header: H;
}

type FoundCheckpoint = FoundFile<CheckpointHeader>;
type FoundLog = FoundFile<LogHeader>;

/** Runs `task` and adds the file's name to its error. */
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

/**
 * Recovers the state of a copy. Returns undefined if there is none.
 *
 * @param target.size returns the device's size in bytes. Called only for format 1, which does not store it.
 * @param target.read reads the target. Called only for records behind the last barrier.
 * @param target.isLive whether an owner may change target and logs meanwhile. The headers must stay as they are.
 * @param clock lets the event loop turn between steps
 * @throws {@link CodError} COD_CORRUPT, COD_VERSION, and the errors of the file system.
 */
export async function recover(
  core: Core,
  slots: Slots,
  target: Storage,
  clock: TurningClock = {},
): Promise<RecoveredState | undefined> {
  const found = await readHeaders(core, slots);
  if (found.some(({ header }) => typeof header === 'object')) return recoverFormat2(core, found, target, clock);
  const old = found.filter(({ header }) => header === 'format1');
  // Rule 2: the first checkpoint was being made. No log is made before it is durable, and unless it converts a copy of
  // format 1, it has no block.
  for (const { name, kind, bytes, header } of found)
    if (header === 'absent' && (kind === 'log' || (old.length === 0 && bytes > MAX_EMPTY_CHECKPOINT_BYTES)))
      throw missingCheckpoint(name);
  if (old.length === 0) return undefined;
  return recoverFormat1(core, old, makeGeometry({ size: await target.size(), blockSize: FORMAT1_BLOCK_SIZE }), clock);
}

/**
 * As {@link recover}, for a device: the state is in the instance of the core that devices share.
 *
 * @returns that instance, also if there is no state
 */
export async function recoverForUse(
  slots: Slots,
  target: Storage,
  clock: TurningClock,
): Promise<{ core: Core; found: RecoveredState | undefined }> {
  return parsing(async (parser) => {
    const found = await recover(parser, slots, target, clock);
    if (found === undefined) return { core: sharedCore(), found };
    const { state } = found;
    try {
      const core = sharedCore(state.mostCoreBytes);
      await inTurns(state.moving(core), clock);
      return { core, found };
    } catch (error) {
      state.dispose();
      throw error;
    }
  });
}

/**
 * Recovers the state of the newest checkpoint, which is at least that of the moment in which its log began. Its sums
 * prove it, so its owner may do anything meanwhile. Returns undefined if there is none, or if `isEnough` refuses its
 * epoch.
 */
export async function recoverCheckpoint(
  core: Core,
  slots: Slots,
  isEnough: (epoch: number) => boolean,
): Promise<RecoveredState | undefined> {
  // The checkpoints last, since they change soon.
  const found = await readHeaders(core, slots, [...ALL_SLOTS].reverse());
  const newest = found.reduce(
    (epoch, { kind, header }) =>
      kind === 'checkpoint' && typeof header === 'object' ? Math.max(epoch, header.epoch) : epoch,
    -1,
  );
  return newest >= 0 && isEnough(newest) ? recoverFormat2(core, found, undefined, {}) : undefined;
}

/** Rule 1, first half: a damaged header is COD_CORRUPT, and a file that is not ours is COD_EXISTS. */
async function readHeaders(core: Core, slots: Slots, order = ALL_SLOTS): Promise<FoundFile[]> {
  const found: FoundFile[] = [];
  for (const { kind, slot } of order) {
    const name = slots.name(kind, slot);
    const state = await inFile(name, async () => {
      const file = await slots.find(kind, slot);
      if (file === undefined) return undefined;
      const bytes = await file.size();
      const read = await beginningOf(file);
      const decoded = kind === 'log' ? decodeLogHeader(core, read) : decodeCheckpointHeader(core, read);
      if (decoded.state === 'blank' && bytes > HEADER_BYTES) throw foreignFile();
      return { name, kind, slot, file, bytes, header: decoded.state === 'valid' ? decoded.header : decoded.state };
    });
    if (state !== undefined) found.push(state);
  }
  return found;
}

function missingCheckpoint(file: string): CodError {
  return corrupt(`${file}: a checkpoint is missing`, { file });
}

/** @param target undefined: no log counts */
async function recoverFormat2(
  core: Core,
  found: readonly FoundFile[],
  target: Storage | undefined,
  clock: TurningClock,
): Promise<RecoveredState> {
  const { checkpoints, logs } = ofOneSession(found);
  const checkpoint = newestCheckpoint(checkpoints, logs);
  const { header } = checkpoint;
  if (target !== undefined) refuseLaterLogs(logs, header.epoch);
  const shape = makeGeometry({ size: header.size, blockSize: header.blockSize });
  const state = await CopyState.open(core, shape);
  try {
    const { file } = checkpoint;
    const identity = await inFile(checkpoint.name, () => readCheckpoint({ core, file, header, clock }, state));
    const checkpointRecords = state.dirtyParts;
    const { scans, bothLogs, proved } =
      target === undefined ? NO_LOGS : await readLogs({ core, shape, logs, clock }, header, state, target);
    const isThere = ({ header }: FoundFile): boolean => typeof header === 'object' || header === 'format1';
    const files = inOrder(found)
      .filter(isThere)
      .map((file) => listed(file, scans.get(file.name)));
    return {
      format: 2,
      state,
      files: files.map((file) => (file.name === checkpoint.name ? { ...file, records: checkpointRecords } : file)),
      session: header.session,
      epoch: header.epoch,
      bothLogs,
      identity: identity && new TextDecoder().decode(identity),
      restIsZero: header.restIsZero,
      proved,
    };
  } catch (error) {
    state.dispose();
    throw error;
  }
}

/** What the logs say. */
interface LogsRead {
  readonly scans: ReadonlyMap<string, LogScanResult>;
  readonly bothLogs: boolean;
  readonly proved: readonly Extent[];
  readonly lost: ReadonlyMap<number, number>;
}

const NO_LOGS: LogsRead = { scans: new Map(), bothLogs: false, proved: [], lost: new Map() };

/**
 * Adds to the state what the logs say.
 *
 * Between the reads of log and target, a live owner may change a cell, so that it matches no record that was read. The
 * record of what it read as is in the log then, or a barrier has made its records firm: reading the logs again tells. A
 * cell is lost only if it still reads the same after that.
 */
async function readLogs(
  context: LogsContext,
  checkpoint: CheckpointHeader,
  state: CopyState,
  { read, isLive = false }: Storage,
): Promise<LogsRead> {
  let found = await readLogsOnce(context, checkpoint, state, read);
  for (let looks = 1, isSettled = !isLive; !isSettled && found.lost.size > 0 && looks < MAX_LOOKS; looks++) {
    const { lost } = found;
    found = await readLogsOnce(context, checkpoint, state, read, lost);
    isSettled = [...found.lost].every(([cell, sum]) => lost.get(cell) === sum);
  }
  return found;
}

async function readLogsOnce(
  context: LogsContext,
  checkpoint: CheckpointHeader,
  state: CopyState,
  read: ReadTarget,
  seen?: ReadonlyMap<number, number>,
): Promise<LogsRead> {
  const { core, shape, clock } = context;
  const replay = new Replay(core, shape);
  const changed = new Replay(core, shape, 'changed');
  const proof = new Proof(core, shape.size);
  try {
    const replayed = await replayLogs({ ...context, replay, changed, proof }, checkpoint);
    await inTurns(state.merging(replay), clock);
    const proved = await proof.judge(read, state, clock, seen);
    await inTurns(state.mergingModified(changed), clock);
    return { ...replayed, proved, lost: proof.lost };
  } finally {
    replay.dispose();
    changed.dispose();
  }
}

/** The order of {@link ALL_SLOTS}. */
function inOrder(found: readonly FoundFile[]): FoundFile[] {
  return ALL_SLOTS.flatMap(({ kind, slot }) => found.filter((file) => file.kind === kind && file.slot === slot));
}

function listed({ name, kind, header, bytes }: FoundFile, scan: LogScanResult | undefined): MetadataFile {
  const format = header === 'format1' ? 1 : 2;
  return { name, kind, format, bytes, records: scan?.records ?? 0, tornBytes: scan?.tornBytes ?? 0 };
}

/** Rule 1, second half: all files are of one session and shape, each in its own slot. */
function ofOneSession(found: readonly FoundFile[]): { checkpoints: FoundCheckpoint[]; logs: FoundLog[] } {
  const valid = found.filter((state): state is FoundFile<Header> => typeof state.header === 'object');
  const first = valid[0]!;
  for (const { header, name, slot } of valid) {
    if (slotOf(header.epoch) !== slot) {
      throw corrupt(`${name}: epoch ${header.epoch} belongs in the other slot: the two files were swapped`, {
        file: name,
        epoch: header.epoch,
      });
    }
    if (header.session.some((byte, index) => byte !== first.header.session[index])) {
      throw corrupt(`${name} and ${first.name} belong to different copies`, { file: name });
    }
    if (header.size !== first.header.size || header.blockSize !== first.header.blockSize) {
      throw corrupt(`${name} and ${first.name} differ in size or block size`, { file: name });
    }
  }
  return {
    checkpoints: valid.filter((state): state is FoundCheckpoint => state.kind === 'checkpoint'),
    logs: valid.filter((state): state is FoundLog => state.kind === 'log'),
  };
}

/** Rule 2: the valid checkpoint of the highest epoch counts. */
function newestCheckpoint(checkpoints: readonly FoundCheckpoint[], logs: readonly FoundLog[]): FoundCheckpoint {
  const [newest] = [...checkpoints].sort((one, other) => other.header.epoch - one.header.epoch);
  if (newest !== undefined) return newest;
  throw missingCheckpoint(logs[0]!.name);
}

/** Rule 3, first half: a log later than the next epoch follows a checkpoint that is missing. */
function refuseLaterLogs(logs: readonly FoundLog[], epoch: number): void {
  const later = logs.find(({ header }) => header.epoch > epoch + 1);
  if (later === undefined) return;
  throw corrupt(`${later.name}: epoch ${later.header.epoch}, but the newest checkpoint is of epoch ${epoch}`, {
    file: later.name,
  });
}

interface LogsContext {
  readonly core: Core;
  readonly shape: Geometry;
  readonly logs: readonly FoundLog[];
  readonly clock: TurningClock;
}

/** What reading the logs needs. */
interface Logs extends LogsContext {
  readonly replay: Replay;
  /** Collects the blocks that users changed. */
  readonly changed: Replay;
  readonly proof: Proof;
}

/** Rules 3 to 5: replays the log of the checkpoint's epoch, and the next one if it counts. */
async function replayLogs(
  context: Logs,
  checkpoint: CheckpointHeader,
): Promise<{ scans: Map<string, LogScanResult>; bothLogs: boolean }> {
  const { epoch } = checkpoint;
  const scans = new Map<string, LogScanResult>();
  const next = logOf(context, epoch + 1);
  let bothLogs = false;
  let nextScan: LogScanResult | undefined;
  if (!checkpoint.standalone) {
    // Rule 4.
    const own = logOf(context, epoch);
    if (own === undefined) throw corrupt(`the log of epoch ${epoch} is missing`, { epoch });
    const scan = await checkedScan(context, own);
    scans.set(own.name, scan);
    // Rule 5.
    bothLogs = scan.continued && next !== undefined;
    if (bothLogs) {
      nextScan = await checkedScan(context, next!);
      scans.set(next!.name, nextScan);
    }
    await replayLog(context, own, scan, nextScan?.hasBarrier ? scan.frames : scan.barrierThrough);
    if (nextScan !== undefined) await replayLog(context, next!, nextScan, nextScan.barrierThrough);
  }
  const found = next === undefined ? undefined : (nextScan ?? (await scanLeniently(context, next)));
  if (found?.basedAnywhere) {
    // Rule 3, second half.
    throw missingCheckpoint(next!.name);
  }
  if (found?.hasBarrier && !bothLogs) {
    const message = `the log of epoch ${epoch} is damaged: the next one says that it was durable`;
    throw corrupt(message, { epoch });
  }
  return { scans, bothLogs };
}

function logOf({ logs }: Logs, epoch: number): FoundLog | undefined {
  return logs.find(({ header }) => header.epoch === epoch);
}

async function checkedScan(context: Logs, log: FoundLog): Promise<LogScanResult> {
  return inFile(log.name, async () => {
    const scan = await scanLog(context, log);
    if (!scan.isDamaged) return scan;
    const { frames, endOffset } = scan;
    throw corrupt(`log frame ${frames} at offset ${endOffset} was durable, but it is missing or damaged`, {
      offset: endOffset,
      sequence: frames,
    });
  });
}

/**
 * Replays the frames below `through`, and collects the others for {@link Proof}. A block may be modified whether a
 * frame is firm or not.
 */
async function replayLog(context: Logs, log: FoundLog, scan: LogScanResult, through: number): Promise<void> {
  const { replay, changed, proof, clock } = context;
  const end = Math.ceil(scan.endOffset / SECTOR_BYTES) * SECTOR_BYTES;
  let at = HEADER_BYTES;
  await inFile(log.name, () =>
    feedFile(log.file, { start: HEADER_BYTES, end }, async (piece) => {
      // Whatever follows the last frame in its sector does not count, and may look like a frame.
      piece.fill(0, scan.endOffset - at);
      at += piece.length;
      proof.collect(piece, { from: through, to: scan.frames });
      replay.format2(piece, through);
      changed.format2(piece, scan.frames);
      // To collect a piece takes up to 3 ms.
      await clock.turn?.();
    }),
  );
}

async function scanLog({ core, shape }: Logs, { header, file, bytes }: FoundLog): Promise<LogScanResult> {
  if (bytes !== header.capacity) {
    throw corrupt(`log has ${bytes} bytes, but its header says ${header.capacity}`, {
      bytes,
      expected: header.capacity,
    });
  }
  const scan = new LogScan(core, shape, { epoch: header.epoch, capacity: header.capacity });
  try {
    await feedFile(file, { start: HEADER_BYTES, end: bytes }, (piece) => scan.feed(piece));
    return scan.finish();
  } finally {
    scan.dispose();
  }
}

/** Scans a log that does not count: it may hold anything that a crash leaves. */
async function scanLeniently(context: Logs, log: FoundLog): Promise<LogScanResult | undefined> {
  try {
    return await scanLog(context, log);
  } catch (error) {
    if (isCodError(error, 'COD_CORRUPT')) return undefined;
    throw error;
  }
}
