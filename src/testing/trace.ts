/**
 * The format of a trace: JSON lines, the first of which names the format. A trace holds all that its replay needs: what
 * a file held when it was first opened, and the bytes of each write.
 */

import { CodError, type CodErrorCode } from '../errors.ts';

/** The newest version that can be read. */
export const TRACE_VERSION = 1;

/** Bytes of a file: in base64 (RFC 4648), or as `length` bytes of the value `fill`. */
export type TraceBytes = { readonly base64: string } | { readonly fill: number; readonly length: number };

/**
 * One step of a trace. Steps are in the order in which they ended. `file` numbers the open files, from 1 on. Offsets,
 * lengths and sizes are in bytes.
 *
 * - `content`: the bytes of `name`, in pieces, before it was first opened. The first piece has the file's `size`.
 * - `read`: `sum` is the 32-bit FNV-1a checksum of the bytes read.
 * - `cut`: the trace reached its maximum length, and later steps are missing.
 * - With `error` the call was rejected. A rejected write or truncation left the file with `size` bytes, and a rejected
 *   write left these `bytes` at its offset.
 */
export type TraceStep =
  | {
      readonly op: 'content';
      readonly name: string;
      readonly size?: number;
      readonly offset: number;
      readonly bytes: TraceBytes;
    }
  | { readonly op: 'open'; readonly name: string; readonly create: boolean; readonly file: number }
  | { readonly op: 'open'; readonly name: string; readonly create: boolean; readonly error: CodErrorCode | 'other' }
  | { readonly op: 'remove'; readonly name: string; readonly error?: CodErrorCode | 'other' }
  | { readonly op: 'size'; readonly file: number; readonly size?: number; readonly error?: CodErrorCode | 'other' }
  | {
      readonly op: 'read';
      readonly file: number;
      readonly offset: number;
      readonly length: number;
      readonly sum?: number;
      readonly error?: CodErrorCode | 'other';
    }
  | {
      readonly op: 'write';
      readonly file: number;
      readonly offset: number;
      readonly bytes: TraceBytes;
      readonly size?: number;
      readonly error?: CodErrorCode | 'other';
    }
  | { readonly op: 'truncate'; readonly file: number; readonly size: number; readonly error?: CodErrorCode | 'other' }
  | { readonly op: 'sync' | 'close'; readonly file: number; readonly error?: CodErrorCode | 'other' }
  /** The trace reached its maximum length: later steps are missing. */
  | { readonly op: 'cut' };

/** Returns the first line. */
export function traceHeader(bootId: string | undefined): string {
  return JSON.stringify({ trace: 'copyondemand', version: TRACE_VERSION, ...(bootId === undefined ? {} : { bootId }) });
}

/** Returns FNV-1a of the bytes, 32 bits, continued from `sum`. Detects accidents, not attacks. */
export function checksum(bytes: Uint8Array, sum = 0x811c9dc5): number {
  let hash = sum;
  for (let index = 0; index < bytes.length; index++) hash = Math.imul(hash ^ bytes[index]!, 0x01000193);
  return hash >>> 0;
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

export function encodeBytes(bytes: Uint8Array): TraceBytes {
  const { length } = bytes;
  const first = bytes[0] ?? 0;
  let same = 0;
  while (same < length && bytes[same] === first) same++;
  if (same === length && length > 8) return { fill: first, length };
  const parts: string[] = [];
  for (let at = 0; at < length; at += 3) {
    const word = (bytes[at]! << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    parts.push(
      ALPHABET[word >> 18]! + ALPHABET[(word >> 12) & 63]! + (at + 1 < length ? ALPHABET[(word >> 6) & 63]! : '='),
    );
    parts.push(at + 2 < length ? ALPHABET[word & 63]! : '=');
  }
  return { base64: parts.join('') };
}

export function lengthOf(bytes: TraceBytes): number {
  if ('fill' in bytes) return bytes.length;
  const { base64 } = bytes;
  return (base64.length / 4) * 3 - (base64.endsWith('==') ? 2 : base64.endsWith('=') ? 1 : 0);
}

/** Yields the bytes in pieces of at most 64 KiB, so that a short line cannot demand much memory. */
export function* decodeBytes(bytes: TraceBytes): Generator<Uint8Array> {
  if ('fill' in bytes) {
    for (let left = bytes.length; left > 0; left -= PIECE_BYTES)
      yield new Uint8Array(Math.min(left, PIECE_BYTES)).fill(bytes.fill);
    return;
  }
  const binary = atob(bytes.base64);
  for (let at = 0; at < binary.length; at += PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, binary.length - at));
    for (let index = 0; index < piece.length; index++) piece[index] = binary.charCodeAt(at + index);
    yield piece;
  }
}

export const PIECE_BYTES = 65_536;

/** Returns the error of a damaged line. */
function corrupt(line: number, what: string): CodError {
  return new CodError('COD_CORRUPT', `trace, line ${line}: ${what}`, { details: { line } });
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * Parses a trace line by line.
 * @throws {@link CodError} COD_VERSION for a trace of another version; COD_CORRUPT if it is no trace, or if a line is
 * invalid.
 */
export function* parseTrace(trace: Uint8Array | string): Generator<TraceStep> {
  let text: string;
  try {
    text = typeof trace === 'string' ? trace : new TextDecoder('utf-8', { fatal: true }).decode(trace);
  } catch (error) {
    throw new CodError('COD_CORRUPT', 'trace: not UTF-8', { cause: error });
  }
  let number = 0;
  for (let at = 0; at < text.length || number === 0; number++) {
    const newline = text.indexOf('\n', at);
    if (newline < 0) throw corrupt(number + 1, 'the line is cut short');
    const fields = parseLine(text.slice(at, newline), number + 1);
    at = newline + 1;
    if (number > 0) {
      yield parseStep(fields, number + 1);
      continue;
    }
    if (fields['trace'] !== 'copyondemand') throw corrupt(1, 'not a trace');
    const { version } = fields as { version?: unknown };
    if (!Number.isSafeInteger(version)) throw corrupt(1, 'the version is missing');
    if (version !== TRACE_VERSION) {
      throw new CodError(
        'COD_VERSION',
        `the trace has version ${String(version)}, but this package reads version ${TRACE_VERSION}`,
        {
          details: { version },
        },
      );
    }
  }
}

function parseLine(line: string, number: number): Fields {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw corrupt(number, 'not JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw corrupt(number, 'not an object');
  return value as Fields;
}

/** Checks every field of the step's kind. An unknown field is an error, so that a misspelt one is found. */
function parseStep(fields: Fields, line: number): TraceStep {
  const shape = SHAPES[String(fields['op'])];
  if (shape === undefined || !Object.hasOwn(SHAPES, String(fields['op'])))
    throw corrupt(line, `unknown operation ${String(fields['op'])}`);
  for (const [name, wanted] of Object.entries(shape)) {
    const value = fields[name];
    if (value === undefined ? !wanted.optional : !wanted.check(value))
      throw corrupt(line, `${name} is not valid: ${JSON.stringify(value)?.slice(0, 80)}`);
  }
  for (const name of Object.keys(fields))
    if (name !== 'op' && !(name in shape)) throw corrupt(line, `${String(fields['op'])} has no field ${name}`);
  if (fields['op'] === 'open' && (fields['file'] === undefined) === (fields['error'] === undefined))
    throw corrupt(line, 'an open has either a file or an error');
  const length =
    typeof fields['bytes'] === 'object' ? lengthOf(fields['bytes'] as TraceBytes) : Number(fields['length'] ?? 0);
  if (!Number.isSafeInteger(Number(fields['offset'] ?? 0) + length)) throw corrupt(line, 'the range is not valid');
  return fields as unknown as TraceStep;
}

interface Field {
  readonly optional: boolean;
  check(value: unknown): boolean;
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
const isBytes = (value: unknown): boolean => {
  if (typeof value !== 'object' || value === null) return false;
  const { base64, fill, length } = value as { base64?: unknown; fill?: unknown; length?: unknown };
  if (base64 === undefined) return isCount(length) && isCount(fill) && (fill as number) < 256;
  return (
    typeof base64 === 'string' && base64.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(base64) && fill === undefined
  );
};
const count: Field = { optional: false, check: isCount };
const maybeCount: Field = { optional: true, check: isCount };
const name: Field = { optional: false, check: (value) => typeof value === 'string' && value !== '' };
const flag: Field = { optional: false, check: (value) => typeof value === 'boolean' };
const bytes: Field = { optional: false, check: isBytes };
const error: Field = {
  optional: true,
  check: (value) => typeof value === 'string' && /^(COD_[A-Z_]+|other)$/.test(value),
};

const SHAPES: Readonly<Record<string, Readonly<Record<string, Field>>>> = {
  content: { name, size: maybeCount, offset: count, bytes },
  open: { name, create: flag, file: maybeCount, error },
  remove: { name, error },
  size: { file: count, size: maybeCount, error },
  read: { file: count, offset: count, length: count, sum: maybeCount, error },
  write: { file: count, offset: count, bytes, size: maybeCount, error },
  truncate: { file: count, size: count, error },
  sync: { file: count, error },
  close: { file: count, error },
  cut: {},
};
