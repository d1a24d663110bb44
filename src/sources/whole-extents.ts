/** The bytes of a source in pieces of whole extents, however the source cuts them. */

import { CodError } from '../errors.ts';
import type { InlineSource, InternalStreamOptions, Source } from './source.ts';

/** Length of a read of a source that does not stream: a multiple of every extent. */
const READ_BYTES = 2 ** 20;

/** A range that begins with an extent, and ends with one or with the source. */
export interface ExtentRange {
  /** Bytes, as {@link end}. */
  readonly start: number;
  readonly end: number;
  readonly extentBytes: number;
}

/**
 * Reads a range. Each piece is one or more whole extents, and belongs to the consumer until the next one is asked for.
 * @throws {@link CodError} COD_SOURCE_IO when the source gives another number of bytes; the errors of the source.
 */
export async function* wholeExtents(
  source: InlineSource,
  { start, end, extentBytes }: ExtentRange,
  signal: AbortSignal | undefined,
  options: InternalStreamOptions = {},
): AsyncGenerator<Uint8Array> {
  const signalled = signal === undefined ? options : { ...options, signal };
  const pieces = source.stream?.(start, end - start, signalled) ?? reads(source, start, end, signal);
  const carry = new Uint8Array(extentBytes);
  let carried = 0;
  let at = start;
  for await (const piece of pieces) {
    if (at + carried + piece.length > end)
      throw wrongLength(start, end, `${at + carried + piece.length - start} or more`);
    let rest = piece;
    while (rest.length > 0) {
      const wanted = Math.min(extentBytes, end - at);
      if (carried > 0 || rest.length < wanted) {
        const part = rest.subarray(0, wanted - carried);
        carry.set(part, carried);
        carried += part.length;
        rest = rest.subarray(part.length);
        if (carried < wanted) continue;
        at += wanted;
        carried = 0;
        yield carry.subarray(0, wanted);
      } else {
        const whole = at + rest.length === end ? rest : rest.subarray(0, rest.length - (rest.length % extentBytes));
        at += whole.length;
        rest = rest.subarray(whole.length);
        yield whole;
      }
    }
  }
  if (at < end) throw wrongLength(start, end, `${at + carried - start}`);
}

async function* reads(
  source: Source,
  start: number,
  end: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(Math.min(READ_BYTES, end - start));
  for (let at = start; at < end; ) {
    const piece = buffer.subarray(0, Math.min(buffer.length, end - at));
    await source.read(piece, at, signal === undefined ? {} : { signal });
    yield piece;
    at += piece.length;
  }
}

function wrongLength(start: number, end: number, found: string): CodError {
  const message = `the source returned ${found} bytes instead of ${end - start} at offset ${start}`;
  return new CodError('COD_SOURCE_IO', message, { details: { offset: start, length: end - start } });
}
