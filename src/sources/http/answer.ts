/** Parses the response to a range request, and checks that it answers this request. Pure. */

import { CodError, type CodErrorCode } from '../../errors.ts';
import { PassingError, retryAfterMs } from '../retry.ts';
import type { HttpResponse } from './transport.ts';

/** A request for the bytes `[start, end)` of a resource. */
export class Asked {
  readonly #resource: { toString(): string };
  readonly start: number;
  readonly end: number;
  /** As in {@link InternalHttpRequest}. */
  readonly pieceBytes: number | undefined;

  constructor(resource: { toString(): string }, start: number, end: number, pieceBytes?: number) {
    this.#resource = resource;
    this.start = start;
    this.end = end;
    this.pieceBytes = pieceBytes;
  }

  /** The value of the header. */
  get range(): string {
    return `bytes=${this.start}-${this.end - 1}`;
  }

  /** Names the request in messages. Built only for them. */
  get what(): string {
    return `GET ${this.#resource}, bytes ${this.start}-${this.end - 1}`;
  }
}

/** What names the content of a response. */
interface Validators {
  readonly etag: string;
  readonly modified: string;
}

/** The state of the resource at opening. */
export interface Known extends Validators {
  readonly size: number;
  readonly contentType?: string | undefined;
}

/** The part of the body that is the answer. */
export interface Slice {
  /** Bytes of the body before the requested ones. */
  readonly skip: number;
  /** Requested bytes in the body: from the first one on, at least one. */
  readonly length: number;
  /** Whether the body must end there. */
  readonly mustEnd: boolean;
}

/** A server that sends larger slices than requested is used up to this many bytes before the requested ones. */
const MAX_SKIP_BYTES = 2 ** 24;
const CORS_HINT = 'a server of another origin must send "Access-Control-Expose-Headers: Content-Range, ETag"';
const TAG_HINT = 'if the content is the same, accept it by sameSource (option --same-source)';

/**
 * Returns what the response to the first request, which is for byte 0, tells. `size` is undefined if the server does
 * not tell it there (`bytes 0-0/*`).
 * @throws {@link CodError} COD_SOURCE_IO when the response cannot be the origin of a source; {@link PassingError} when
 *   a retry may succeed.
 */
export function readOpening(
  response: HttpResponse,
  asked: Asked,
  allowWholeBody: boolean,
): Omit<Known, 'size'> & { readonly size: number | undefined } {
  const validators = { ...validatorsOf(response), contentType: response.header('content-type') };
  if (response.status === 416 && unsatisfiedSize(response) === 0) return { ...validators, size: 0 };
  if (isRange(response, asked)) {
    const { start, end, size } = contentRange(response, asked);
    if (start !== 0) throw new PassingError(`the server sent bytes ${start}-${end - 1} instead of 0-0`);
    return { ...validators, size };
  }
  const size = contentLength(response);
  if (size === undefined) throw new CodError('COD_SOURCE_IO', `${asked.what}: the server sends no Content-Length`);
  if (size > 0 && !allowWholeBody) throw ignoresRanges(asked);
  return { ...validators, size };
}

/**
 * Returns the total size from the response to a HEAD, or to a request for the last byte. Undefined if it does not tell
 * the size. A server that does not know a range for the last byte may send byte 0, which tells nothing.
 */
export function readTotal(response: HttpResponse): number | undefined {
  const { status } = response;
  if (isEncoded(response)) return undefined;
  if (status === 200) return contentLength(response);
  const [, , first, last, total] = CONTENT_RANGE.exec(response.header('content-range') ?? '') ?? [];
  if (status !== 206 || last === undefined) return undefined;
  if (total !== '*') return Number(total);
  return first === last && last !== '0' ? Number(last) + 1 : undefined;
}

/**
 * Checks a later response before its body is used.
 * @throws {@link CodError} COD_SOURCE_CHANGED when the size or the identity is another than at opening; otherwise as
 *   {@link readOpening}.
 */
export function checkAnswer(
  response: HttpResponse,
  asked: Asked,
  known: Known,
  options: { readonly allowWholeBody: boolean; readonly sameSource: boolean },
): Slice {
  if (response.status === 416) throw changedSize(asked, known, unsatisfiedSize(response));
  const announced = contentLength(response);
  if (isRange(response, asked)) {
    const { start, end, size = known.size } = contentRange(response, asked);
    if (size !== known.size) throw changedSize(asked, known, size);
    checkIdentity(response, asked, known, options.sameSource);
    // A server may send less than requested (RFC 9110, section 15.3.7). Caches send larger, aligned slices.
    const skip = asked.start - start;
    if (skip < 0 || skip > MAX_SKIP_BYTES || end <= asked.start || end > size)
      throw new PassingError(`the server sent the wrong range, bytes ${start}-${end - 1}`);
    if (announced !== undefined && announced !== end - start) {
      throw new PassingError(`Content-Length is ${announced}, but the range has ${end - start} bytes`);
    }
    return { skip, length: Math.min(end, asked.end) - asked.start, mustEnd: end <= asked.end };
  }
  if (announced !== undefined && announced !== known.size) throw changedSize(asked, known, announced);
  checkIdentity(response, asked, known, options.sameSource);
  if (!options.allowWholeBody) throw ignoresRanges(asked);
  return { skip: asked.start, length: asked.end - asked.start, mustEnd: asked.end === known.size };
}

/** Whether the body of a response with this status can be used, or the status tells the size. */
export function isUsable(status: number): boolean {
  return status === 200 || status === 206 || status === 416;
}

/**
 * Returns the error for a response that is not {@link isUsable}.
 * @param said what its body says
 */
export function refusal(response: HttpResponse, asked: Asked, said: string | undefined): Error {
  const { status } = response;
  const says = said === undefined ? '' : `; the server says "${said}"`;
  const details = { status, ...(said === undefined ? {} : { said }) };
  const final = (code: CodErrorCode, why: string) => new CodError(code, `${asked.what}: ${why}${says}`, { details });
  if (status === 404 || status === 410)
    return final('COD_NOT_FOUND', `${status}, the server has no such file; check the URL`);
  if (status === 401 || status === 403) {
    return final('COD_SOURCE_IO', `${status}, the server denies access; pass valid credentials`);
  }
  if (status === 408 || status === 425 || status === 429 || (status >= 500 && status !== 501 && status !== 505)) {
    const retryAfter = retryAfterMs(response.header('retry-after'));
    return new PassingError(`status ${status}${says}`, { retryAfterMs: retryAfter, isCrowded: CROWDED.has(status) });
  }
  const why = status >= 300 && status < 400 ? 'the server sends a redirect without a Location' : 'unexpected status';
  return final('COD_SOURCE_IO', `${why} (${status})`);
}

/** Statuses of a server that allows fewer connections. */
const CROWDED: ReadonlySet<number> = new Set([429, 503]);

function isRange(response: HttpResponse, asked: Asked): boolean {
  if (isEncoded(response)) {
    const encoding = response.header('content-encoding');
    const why = `the server compresses the file (${encoding}), so its ranges cannot be used; turn compression off`;
    throw new CodError('COD_SOURCE_IO', `${asked.what}: ${why}`, { details: { status: response.status } });
  }
  return response.status === 206;
}

function isEncoded(response: HttpResponse): boolean {
  return (response.header('content-encoding') ?? 'identity').toLowerCase() !== 'identity';
}

/** A strong ETag (RFC 9110, section 8.8.3). */
const STRONG_ETAG = /^"[^"]*"$/;

/**
 * Returns what names the content. A strong ETag names the bytes. Any other ETag, weak or malformed, is one sign beside
 * Last-Modified and the size: if it differs, so does the content, but equal tags do not prove equal bytes (RFC 9110,
 * section 8.8.3.2).
 */
export function identityOf({ etag, modified, size }: Known): string | undefined {
  if (STRONG_ETAG.test(etag)) return `etag:${etag}`;
  if (etag === '' && modified === '') return undefined;
  return `${etag && `weak:${etag};`}${modified && `modified:${modified};`}size:${size}`;
}

function validatorsOf(response: HttpResponse): Validators {
  return { etag: response.header('etag') ?? '', modified: response.header('last-modified') ?? '' };
}

function checkIdentity(response: HttpResponse, asked: Asked, known: Known, sameSource: boolean): void {
  const now = { ...validatorsOf(response), size: known.size };
  const [identity, atOpen] = [identityOf(now), identityOf(known)];
  if (identity === atOpen) return;
  const onlyTag = now.modified !== '' && now.modified === known.modified;
  if (onlyTag && sameSource) return;
  const message =
    `${asked.what}: the file was ${atOpen ?? 'without ETag and Last-Modified'} at opening, ` +
    `and is now ${identity ?? 'without either'}`;
  throw new CodError(
    'COD_SOURCE_CHANGED',
    onlyTag ? `${message}, with equal Last-Modified and size; ${TAG_HINT}` : message,
    {
      details: { atOpen, now: identity, ...(onlyTag ? { etag: now.etag } : {}) },
    },
  );
}

function contentRange(response: HttpResponse, asked: Asked): { start: number; end: number; size: number | undefined } {
  const value = response.header('content-range');
  if (value === undefined)
    throw new CodError('COD_SOURCE_IO', `${asked.what}: the response has no Content-Range; ${CORS_HINT}`);
  const match = CONTENT_RANGE.exec(value);
  const [start, last] = [Number(match?.[2]), Number(match?.[3])];
  const size = match?.[4] === '*' ? undefined : Number(match?.[4]);
  if (!match || start > last || (size !== undefined && last >= size)) {
    throw new PassingError(`malformed Content-Range ${JSON.stringify(value.slice(0, 60))}`);
  }
  return { start, end: last + 1, size };
}

/** The value, or several equal ones. Longer numbers are no safe integers. */
const CONTENT_RANGE = /^(bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*))(?:, \1)*$/i;

/** Returns the length of the body in bytes, as the head of the response announces it. */
export function contentLength(response: HttpResponse): number | undefined {
  const value = /^(\d{1,15})(?:, \1)*$/.exec(response.header('content-length') ?? '')?.[1];
  return value === undefined ? undefined : Number(value);
}

function unsatisfiedSize(response: HttpResponse): number | undefined {
  const size = /^bytes \*\/(\d{1,15})$/i.exec(response.header('content-range') ?? '')?.[1];
  return size === undefined ? undefined : Number(size);
}

function changedSize(asked: Asked, known: Known, size: number | undefined): CodError {
  if (size === undefined || size === known.size) {
    return new CodError('COD_SOURCE_IO', `${asked.what}: the server refuses the range (416)`, {
      details: { status: 416 },
    });
  }
  const message = `${asked.what}: the file had ${known.size} bytes at opening, and now has ${size}`;
  return new CodError('COD_SOURCE_CHANGED', message, { details: { sizeAtOpen: known.size, size } });
}

function ignoresRanges(asked: Asked): CodError {
  const message =
    `${asked.what}: the server ignores ranges and sends the whole file (200); ` +
    'use a server with ranges and without compression, or set allowWholeBody';
  return new CodError('COD_SOURCE_IO', message, { details: { status: 200 } });
}
