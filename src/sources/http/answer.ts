/** Parses the response to a range request, and checks that it answers this request. Pure. */

import { CodError } from '../../errors.ts';
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

  /** Names the request in messages. Built only for them. */
  get what(): string {
    return `GET ${this.#resource}, bytes ${this.start}-${this.end - 1}`;
  }
}

/** The state of the resource at opening. */
export interface Known {
  readonly size: number;
  readonly identity: string | undefined;
}

/** `range`: the body is the requested range. `whole`: the server ignored the range and sends everything. */
export type AnswerKind = 'range' | 'whole';

const CORS_HINT = 'a server of another origin must send "Access-Control-Expose-Headers: Content-Range, ETag"';

/**
 * Returns size and identity from the response to the first request, which is for byte 0.
 * @throws {@link CodError} COD_NOT_FOUND or COD_SOURCE_IO when the response cannot be the origin of a source;
 *   {@link PassingError} when a retry may succeed.
 */
export function readOpening(response: HttpResponse, asked: Asked, allowWholeBody: boolean): Known {
  if (response.status === 416 && unsatisfiedSize(response) === 0) return { size: 0, identity: identityOf(response, 0) };
  const kind = kindOf(response, asked);
  if (kind === 'range') {
    const { start, end, size } = contentRange(response, asked);
    if (start !== 0 || end !== 1) throw new PassingError(`the server sent bytes ${start}-${end - 1} instead of 0-0`);
    return { size, identity: identityOf(response, size) };
  }
  const size = contentLength(response);
  if (size === undefined) throw new CodError('COD_SOURCE_IO', `${asked.what}: the server sends no Content-Length`);
  if (size > 0 && !allowWholeBody) throw ignoresRanges(asked);
  return { size, identity: identityOf(response, size) };
}

/**
 * Checks a later response before its body is used.
 * @throws {@link CodError} COD_SOURCE_CHANGED when the size or the identity is another than at opening; otherwise as
 *   {@link readOpening}.
 */
export function checkAnswer(response: HttpResponse, asked: Asked, known: Known, allowWholeBody: boolean): AnswerKind {
  if (response.status === 416) throw changedSize(asked, known, unsatisfiedSize(response));
  const kind = kindOf(response, asked);
  const announced = contentLength(response);
  if (kind === 'range') {
    const { start, end, size } = contentRange(response, asked);
    if (size !== known.size) throw changedSize(asked, known, size);
    checkIdentity(response, asked, known);
    if (start !== asked.start || end !== asked.end)
      throw new PassingError(`the server sent the wrong range, bytes ${start}-${end - 1}`);
    if (announced !== undefined && announced !== end - start) {
      throw new PassingError(`Content-Length is ${announced}, but the range has ${end - start} bytes`);
    }
    return kind;
  }
  if (announced !== undefined && announced !== known.size) throw changedSize(asked, known, announced);
  checkIdentity(response, asked, known);
  if (!allowWholeBody) throw ignoresRanges(asked);
  return kind;
}

function kindOf(response: HttpResponse, asked: Asked): AnswerKind {
  const { status } = response;
  const details = { status };
  if (status === 404 || status === 410)
    throw new CodError('COD_NOT_FOUND', `${asked.what}: ${status}, the server has no such file; check the URL`, {
      details,
    });
  if (status === 401 || status === 403) {
    const message =
      `${asked.what}: ${status}, the server denies access; ` +
      'pass credentials as username and password, in the URL, or as headers';
    throw new CodError('COD_SOURCE_IO', message, { details });
  }
  const passing =
    status === 408 || status === 425 || status === 429 || (status >= 500 && status !== 501 && status !== 505);
  if (passing)
    throw new PassingError(`status ${status}`, { retryAfterMs: retryAfterMs(response.header('retry-after')) });
  if (status !== 200 && status !== 206)
    throw new CodError('COD_SOURCE_IO', `${asked.what}: unexpected status ${status}`, { details });
  const encoding = response.header('content-encoding')?.toLowerCase() ?? 'identity';
  if (encoding !== 'identity') {
    throw new CodError(
      'COD_SOURCE_IO',
      `${asked.what}: the server compresses the file (${encoding}), so its ranges cannot be used; turn compression off`,
      {
        details,
      },
    );
  }
  return status === 206 ? 'range' : 'whole';
}

/** A strong ETag (RFC 9110, section 8.8.3). */
const STRONG_ETAG = /^"[^"]*"$/;

/**
 * Returns what names the content. A strong ETag names the bytes. Any other ETag, weak or malformed, is one sign beside
 * Last-Modified and the size: if it differs, so does the content, but equal tags do not prove equal bytes (RFC 9110,
 * section 8.8.3.2).
 */
function identityOf(response: HttpResponse, size: number): string | undefined {
  const etag = response.header('etag') ?? '';
  if (STRONG_ETAG.test(etag)) return `etag:${etag}`;
  const modified = response.header('last-modified') ?? '';
  if (etag === '' && modified === '') return undefined;
  return `${etag && `weak:${etag};`}${modified && `modified:${modified};`}size:${size}`;
}

function checkIdentity(response: HttpResponse, asked: Asked, known: Known): void {
  const identity = identityOf(response, known.size);
  if (identity === known.identity) return;
  const message =
    `${asked.what}: the file was ${known.identity ?? 'without ETag and Last-Modified'} at opening, ` +
    `and is now ${identity ?? 'without either'}`;
  throw new CodError('COD_SOURCE_CHANGED', message, { details: { atOpen: known.identity, now: identity } });
}

function contentRange(response: HttpResponse, asked: Asked): { start: number; end: number; size: number } {
  const value = response.header('content-range');
  if (value === undefined)
    throw new CodError('COD_SOURCE_IO', `${asked.what}: the response has no Content-Range; ${CORS_HINT}`);
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/i.exec(value);
  const [start, last, size] = [Number(match?.[1]), Number(match?.[2]), Number(match?.[3])];
  if (!match || !Number.isSafeInteger(size) || start > last || last >= size) {
    throw new PassingError(`malformed Content-Range ${JSON.stringify(value.slice(0, 60))}`);
  }
  return { start, end: last + 1, size };
}

/** Returns the length of the body in bytes, as the head of the response announces it. */
export function contentLength(response: HttpResponse): number | undefined {
  const value = response.header('content-length');
  return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
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
    'use a server with ranges, or set allowWholeBody';
  return new CodError('COD_SOURCE_IO', message, { details: { status: 200 } });
}
