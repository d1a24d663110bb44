/**
 * Parses replies of the transmission phase, simple and structured: bytes in, settled requests out. It uses no socket.
 *
 * Invariants:
 * - A part of a reply is checked against its request before its bytes are stored.
 * - Each byte of a read is copied once, to its place in the request's buffer.
 * - The connection ends at a reply without a request, at bytes that come twice, and at more bytes than were requested.
 * - Only what was requested is kept.
 */

import { RangeSet } from '../../core/range-set.ts';
import { CodError } from '../../errors.ts';
import { addExtent, type ExtentList } from '../../sources/extents.ts';
import { PassingError } from '../../sources/retry.ts';
import { ALLOCATION_FLAG, BYTES, MAGIC, MAX_STRING_BYTES, NBD_ERROR, REPLY_FLAG, REPLY_TYPE } from '../constants.ts';
import { Intake } from './intake.ts';
import { printable } from './negotiation.ts';

interface Request {
  readonly offset: number;
  readonly length: number;
  /** Called once, when the reply is complete or the connection has failed. */
  settle(error?: Error): void;
}

/** A read in flight. */
export interface ReadRequest extends Request {
  readonly kind: 'read';
  /** `length` bytes. May be replaced by another buffer of this length while the read is in flight. */
  into: Uint8Array;
}

/** A block status request in flight. */
export interface StatusRequest extends Request {
  readonly kind: 'status';
  /** Filled as the reply comes. Covers the beginning of the range, at least one byte of it. */
  readonly runs: ExtentList;
}

/** A reply may have `max(MIN_CHUNKS, length / SECTOR_BYTES)` chunks. */
const MIN_CHUNKS = 1024;
const SECTOR_BYTES = 512;
/** Extents of one reply: the most that any known server sends. */
const MAX_EXTENTS = 2 ** 20;
const EXTENT_BYTES = 8;

interface Pending {
  readonly request: ReadRequest | StatusRequest;
  readonly covered: RangeSet;
  chunks: number;
  error: Error | undefined;
}

export class ReplyParser {
  readonly #what: string;
  readonly #structured: boolean;
  readonly #context: number | undefined;
  readonly #intake = new Intake();
  readonly #pending = new Map<number, Pending>();
  readonly #head = Buffer.alloc(32);

  /** @param options.what names the export in messages */
  constructor(options: { what: string; structured: boolean; allocationContext: number | undefined }) {
    this.#what = options.what;
    this.#structured = options.structured;
    this.#context = options.allocationContext;
    this.#expectReply();
  }

  /** The number of requests that wait for a reply. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Registers a request that is about to be sent. @param cookie a safe integer that no other request has */
  add(cookie: number, request: ReadRequest | StatusRequest): void {
    this.#pending.set(cookie, { request, covered: new RangeSet(), chunks: 0, error: undefined });
  }

  /**
   * Handles bytes from the server.
   * @throws {@link CodError} COD_SOURCE_IO when they are no reply to what was requested. The connection is then
   *   unusable.
   */
  push(bytes: Uint8Array): void {
    this.#intake.push(bytes);
  }

  /** Settles all requests in flight with `error`. */
  fail(error: Error): void {
    for (const { request } of this.#pending.values()) request.settle(error);
    this.#pending.clear();
  }

  #expect(length: number, then: (bytes: Buffer) => void): void {
    const head = this.#head.subarray(0, length);
    this.#intake.expect(head, () => then(head));
  }

  #expectReply(): void {
    this.#expect(4, (bytes) => {
      const magic = bytes.readUInt32BE(0);
      if (magic === MAGIC.simpleReply) this.#expect(BYTES.simpleReply - 4, (head) => this.#onSimple(head));
      else if (magic === MAGIC.structuredReply && this.#structured) {
        this.#expect(BYTES.structuredReplyHeader - 4, (head) => this.#onChunk(head));
      } else throw this.#malformed(`0x${magic.toString(16)} instead of the magic number of a reply`);
    });
  }

  #onSimple(head: Buffer): void {
    const error = head.readUInt32BE(0);
    const { cookie, pending } = this.#of(head, 4);
    if (error !== 0) {
      pending.error = this.#failure(error, '');
      this.#done(cookie, pending);
      return;
    }
    const { request } = pending;
    if (this.#structured || request.kind !== 'read')
      throw this.#malformed('a simple reply instead of a structured reply');
    pending.covered.add(0, request.length);
    this.#data(request, 0, request.length, () => this.#done(cookie, pending));
  }

  #onChunk(head: Buffer): void {
    const flags = head.readUInt16BE(0);
    const type = head.readUInt16BE(2);
    const { cookie, pending } = this.#of(head, 4);
    const length = head.readUInt32BE(12);
    const { request } = pending;
    if (++pending.chunks > Math.max(MIN_CHUNKS, request.length / SECTOR_BYTES))
      throw this.#malformed('a reply in too many chunks');
    const then = () => {
      if ((flags & REPLY_FLAG.done) !== 0) this.#done(cookie, pending);
      else this.#expectReply();
    };
    if ((type & 0x8000) !== 0) this.#onError(pending, { type, length }, then);
    else if (type === REPLY_TYPE.none) {
      if (length !== 0 || (flags & REPLY_FLAG.done) === 0)
        throw this.#malformed('a NONE chunk that has data or does not end the reply');
      then();
    } else if (type === REPLY_TYPE.offsetData && request.kind === 'read') this.#onData(pending, length, then);
    else if (type === REPLY_TYPE.offsetHole && request.kind === 'read') this.#onHole(pending, length, then);
    else if (type === REPLY_TYPE.blockStatus && request.kind === 'status') this.#onStatus(request, length, then);
    else throw this.#malformed(`a chunk of type ${type} in the reply to a ${request.kind}`);
  }

  #onData(pending: Pending, length: number, then: () => void): void {
    if (length <= 8) throw this.#malformed(`a data chunk of ${length} bytes`);
    this.#expect(8, (head) =>
      this.#data(pending.request as ReadRequest, this.#claim(pending, head, length - 8), length - 8, then),
    );
  }

  #onHole(pending: Pending, length: number, then: () => void): void {
    if (length !== 12) throw this.#malformed(`a hole chunk of ${length} bytes`);
    this.#expect(12, (head) => {
      const bytes = head.readUInt32BE(8);
      const start = this.#claim(pending, head, bytes);
      (pending.request as ReadRequest).into.fill(0, start, start + bytes);
      then();
    });
  }

  /**
   * Returns where a chunk's bytes go in the request's buffer. The chunk begins with their offset.
   * @throws {@link CodError} COD_SOURCE_IO when the bytes are outside the request or have come before.
   */
  #claim({ request, covered }: Pending, head: Buffer, length: number): number {
    const offset = Number(head.readBigUInt64BE(0));
    const start = offset - request.offset;
    if (length === 0 || start < 0 || start + length > request.length) {
      throw this.#malformed(
        `${length} bytes at ${offset} in the reply to a read of ${request.length} at ${request.offset}`,
      );
    }
    const added = covered.add(start, start + length);
    if (added.length !== 1 || added[0]![0] !== start || added[0]![1] !== start + length) {
      throw this.#malformed(`bytes at ${offset} twice in the reply to a read`);
    }
    return start;
  }

  /** Copies the next bytes into a read's buffer. */
  #data(request: ReadRequest, start: number, length: number, then: () => void): void {
    this.#intake.expect(() => request.into.subarray(start, start + length), then);
  }

  #onStatus(request: StatusRequest, length: number, then: () => void): void {
    const count = (length - 4) / EXTENT_BYTES;
    if (!Number.isInteger(count) || count < 1 || count > MAX_EXTENTS)
      throw this.#malformed(`a block status chunk of ${length} bytes`);
    if (request.runs.length > 0) throw this.#malformed('block status twice');
    this.#expect(4, (head) => {
      if (head.readUInt32BE(0) !== this.#context)
        throw this.#malformed('block status of a context that was not requested');
      this.#onExtents(request, { count, covered: 0 }, then);
    });
  }

  #onExtents(request: StatusRequest, so: { count: number; covered: number }, then: () => void): void {
    this.#expect(EXTENT_BYTES, (head) => {
      const bytes = head.readUInt32BE(0);
      if (bytes === 0 || so.covered >= request.length)
        throw this.#malformed('an extent that is empty or outside the requested range');
      // Only the last extent may reach beyond the request.
      const length = Math.min(bytes, request.length - so.covered);
      const zero = (head.readUInt32BE(4) & ALLOCATION_FLAG.zero) !== 0;
      addExtent(request.runs, length, zero);
      const left = so.count - 1;
      if (left === 0) then();
      else this.#onExtents(request, { count: left, covered: so.covered + length }, then);
    });
  }

  #onError(pending: Pending, { type, length }: { type: number; length: number }, then: () => void): void {
    if (length < 6 || length > MAX_STRING_BYTES + 14) throw this.#malformed(`an error chunk of ${length} bytes`);
    const bytes = Buffer.alloc(length);
    this.#intake.expect(bytes, () => {
      const messageBytes = bytes.readUInt16BE(4);
      const rest = length - 6 - messageBytes;
      if (rest < 0 || (type === REPLY_TYPE.errorOffset && rest !== 8))
        throw this.#malformed('an error chunk with contradictory lengths');
      pending.error ??= this.#failure(bytes.readUInt32BE(0), bytes.toString('utf8', 6, 6 + messageBytes));
      then();
    });
  }

  #done(cookie: number, { request, covered, error }: Pending): void {
    this.#pending.delete(cookie);
    this.#expectReply();
    if (error !== undefined) request.settle(error);
    else if (request.kind === 'status' ? request.runs.length > 0 : covered.add(0, request.length).length === 0)
      request.settle();
    else {
      const missing = this.#malformed('fewer bytes than requested');
      request.settle(missing);
      throw missing;
    }
  }

  #of(head: Buffer, at: number): { cookie: number; pending: Pending } {
    const cookie = Number(head.readBigUInt64BE(at));
    const pending = this.#pending.get(cookie);
    if (pending === undefined) throw this.#malformed('a reply to an unknown request');
    return { cookie, pending };
  }

  #failure(code: number, message: string): Error {
    const name = Object.entries(NBD_ERROR).find(([, value]) => value === code)?.[0] ?? `error ${code}`;
    const said = message === '' ? name : `${name}, ${printable(message.slice(0, 200))}`;
    const text = `the server replied with ${said}`;
    return PASSING.has(code)
      ? new PassingError(text)
      : new CodError('COD_SOURCE_IO', `${this.#what}: ${text}`, { details: { error: code } });
  }

  #malformed(what: string): CodError {
    return new CodError('COD_SOURCE_IO', `${this.#what}: the server sent ${what}`);
  }
}

/** Errors that a retry may cure. */
const PASSING: ReadonlySet<number> = new Set([NBD_ERROR.EIO, NBD_ERROR.ENOMEM, NBD_ERROR.ESHUTDOWN]);
