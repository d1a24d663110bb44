/**
 * The server's half of the transmission phase: decodes requests, encodes replies. It uses no socket, clock or device.
 *
 * - Requests are decoded without a copy: a write's payload is a view of the socket's chunk, unless it came in several.
 *   Then it has a buffer of its own, whose rest may be received in place.
 * - {@link RequestDecoder} is the only validator. It checks a header before it keeps the payload.
 * - The payload of a refused request is skipped.
 */

import {
  BYTES,
  COMMAND,
  COMMAND_FLAG,
  MAGIC,
  NBD_ERROR,
  REPLY_FLAG,
  REPLY_TYPE,
  TRANSMISSION_FLAG,
} from '../constants.ts';
import { getU16, getU32, getU64, putU16, putU32, putU64 } from '../wire.ts';
import { takeBuffer } from './large-buffers.ts';

/** The peer violated the protocol in a way that ends the connection. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

/** What requests are checked against. */
export interface RequestRules {
  /** Size of the export in bytes. */
  readonly size: number;
  /** `TRANSMISSION_FLAG`s, as advertised to the client. */
  readonly flags: number;
  readonly structuredReplies: boolean;
  /** Whether the client chose a metadata context. */
  readonly hasContexts: boolean;
  readonly maximumPayloadBytes: number;
  /** A longer write is decoded as several requests, each of which ends at a multiple of this. */
  readonly pieceBytes: number;
}

/** One request. The client chose its cookie of 64 bits, stored in two halves. */
export interface Request {
  readonly type: number;
  readonly flags: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: number;
  readonly length: number;
  /** The bytes of a write; empty for other commands. May be given back with `giveBuffer`. */
  readonly payload: Uint8Array;
  /** Bytes of the same write that follow in the next requests, with the same cookie. Its last or only piece: 0. */
  readonly rest: number;
  /** An `NBD_ERROR` if the request must be refused, else 0. */
  readonly error: number;
}

const EMPTY = new Uint8Array(0);

/** Decodes the requests of one connection. The decoder itself is the latest request, so that none is allocated. */
export class RequestDecoder implements Request {
  type = 0;
  flags = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offset = 0;
  length = 0;
  payload: Uint8Array = EMPTY;
  rest = 0;
  error = 0;

  readonly #rules: RequestRules;
  #chunk: Uint8Array = EMPTY;
  /** The memory of the chunk. Cached, since the getter leaves compiled code. */
  #memory: ArrayBufferLike = EMPTY.buffer;
  #at = 0;
  /** A header that came in several chunks. */
  readonly #header = new Uint8Array(BYTES.request);
  #headerBytes = 0;
  /** Bytes of the current piece of a write's payload that have not come. */
  #missing = 0;
  /** The payload's bytes that have come. Undefined: they are dropped. */
  #pieces: Uint8Array | undefined;

  constructor(rules: RequestRules) {
    this.#rules = rules;
  }

  /** Passes in the next chunk. To be called only when {@link next} can decode nothing more. */
  push(chunk: Uint8Array): void {
    this.#chunk = chunk;
    this.#memory = chunk.buffer;
    this.#at = 0;
  }

  /** Whether a part of a request has come. */
  get isPartial(): boolean {
    return this.#headerBytes > 0 || this.#missing > 0 || this.#pieces !== undefined || this.rest > 0;
  }

  /** Whether nothing that was passed in is left to be decoded. */
  get isDrained(): boolean {
    return this.#chunk.length === 0;
  }

  /** Where the bytes go that the current payload lacks. To be filled from the beginning; see {@link filled}. */
  get missingPayload(): Uint8Array | undefined {
    return this.#missing > 0 ? this.#pieces?.subarray(this.length - this.#missing) : undefined;
  }

  /** Says that the next `bytes` have come, to the beginning of {@link missingPayload}, instead of a {@link push}. */
  filled(bytes: number): void {
    this.#missing -= bytes;
  }

  /** Memory of a payload that has not come whole. */
  get heldBytes(): number {
    return this.#pieces?.length ?? 0;
  }

  /**
   * Decodes the next whole request into this object and returns true, or returns false if none has come. The fields are
   * valid until the next call. The payload stays valid.
   * @throws {@link ProtocolError} if the magic number is wrong, or a write is longer than `maximumPayloadBytes`.
   */
  next(): boolean {
    if (this.#missing > 0 || this.#pieces !== undefined) return this.#resumePayload();
    if (this.rest > 0) return this.#nextPiece();
    const chunk = this.#chunk;
    const left = chunk.length - this.#at;
    if (this.#headerBytes > 0 || left < BYTES.request) {
      const bytes = Math.min(left, BYTES.request - this.#headerBytes);
      this.#header.set(chunk.subarray(this.#at, this.#at + bytes), this.#headerBytes);
      this.#headerBytes += bytes;
      this.#at += bytes;
      if (this.#headerBytes < BYTES.request) return this.#wait();
      this.#headerBytes = 0;
      this.#parse(this.#header, 0);
    } else {
      this.#parse(chunk, this.#at);
      this.#at += BYTES.request;
    }
    return this.type !== COMMAND.write || this.#beginPayload();
  }

  #wait(): false {
    this.#chunk = EMPTY;
    this.#at = 0;
    return false;
  }

  #parse(bytes: Uint8Array, at: number): void {
    if (getU32(bytes, at) !== MAGIC.request) throw new ProtocolError('a request without its magic number');
    this.flags = getU16(bytes, at + 4);
    this.type = getU16(bytes, at + 6);
    this.cookieHigh = getU32(bytes, at + 8);
    this.cookieLow = getU32(bytes, at + 12);
    this.offset = getU64(bytes, at + 16);
    this.length = getU32(bytes, at + 24);
    this.payload = EMPTY;
    this.error = validate(this, this.#rules);
  }

  #beginPayload(): boolean {
    const { length } = this;
    // Skipping the payload could mean reading 4 GiB for one header.
    const most = this.#rules.maximumPayloadBytes;
    if (length > most) throw new ProtocolError(`a write of ${length} bytes, at most ${most} are allowed`);
    // The payload of a refused write is not kept, so it need not be divided.
    if (this.error === 0 && length > this.#rules.pieceBytes) return this.#cutPiece(length);
    return this.#takePayload();
  }

  #nextPiece(): boolean {
    this.offset += this.length;
    return this.#cutPiece(this.rest);
  }

  /** Makes this request the next piece of a write that has `left` more bytes. */
  #cutPiece(left: number): boolean {
    const { pieceBytes } = this.#rules;
    this.length = Math.min(left, pieceBytes - (this.offset % pieceBytes));
    this.rest = left - this.length;
    return this.#takePayload();
  }

  #takePayload(): boolean {
    const { length } = this;
    const at = this.#at;
    if (length <= this.#chunk.length - at) {
      this.#at += length;
      // A Buffer's `subarray` costs more, which shows in a 4 KiB write.
      if (this.error === 0) this.payload = new Uint8Array(this.#memory, this.#chunk.byteOffset + at, length);
      return true;
    }
    this.#missing = length;
    this.#pieces = this.error === 0 ? takeBuffer(length) : undefined;
    return this.#resumePayload();
  }

  #resumePayload(): boolean {
    const bytes = Math.min(this.#missing, this.#chunk.length - this.#at);
    this.#pieces?.set(this.#chunk.subarray(this.#at, this.#at + bytes), this.length - this.#missing);
    this.#missing -= bytes;
    this.#at += bytes;
    if (this.#missing > 0) return this.#wait();
    this.payload = this.#pieces ?? EMPTY;
    this.#pieces = undefined;
    return true;
  }
}

/** The flags that each command accepts besides `FUA`, which all commands accept. */
const FLAGS_OF: readonly number[] = (() => {
  const flags: number[] = [];
  flags[COMMAND.read] = COMMAND_FLAG.df;
  flags[COMMAND.write] = 0;
  flags[COMMAND.flush] = 0;
  flags[COMMAND.trim] = 0;
  flags[COMMAND.cache] = 0;
  flags[COMMAND.writeZeroes] = COMMAND_FLAG.noHole | COMMAND_FLAG.fastZero;
  flags[COMMAND.blockStatus] = COMMAND_FLAG.reqOne;
  return flags;
})();

/** The transmission flag that each command requires; 0 if every export supports it. */
const NEEDS: readonly number[] = (() => {
  const flags: number[] = [];
  flags[COMMAND.read] = 0;
  flags[COMMAND.write] = 0;
  flags[COMMAND.flush] = TRANSMISSION_FLAG.sendFlush;
  flags[COMMAND.trim] = TRANSMISSION_FLAG.sendTrim;
  flags[COMMAND.cache] = TRANSMISSION_FLAG.sendCache;
  flags[COMMAND.writeZeroes] = TRANSMISSION_FLAG.sendWriteZeroes;
  flags[COMMAND.blockStatus] = 0;
  return flags;
})();

/** Returns the error to refuse a request with, or 0 if the request is valid. */
function validate(request: Request, rules: RequestRules): number {
  const { type, flags, offset, length } = request;
  if (type === COMMAND.disconnect) return 0;
  let allowed = FLAGS_OF[type];
  if (allowed === undefined) return NBD_ERROR.EINVAL;
  const changes = type === COMMAND.write || type === COMMAND.trim || type === COMMAND.writeZeroes;
  if (changes && (rules.flags & TRANSMISSION_FLAG.readOnly) !== 0) return NBD_ERROR.EPERM;
  const needed = NEEDS[type]!;
  if ((rules.flags & needed) !== needed) return NBD_ERROR.EINVAL;
  if ((rules.flags & TRANSMISSION_FLAG.sendFua) !== 0) allowed |= COMMAND_FLAG.fua;
  if ((rules.flags & TRANSMISSION_FLAG.sendFastZero) === 0) allowed &= ~COMMAND_FLAG.fastZero;
  if (!rules.structuredReplies) allowed &= ~COMMAND_FLAG.df;
  if ((flags & ~allowed) !== 0) return NBD_ERROR.EINVAL;
  if (type === COMMAND.flush) return offset === 0 && length === 0 ? 0 : NBD_ERROR.EINVAL;
  if (type === COMMAND.blockStatus && !rules.hasContexts) return NBD_ERROR.EINVAL;
  if (length === 0) return NBD_ERROR.EINVAL;
  if (offset + length > rules.size) {
    return type === COMMAND.write || type === COMMAND.writeZeroes ? NBD_ERROR.ENOSPC : NBD_ERROR.EINVAL;
  }
  if (type === COMMAND.read && length > rules.maximumPayloadBytes) {
    return rules.structuredReplies ? NBD_ERROR.EOVERFLOW : NBD_ERROR.EINVAL;
  }
  return 0;
}

/** Identifies the request that a reply answers. */
export type Cookie = Pick<Request, 'cookieHigh' | 'cookieLow'>;

/** Returns the number of bytes before the data of a read's reply. */
export function readReplyBytes(structured: boolean): number {
  return structured ? BYTES.structuredReplyHeader + 8 : BYTES.simpleReply;
}

/**
 * Writes the bytes before the data of a read's reply.
 * @param done whether the reply has no further chunk
 */
export function putReadReply(
  bytes: Uint8Array,
  at: number,
  request: Cookie & Pick<Request, 'offset' | 'length'>,
  structured: boolean,
  done = true,
): void {
  if (!structured) {
    putSimpleReply(bytes, at, request, 0);
    return;
  }
  putChunkHeader(bytes, at, request, { type: REPLY_TYPE.offsetData, done, length: 8 + request.length });
  putU64(bytes, at + BYTES.structuredReplyHeader, request.offset);
}

/** Writes a reply without data: {@link BYTES.simpleReply} bytes. */
export function putSimpleReply(bytes: Uint8Array, at: number, { cookieHigh, cookieLow }: Cookie, error: number): void {
  putU32(bytes, at, MAGIC.simpleReply);
  putU32(bytes, at + 4, error);
  putU32(bytes, at + 8, cookieHigh);
  putU32(bytes, at + 12, cookieLow);
}

/** Returns a structured reply that reports an error. The message is for people. */
export function errorReply(request: Cookie, error: number, message: string): Uint8Array {
  const text = new TextEncoder().encode(message);
  const bytes = new Uint8Array(BYTES.structuredReplyHeader + 6 + text.length);
  putChunkHeader(bytes, 0, request, { type: REPLY_TYPE.error, done: true, length: 6 + text.length });
  putU32(bytes, BYTES.structuredReplyHeader, error);
  putU16(bytes, BYTES.structuredReplyHeader + 4, text.length);
  bytes.set(text, BYTES.structuredReplyHeader + 6);
  return bytes;
}

/** One extent of a metadata context; its length is in bytes. */
export interface StatusExtent {
  readonly length: number;
  readonly status: number;
}

/** Returns the chunk of one metadata context. @param done whether it is the last chunk of the reply */
export function blockStatusChunk(
  request: Cookie,
  context: number,
  extents: readonly StatusExtent[],
  done: boolean,
): Uint8Array {
  const length = 4 + 8 * extents.length;
  const bytes = new Uint8Array(BYTES.structuredReplyHeader + length);
  putChunkHeader(bytes, 0, request, { type: REPLY_TYPE.blockStatus, done, length });
  putU32(bytes, BYTES.structuredReplyHeader, context);
  let at = BYTES.structuredReplyHeader + 4;
  for (const extent of extents) {
    putU32(bytes, at, extent.length);
    putU32(bytes, at + 4, extent.status);
    at += 8;
  }
  return bytes;
}

function putChunkHeader(
  bytes: Uint8Array,
  at: number,
  { cookieHigh, cookieLow }: Cookie,
  chunk: { type: number; done: boolean; length: number },
): void {
  putU32(bytes, at, MAGIC.structuredReply);
  putU16(bytes, at + 4, chunk.done ? REPLY_FLAG.done : 0);
  putU16(bytes, at + 6, chunk.type);
  putU32(bytes, at + 8, cookieHigh);
  putU32(bytes, at + 12, cookieLow);
  putU32(bytes, at + 16, chunk.length);
}
