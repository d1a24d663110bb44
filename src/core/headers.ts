/** The header sectors of checkpoints and logs (docs/FORMAT.md, Headers). */

import { CodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';
import { geometry } from './geometry.ts';
import {
  FORMAT_VERSION,
  HEADER_BYTES,
  LOG_UNIT_BYTES,
  MAX_EPOCH,
  MAX_IDENTITY_BYTES,
  MAX_LOG_BYTES,
} from './layout.ts';
import { type Counts, slicesStart } from './slice-directory.ts';

const SESSION_BYTES = 16;
const NO_IDENTITY = 2 ** 32 - 1;
/** Flags of a checkpoint. */
const STANDALONE = 1;
const REST_IS_ZERO = 2;

const AT = {
  version: 8,
  session: 16,
  epoch: 32,
  size: 40,
  blockSize: 48,
  flags: 52,
  bytes: 56,
  directoryChecksum: 64,
  identityBytes: 68,
  logEnd: 64,
  syncedBlocks: 72,
  dirtyBlocks: 80,
  modifiedBlocks: 88,
  checkpointEnd: 96,
  checksum: 500,
  end: 504,
} as const;

const ENCODER = new TextEncoder();
const MAGIC = { checkpoint: ENCODER.encode('COD BAK\0'), log: ENCODER.encode('COD WIL\0') };
const END = ENCODER.encode('COD END\n');

type HeaderKind = 'checkpoint' | 'log';

interface CommonHeader {
  /** 16 bytes. */
  readonly session: Uint8Array;
  readonly epoch: number;
  /** Bytes of the device. */
  readonly size: number;
  readonly blockSize: number;
}

export interface CheckpointHeader extends CommonHeader, Counts {
  /** Whether the checkpoint is the whole state, without a log. */
  readonly standalone: boolean;
  /**
   * Whether every {@link REST_UNIT_BYTES} of the target in which no byte is synced or dirty are zero. Only a standalone
   * checkpoint may say so.
   */
  readonly restIsZero: boolean;
  /** Bytes from the beginning of the file to the end of the last slice. */
  readonly bytes: number;
  /** CRC32C of the identity with its padding, and the directory. */
  readonly directoryChecksum: number;
  /** Undefined if the source has no identity. */
  readonly identityBytes: number | undefined;
}

export interface LogHeader extends CommonHeader {
  /** Bytes of the whole file, a multiple of 4096. */
  readonly capacity: number;
}

/**
 * The result of decoding. `absent`: the file is ours, and has no committed header. `blank`: the beginning of a
 * {@link claim}, perhaps of no byte, and zeros. A longer file than a sector is not ours then, since a claim is durable
 * before the rest.
 */
export type DecodedHeader<Header> = { state: 'valid'; header: Header } | { state: 'absent' | 'blank' | 'format1' };

/**
 * Returns the first sector of a new file: magic and version, without the end that commits a header. It tells our files
 * from those of other programs.
 */
export function claim(kind: HeaderKind): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES);
  bytes.set(MAGIC[kind], 0);
  bytes[AT.version] = FORMAT_VERSION;
  return bytes;
}

/** @throws {RangeError} if a reader would refuse a field */
export function encodeCheckpointHeader(core: Core, fields: CheckpointHeader): Uint8Array<ArrayBuffer> {
  refuse(checkpointProblem(fields));
  const { bytes, view } = newSector('checkpoint', fields);
  view.setUint32(AT.flags, (fields.standalone ? STANDALONE : 0) + (fields.restIsZero ? REST_IS_ZERO : 0), true);
  setNumber(view, AT.bytes, fields.bytes);
  view.setUint32(AT.directoryChecksum, fields.directoryChecksum, true);
  view.setUint32(AT.identityBytes, fields.identityBytes ?? NO_IDENTITY, true);
  setNumber(view, AT.syncedBlocks, fields.syncedBlocks);
  setNumber(view, AT.dirtyBlocks, fields.dirtyBlocks);
  setNumber(view, AT.modifiedBlocks, fields.modifiedBlocks);
  return seal(core, bytes, view);
}

/** @throws {RangeError} if a reader would refuse a field */
export function encodeLogHeader(core: Core, fields: LogHeader): Uint8Array<ArrayBuffer> {
  refuse(logProblem(fields));
  const { bytes, view } = newSector('log', fields);
  setNumber(view, AT.bytes, fields.capacity);
  return seal(core, bytes, view);
}

/**
 * Decodes the first sector of a checkpoint.
 *
 * @param sector the first 512 bytes of the file, or all of a shorter file
 * @throws {@link CodError} COD_CORRUPT if the header is damaged, COD_VERSION if it is of a newer format
 */
export function decodeCheckpointHeader(core: Core, sector: Uint8Array): DecodedHeader<CheckpointHeader> {
  const decoded = decodeSector(core, 'checkpoint', sector);
  if (decoded.state !== 'valid') return decoded;
  const { bytes, view, common, flags } = decoded.header;
  const identityBytes = view.getUint32(AT.identityBytes, true);
  const header: CheckpointHeader = {
    ...common,
    standalone: flags >= STANDALONE,
    restIsZero: flags > STANDALONE,
    bytes: number(view, AT.bytes),
    directoryChecksum: view.getUint32(AT.directoryChecksum, true),
    identityBytes: identityBytes === NO_IDENTITY ? undefined : identityBytes,
    syncedBlocks: number(view, AT.syncedBlocks),
    dirtyBlocks: number(view, AT.dirtyBlocks),
    modifiedBlocks: number(view, AT.modifiedBlocks),
  };
  const problem = checkpointProblem(header);
  if (problem !== undefined) throw corrupt('checkpoint', problem);
  if (flags === REST_IS_ZERO || flags > STANDALONE + REST_IS_ZERO || !isZero(bytes, AT.checkpointEnd, AT.checksum))
    throw corrupt('checkpoint', 'unused bytes or flags are not zero');
  return { state: 'valid', header };
}

/**
 * Decodes the first sector of a log.
 *
 * @param sector the first 512 bytes of the file, or all of a shorter file
 * @throws {@link CodError} COD_CORRUPT if the header is damaged, COD_VERSION if it is of a newer format
 */
export function decodeLogHeader(core: Core, sector: Uint8Array): DecodedHeader<LogHeader> {
  const decoded = decodeSector(core, 'log', sector);
  if (decoded.state !== 'valid') return decoded;
  const { bytes, view, common, flags } = decoded.header;
  const header: LogHeader = {
    ...common,
    capacity: number(view, AT.bytes),
  };
  const problem = logProblem(header);
  if (problem !== undefined) throw corrupt('log', problem);
  if (flags !== 0 || !isZero(bytes, AT.logEnd, AT.checksum)) throw corrupt('log', 'unused bytes or flags are not zero');
  return { state: 'valid', header };
}

/** Whether a file of this kind begins with the magic of both formats. */
export function hasMagic(kind: HeaderKind, sector: Uint8Array): boolean {
  return startsWith(sector, 0, MAGIC[kind]);
}

/** A sector whose magic, version, end and checksum match, and the fields that both kinds have. */
interface SealedSector {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly common: CommonHeader;
  readonly flags: number;
}

/** Decodes what both kinds have in common, and tells a sector that was never committed from a damaged one. */
function decodeSector(core: Core, kind: HeaderKind, sector: Uint8Array): DecodedHeader<SealedSector> {
  const bytes = new Uint8Array(HEADER_BYTES);
  bytes.set(sector.subarray(0, HEADER_BYTES));
  const view = new DataView(bytes.buffer);
  const version = view.getBigUint64(AT.version, true);
  // A process that was killed while it made the file leaves this.
  if (isBeginning(bytes, MAGIC[kind])) return { state: 'blank' };
  const hasEnd = startsWith(bytes, AT.end, END);
  if (!startsWith(bytes, 0, MAGIC[kind])) {
    if (!hasEnd && (version === 0n || version > BigInt(FORMAT_VERSION))) throw foreignFile();
    throw corrupt(kind, `magic ${hex(bytes.subarray(0, 8))} is not ${hex(MAGIC[kind])}`);
  }
  if (version === 1n) return { state: 'format1' };
  // The last byte commits a header: it is zero before any other byte is written. Any other version is a future version,
  // or a damaged version of format 1, which has no checksum.
  if (bytes[HEADER_BYTES - 1] === 0 && version === BigInt(FORMAT_VERSION)) return { state: 'absent' };
  if (version > BigInt(FORMAT_VERSION)) {
    // A later version has the same end and checksum; a damaged version 2 has a checksum that does not match.
    if (hasEnd && view.getUint32(AT.checksum, true) !== core.crc32c(bytes.subarray(0, AT.checksum))) {
      throw corrupt(kind, `format version is ${version}, but the checksum does not match`);
    }
    throw new CodError(
      'COD_VERSION',
      `${kind} has format version ${version}, but this package reads up to ${FORMAT_VERSION}: use a newer package`,
      {
        details: { version: Number(version) },
      },
    );
  }
  if (version !== BigInt(FORMAT_VERSION)) throw corrupt(kind, `unknown format version ${version}`);
  if (!hasEnd) throw corrupt(kind, `ends with ${hex(bytes.subarray(AT.end))}, not ${hex(END)}`);
  const checksum = view.getUint32(AT.checksum, true);
  const expected = core.crc32c(bytes.subarray(0, AT.checksum));
  if (checksum !== expected) {
    throw corrupt(kind, `checksum 0x${checksum.toString(16)} does not match the computed 0x${expected.toString(16)}`, {
      found: checksum,
      expected,
    });
  }
  const common = {
    session: bytes.slice(AT.session, AT.session + SESSION_BYTES),
    epoch: number(view, AT.epoch),
    size: number(view, AT.size),
    blockSize: view.getUint32(AT.blockSize, true),
  };
  return { state: 'valid', header: { bytes, view, common, flags: view.getUint32(AT.flags, true) } };
}

/** Returns the error for a file at one of our names that is not ours. */
export function foreignFile(): CodError {
  return new CodError('COD_EXISTS', 'not metadata of a copy: move it');
}

function corrupt(kind: HeaderKind, what: string, details: Record<string, unknown> = {}): CodError {
  return new CodError('COD_CORRUPT', `${kind} header: ${what}`, { details });
}

function commonProblem(fields: CommonHeader): string | undefined {
  if (fields.session.length !== SESSION_BYTES)
    return `session has ${fields.session.length} bytes instead of ${SESSION_BYTES}`;
  if (!isCount(fields.epoch) || fields.epoch > MAX_EPOCH)
    return `epoch ${fields.epoch} is not an integer from 0 to ${MAX_EPOCH}`;
  try {
    geometry(fields);
  } catch (error) {
    return (error as Error).message;
  }
  return undefined;
}

function checkpointProblem(fields: CheckpointHeader): string | undefined {
  const { bytes, identityBytes = 0, syncedBlocks, dirtyBlocks, modifiedBlocks } = fields;
  const common = commonProblem(fields);
  if (common !== undefined) return common;
  for (const [name, value] of Object.entries({ bytes, identityBytes, syncedBlocks, dirtyBlocks, modifiedBlocks })) {
    if (!isCount(value)) return `${name} ${value} is not an integer from 0 to 2^53 - 1`;
  }
  if (identityBytes > MAX_IDENTITY_BYTES)
    return `identity has ${identityBytes} bytes, at most ${MAX_IDENTITY_BYTES} are allowed`;
  const shape = geometry(fields);
  const start = slicesStart(shape, identityBytes);
  if (bytes < start) return `checkpoint has ${bytes} bytes, but its slices begin at ${start}`;
  const { blockCount } = shape;
  if (Math.max(syncedBlocks, dirtyBlocks, modifiedBlocks) > blockCount) {
    return (
      `${syncedBlocks} synced, ${dirtyBlocks} dirty and ${modifiedBlocks} modified blocks exceed the device ` +
      `(${blockCount} blocks)`
    );
  }
  return undefined;
}

function logProblem(fields: LogHeader): string | undefined {
  const common = commonProblem(fields);
  if (common !== undefined) return common;
  if (
    !isCount(fields.capacity) ||
    fields.capacity < LOG_UNIT_BYTES ||
    fields.capacity > MAX_LOG_BYTES ||
    fields.capacity % LOG_UNIT_BYTES !== 0
  ) {
    return `log size ${fields.capacity} is not a multiple of ${LOG_UNIT_BYTES} up to ${MAX_LOG_BYTES}`;
  }
  return undefined;
}

function refuse(problem: string | undefined): void {
  if (problem !== undefined) throw new RangeError(problem);
}

function newSector(kind: HeaderKind, fields: CommonHeader): { bytes: Uint8Array<ArrayBuffer>; view: DataView } {
  const bytes = claim(kind);
  const view = new DataView(bytes.buffer);
  bytes.set(fields.session, AT.session);
  setNumber(view, AT.epoch, fields.epoch);
  setNumber(view, AT.size, fields.size);
  view.setUint32(AT.blockSize, fields.blockSize, true);
  return { bytes, view };
}

function seal(core: Core, bytes: Uint8Array<ArrayBuffer>, view: DataView): Uint8Array<ArrayBuffer> {
  view.setUint32(AT.checksum, core.crc32c(bytes.subarray(0, AT.checksum)), true);
  bytes.set(END, AT.end);
  return bytes;
}

function setNumber(view: DataView, offset: number, value: number): void {
  view.setBigUint64(offset, BigInt(value), true);
}

/** A u64. Values above 2^53 are rounded, and {@link isCount} refuses them. */
function number(view: DataView, offset: number): number {
  return Number(view.getBigUint64(offset, true));
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (bytes[i] !== 0) return false;
  return true;
}

function startsWith(bytes: Uint8Array, offset: number, expected: Uint8Array): boolean {
  return expected.every((byte, i) => bytes[offset + i] === byte);
}

/** Whether `bytes` are a beginning of `magic` and then zeros. */
function isBeginning(bytes: Uint8Array, magic: Uint8Array): boolean {
  const same = magic.findIndex((byte, i) => bytes[i] !== byte);
  return isZero(bytes, same === -1 ? magic.length : same, bytes.length);
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}
