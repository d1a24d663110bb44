/**
 * Finds out what damaged metadata still proves (docs/FORMAT.md, Repair).
 *
 * Invariant: within a session, records only add to what is true. So whatever any intact part of any file says is true
 * now, however old the file is and whatever else is missing. The exception is a checkpoint that says that nothing is
 * copied: a removal made it, and what is older says nothing any more.
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
import { FORMAT1_BLOCK_SIZE, HEADER_BYTES, SLICE_BLOCKS } from '../core/layout.ts';
import { newBytes } from '../core/new-bytes.ts';
import { LogScan, type LogScanResult, Replay } from '../core/replay.ts';
import { bytesOfEntry } from '../core/slice-directory.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Core } from '../wasm/core.ts';
import { readDirectory, readSlice } from './checkpoint-reader.ts';
import { recoverFormat1 } from './format1.ts';
import { applyFrame, type FoundFrame, framesOf } from './found-frames.ts';
import { type Extent, Proof, type ReadTarget } from './proof.ts';
import { feedFile } from './recovered-state.ts';
import { beginningOf, type FileKind, type SlotIndex, slotOf } from './slots.ts';

/** A metadata file, and what its header says. `void`: no header was committed. */
export interface Part<H = CheckpointHeader | LogHeader | 'format1' | 'void' | 'damaged'> {
  readonly name: string;
  readonly kind: FileKind;
  readonly slot: SlotIndex;
  readonly file: File;
  readonly bytes: number;
  readonly header: H;
  /** Why the header cannot be read. */
  readonly problem: string | undefined;
}

type CheckpointPart = Part<CheckpointHeader>;
type LogPart = Part<LogHeader>;

/** Bytes of the device of which the metadata has lost what users wrote. */
export interface Suspect extends Extent {
  /** Users wrote no more bytes there than these. */
  readonly mostBytes: number;
}

/** What damaged metadata still proves. Owns `state`. */
export interface Salvage {
  readonly state: CopyState;
  /** The name of the source's content. Undefined if it has none or is lost. */
  readonly identity: string | undefined;
  /** Whether an intact file says which identity the source has, be it none. */
  readonly isIdentityKnown: boolean;
  /** Where users may have written what is lost. Empty: `state` is all that the metadata ever said. */
  readonly suspects: readonly Suspect[];
  /** What is damaged, one line for each file. */
  readonly problems: readonly string[];
  /** Bytes that count because the target reads as unfirm records say. */
  readonly proved: readonly Extent[];
}

/**
 * Reads the header of a file.
 * @param options.lenient the file may be a part of a copy, so a foreign header is a damaged one
 * @throws {@link CodError} COD_EXISTS for a foreign file, COD_VERSION; the errors of the file system.
 */
export async function readPart(
  core: Core,
  { name, kind, slot, file }: Pick<Part, 'name' | 'kind' | 'slot' | 'file'>,
  { lenient = false }: { lenient?: boolean } = {},
): Promise<Part> {
  const bytes = await file.size();
  const part = { name, kind, slot, file, bytes, problem: undefined };
  const sector = await beginningOf(file);
  try {
    const decoded = kind === 'log' ? decodeLogHeader(core, sector) : decodeCheckpointHeader(core, sector);
    if (decoded.state === 'blank' && bytes > HEADER_BYTES) throw foreignFile();
    if (decoded.state === 'valid') return { ...part, header: decoded.header };
    return { ...part, header: decoded.state === 'format1' ? 'format1' : 'void' };
  } catch (error) {
    if (isCodError(error, 'COD_CORRUPT') || (lenient && isCodError(error, 'COD_EXISTS')))
      return { ...part, header: 'damaged', problem: `${name}: ${error.message}` };
    if (!isCodError(error)) throw error;
    throw new CodError(error.code, `${name}: ${error.message}`, { details: { ...error.details, file: name } });
  }
}

export function isValid(part: Part): part is Part<CheckpointHeader | LogHeader> {
  return typeof part.header === 'object';
}

function isCheckpoint(part: Part): part is CheckpointPart {
  return isValid(part) && part.kind === 'checkpoint';
}

function isLog(part: Part): part is LogPart {
  return isValid(part) && part.kind === 'log';
}

/** What salvaging needs beside the files. */
export interface SalvageContext {
  readonly core: Core;
  readonly clock: TurningClock;
  readonly read: ReadTarget;
  /** Bytes of the target's file, where no header says how many bytes the device has. */
  readonly targetBytes: number | undefined;
}

/**
 * Collects what is proved.
 * @throws {@link CodError} COD_CORRUPT if the files are of several copies, or nothing says how large the device is.
 */
export async function salvage(context: SalvageContext, parts: readonly Part[]): Promise<Salvage> {
  const valid = parts.filter(isValid);
  refuseSeveralCopies(valid);
  const problems = parts.flatMap(({ problem }) => problem ?? []);
  const first = valid[0];
  if (first !== undefined) {
    const { size, blockSize } = first.header;
    return salvageFormat2(context, makeGeometry({ size, blockSize }), parts, problems);
  }
  if (!context.targetBytes)
    throw corrupt('neither metadata nor target say how large the device is: remove the copy (`copyondemand remove`)');
  const shape = makeGeometry({ size: context.targetBytes, blockSize: FORMAT1_BLOCK_SIZE });
  return salvageFormat1(context, shape, parts, problems);
}

/** Which of the files belongs to the target, nothing tells. */
function refuseSeveralCopies(valid: readonly Part<CheckpointHeader | LogHeader>[]): void {
  const [first] = valid;
  for (const { name, header } of valid) {
    const { session, size, blockSize } = first!.header;
    const isSame =
      session.every((byte, index) => byte === header.session[index]) &&
      size === header.size &&
      blockSize === header.blockSize;
    if (isSame) continue;
    const message = `${name} and ${first!.name} are of different copies: move those of the other copy, try again`;
    throw corrupt(message, { file: name });
  }
}

// Format 2

/** A checkpoint, as far as it is intact. */
interface ReadCheckpoint {
  readonly header: CheckpointHeader;
  readonly state: CopyState;
  /** What it says and cannot be read. */
  readonly suspects: readonly Suspect[];
  /** Absent if the directory is damaged. */
  readonly identity?: { readonly name: string | undefined };
}

/** A log, and what a scan by the rules of recovery finds: undefined if it is damaged. */
interface ReadLog {
  readonly part: LogPart;
  readonly scan: LogScanResult | undefined;
  /** The frames below this sequence are firm. */
  readonly through: number;
  /** Whether a frame proves that the log before is firm. */
  readonly provesEarlier: boolean;
  readonly hasBased: boolean;
}

async function salvageFormat2(
  context: SalvageContext,
  shape: Geometry,
  parts: readonly Part[],
  problems: string[],
): Promise<Salvage> {
  const { core, clock, read } = context;
  const state = await CopyState.open(core, shape);
  const checkpoints: ReadCheckpoint[] = [];
  const proof = new Proof(core, shape.size);
  try {
    for (const part of parts.filter(isCheckpoint))
      checkpoints.push(await readWhatIsIntact(context, shape, part, problems));
    checkpoints.sort((one, other) => other.header.epoch - one.header.epoch);
    const from = checkpoints.find(saysNothingIsCopied)?.header.epoch ?? -1;
    for (const each of checkpoints) if (each.header.epoch >= from) addAll(each.state, state);

    const logs: ReadLog[] = [];
    for (const part of parts.filter(isLog).sort((one, other) => one.header.epoch - other.header.epoch)) {
      if (part.header.epoch > from) logs.push(await readLog(core, shape, part, problems));
    }
    const firmBefore = Math.max(
      ...checkpoints.map(({ header }) => header.epoch),
      ...logs.filter(({ provesEarlier }) => provesEarlier).map(({ part }) => part.header.epoch),
    );
    const byEpoch = [
      ...logs.map(({ part, through }) => {
        const { epoch } = part.header;
        return { part: part as Part, epoch, through: epoch < firmBefore ? Number.POSITIVE_INFINITY : through };
      }),
      // No header says whose frames these are, so the target must prove each record.
      ...epochsOfDamagedLogs(parts).flatMap(({ part, epoch }) => (epoch > from ? [{ part, epoch, through: 0 }] : [])),
    ].sort((one, other) => one.epoch - other.epoch);
    for (const { part, epoch, through } of byEpoch) {
      for await (const frame of framesOf(core, part.file, part.bytes, epoch)) {
        if (!isAllowed(frame, shape)) continue;
        if (frame.sequence < through) applyFrame(frame, state);
        else proof.collect(frame.sector(), { from: 0, to: Number.POSITIVE_INFINITY });
        for (const { offset, length } of frame.changes) state.modify(offset, length);
      }
      await clock.turn?.();
    }
    const proved = await proof.judge(read, state, clock);

    const suspects = suspectsOf(shape, { checkpoints, logs, parts });
    await dropUnheld(core, state, clock);
    // A record that is lost may have said so.
    if (suspects.length > 0) await inTurns(state.modifyingAll(), clock);
    const known = checkpoints.find(({ identity }) => identity !== undefined)?.identity;
    return { state, identity: known?.name, isIdentityKnown: known !== undefined, suspects, problems, proved };
  } catch (error) {
    state.dispose();
    throw error;
  } finally {
    for (const { state: each } of checkpoints) each.dispose();
  }
}

/** A removal made it, or the copy was new: what is older is void. */
function saysNothingIsCopied({ header }: ReadCheckpoint): boolean {
  return header.standalone && header.syncedBlocks + header.dirtyBlocks === 0;
}

/** Reads the slices whose checksums match. */
async function readWhatIsIntact(
  { core, clock }: SalvageContext,
  shape: Geometry,
  part: CheckpointPart,
  problems: string[],
): Promise<ReadCheckpoint> {
  const { header, file, name } = part;
  const { size, blockSize } = shape;
  const suspects: Suspect[] = [];
  /** Returns undefined if what was read is damaged: then what it says of `extent` is lost. */
  const intact = async <T>(extent: Suspect, task: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await task();
    } catch (error) {
      if (!isCodError(error, 'COD_CORRUPT') && !isCodError(error, 'COD_SHORT_READ')) throw error;
      if (suspects.length === 0) problems.push(`${name}: ${error.message}`);
      suspects.push(extent);
      return undefined;
    }
  };
  const whole = { offset: 0, length: size, mostBytes: header.modifiedBlocks * blockSize };
  const state = await CopyState.open(core, shape);
  const checkpoint = { core, file, header, clock };
  const directory = await intact(whole, () => readDirectory(checkpoint, state));
  if (directory === undefined) return { header, state, suspects };
  const identity = { name: directory.identity && new TextDecoder().decode(directory.identity) };
  for (const [slice, entry] of directory.entries.entries()) {
    if (bytesOfEntry(entry) === 0) continue;
    const bytes = newBytes(bytesOfEntry(entry));
    const offset = slice * SLICE_BLOCKS * blockSize;
    const length = Math.min(SLICE_BLOCKS * blockSize, size - offset);
    const isRead = await intact({ offset, length, mostBytes: entry.modifiedBlocks * blockSize }, async () => {
      await readSlice(checkpoint, { slice, entry, into: bytes });
      return true;
    });
    if (!isRead) continue;
    // The checksum matches, so a slice that cannot be loaded is not the work of a writer: nothing is believed then.
    const isLoaded = await intact(allOf(shape), async () => {
      await inTurns(state.loading(slice, entry, bytes), clock);
      return true;
    });
    if (isLoaded) continue;
    state.dispose();
    return { header, state: await CopyState.open(core, shape), suspects: [allOf(shape)], identity };
  }
  return { header, state, suspects, identity };
}

function addAll(from: CopyState, to: CopyState): void {
  const { blockSize } = from.geometry;
  for (const [start, end] of from.syncedRuns()) {
    const { offset, length } = from.bytesOf({ start, end });
    to.apply(offset, length);
  }
  for (const { block, parts } of from.dirtyBlocks())
    for (const [start, end] of parts) to.apply(block * blockSize + start, end - start);
  for (const [start, end] of from.modified.runs()) {
    const { offset, length } = from.bytesOf({ start, end });
    to.modify(offset, length);
  }
}

async function readLog(core: Core, shape: Geometry, part: LogPart, problems: string[]): Promise<ReadLog> {
  const scan = await scanOf(core, shape, part, problems);
  let [through, provesEarlier, hasBased] = [0, false, false];
  for await (const frame of framesOf(core, part.file, part.bytes, part.header.epoch)) {
    if (!isAllowed(frame, shape)) continue;
    through = Math.max(through, frame.barrier);
    hasBased ||= frame.hasBased;
    provesEarlier ||= frame.hasBased || frame.hasBarrier;
  }
  return { part, scan, through, provesEarlier, hasBased };
}

async function scanOf(
  core: Core,
  shape: Geometry,
  { name, file, bytes, header }: LogPart,
  problems: string[],
): Promise<LogScanResult | undefined> {
  const { epoch, capacity } = header;
  const scan = new LogScan(core, shape, { epoch, capacity });
  try {
    if (bytes !== capacity) throw corrupt(`log has ${bytes} bytes, but its header says ${capacity}`);
    await feedFile(file, { start: HEADER_BYTES, end: bytes }, (piece) => scan.feed(piece));
    const found = scan.finish();
    if (!found.isDamaged) return found;
    problems.push(`${name}: log frame ${found.frames} at offset ${found.endOffset} was durable, but it is missing`);
  } catch (error) {
    if (!isCodError(error, 'COD_CORRUPT')) throw error;
    problems.push(`${name}: ${error.message}`);
  } finally {
    scan.dispose();
  }
  return undefined;
}

/** Whether a writer may have made this frame. */
function isAllowed(frame: FoundFrame, { size }: Geometry): boolean {
  return frame.isRegular && frame.end <= size;
}

/** The epochs that a log without a valid header may have: those next to what the other files have, of its slot. */
function epochsOfDamagedLogs(parts: readonly Part[]): { part: Part; epoch: number }[] {
  const near = new Set(parts.filter(isValid).flatMap(({ header: { epoch } }) => [epoch - 1, epoch, epoch + 1]));
  return parts
    .filter(({ kind, header }) => kind === 'log' && header === 'damaged')
    .flatMap((part) =>
      [...near].filter((epoch) => epoch >= 0 && slotOf(epoch) === part.slot).map((epoch) => ({ part, epoch })),
    );
}

/** Any byte of the device. */
function allOf({ size }: Geometry): Suspect {
  return { offset: 0, length: size, mostBytes: size };
}

interface Evidence {
  readonly checkpoints: readonly ReadCheckpoint[];
  readonly logs: readonly ReadLog[];
  readonly parts: readonly Part[];
}

/** Where users may have written what no intact part says. */
function suspectsOf(shape: Geometry, evidence: Evidence): readonly Suspect[] {
  const known = evidence.checkpoints.filter((checkpoint) => isAllThere(checkpoint, evidence));
  const intact = known.find(({ suspects }) => suspects.length === 0);
  const suspects = (intact ?? known[0])?.suspects ?? [allOf(shape)];
  return suspects.filter(({ mostBytes }) => mostBytes > 0);
}

/**
 * Whether this checkpoint *E* would, if it were intact, account for all that was ever recorded: nothing follows it but
 * what logs *E* and *E* + 1 have, which are undamaged. It need not be the newest: checkpoint *E* + 1 holds what log *E*
 * says, provided that log *E* ends with `CONTINUED`.
 */
function isAllThere({ header }: ReadCheckpoint, { checkpoints, logs, parts }: Evidence): boolean {
  const { epoch, standalone } = header;
  if (parts.filter(isValid).some((part) => part.header.epoch > epoch + 1)) return false;
  const own = logs.find(({ part }) => part.header.epoch === epoch);
  const next = logs.find(({ part }) => part.header.epoch === epoch + 1);
  const isNextWhole = next?.scan !== undefined;
  const hasLaterCheckpoint = checkpoints.some(({ header }) => header.epoch > epoch) || (next?.provesEarlier ?? false);
  if (standalone) {
    // The checkpoint that may have followed cannot be read.
    const isSlotDamaged = parts.some(
      ({ kind, slot, header }) => kind === 'checkpoint' && slot === slotOf(epoch + 1) && header === 'damaged',
    );
    return isNextWhole || (next === undefined && !hasLaterCheckpoint && !isSlotDamaged);
  }
  if (own?.scan === undefined) return false;
  return own.scan.continued ? isNextWhole : !hasLaterCheckpoint;
}

/** Drops the modified blocks that the target does not hold. */
async function dropUnheld(core: Core, state: CopyState, clock: TurningClock): Promise<void> {
  const none = new Replay(core, state.geometry, 'changed');
  try {
    await inTurns(state.mergingModified(none), clock);
  } finally {
    none.dispose();
  }
}

// Format 1

/** Format 1 has no checksums: of a file with any damage, nothing is believed. */
async function salvageFormat1(
  { core, clock }: SalvageContext,
  shape: Geometry,
  parts: readonly Part[],
  problems: string[],
): Promise<Salvage> {
  const old = parts.filter(({ header }) => header === 'format1');
  const kept: Part[] = [];
  for (const part of old) {
    try {
      (await recoverFormat1(core, [part], shape, clock)).state.dispose();
      kept.push(part);
    } catch (error) {
      if (!isCodError(error, 'COD_CORRUPT')) throw error;
      problems.push(error.message.startsWith(part.name) ? error.message : `${part.name}: ${error.message}`);
    }
  }
  const isFailover = ({ kind, slot }: Part): boolean => kind === 'checkpoint' && slot === 1;
  // `.bak` may be torn if there is a `.bak.1`, be it damaged.
  const hasFailover = parts.some((part) => isFailover(part) && part.header !== 'void');
  const isTorn = ({ kind, slot }: Part): boolean => hasFailover && kind === 'checkpoint' && slot === 0;
  const believed = kept.filter((part) => !isTorn(part));
  const { state } = await recoverFormat1(core, believed, shape, clock);
  const isWhole = old.length === parts.length && old.every((part) => isTorn(part) || kept.includes(part));
  return {
    state,
    identity: undefined,
    // Format 1 has none.
    isIdentityKnown: old.length > 0,
    suspects: isWhole ? [] : [allOf(shape)],
    problems,
    proved: [],
  };
}

function corrupt(message: string, details: Record<string, unknown> = {}): CodError {
  return new CodError('COD_CORRUPT', message, { details });
}
