/**
 * Reads that are longer than {@link LIMITS.pieceBytes}, answered piece by piece as the client takes them.
 *
 * A simple reply, and a reply that must not be fragmented, cannot report a failure after their beginning. All of the
 * range is therefore made readable before. If a piece cannot be read nevertheless, the connection ends.
 */

import { COMMAND_FLAG } from '../constants.ts';
import { type InlineNbdDevice, submitRead } from './export.ts';
import { takeBuffer } from './large-buffers.ts';
import { LIMITS } from './limits.ts';
import { putReadReply, type Request, readReplyBytes } from './transmission.ts';

/** How the pieces are read and sent. */
export interface LongReadOptions {
  readonly structured: boolean;
  readonly signal: AbortSignal;
  /** Resolves when the client has taken enough of its replies. */
  room(): Promise<void>;
  send(bytes: Uint8Array): void;
}

/** A failure after the beginning of a reply that cannot report it. The connection must end. */
export class BrokenReply extends Error {
  override readonly name = 'BrokenReply';
}

/** Returns whether a reply consists of one chunk, so that no other reply may come between its pieces. */
export function isOneChunk({ flags }: Request, structured: boolean): boolean {
  return !structured || (flags & COMMAND_FLAG.df) !== 0;
}

/**
 * Reads a range and sends the reply.
 * @throws {@link BrokenReply} when the range cannot be read and the reply cannot report it. Any other error can be
 * reported.
 */
export async function readInPieces(device: InlineNbdDevice, request: Request, options: LongReadOptions): Promise<void> {
  const { cookieHigh, cookieLow, offset, length } = request;
  const { structured, signal, room, send } = options;
  const end = offset + length;
  const oneChunk = isOneChunk(request, structured);
  // A full disk is no reason to fail, so a range that cannot be stored is read once for nothing.
  if (oneChunk && !(await fetched(device, request, signal))) {
    const tried = Buffer.allocUnsafeSlow(LIMITS.pieceBytes);
    for (let at = offset; at < end; at = endOfPiece(at, end))
      await submitRead(device, tried.subarray(0, endOfPiece(at, end) - at), at, signal);
  }
  let isAhead = oneChunk;
  for (let at = offset; at < end; at = endOfPiece(at, end)) {
    const bytes = endOfPiece(at, end) - at;
    const head = oneChunk && at > offset ? 0 : readReplyBytes(structured);
    await room();
    const reply = takeBuffer(head + bytes);
    try {
      signal.throwIfAborted();
      const reading = submitRead(device, reply.subarray(head), at, signal);
      // If one piece has to wait, the others do not wait one by one.
      if (reading !== undefined && !isAhead) void fetched(device, { offset: at, length: end - at }, signal);
      isAhead ||= reading !== undefined;
      await reading;
    } catch (cause) {
      if (!oneChunk || at === offset) throw cause;
      throw new BrokenReply('a piece of a reply cannot be read', { cause });
    }
    const chunk = oneChunk ? request : { cookieHigh, cookieLow, offset: at, length: bytes };
    if (head > 0) putReadReply(reply, 0, chunk, structured, oneChunk || at + bytes === end);
    send(reply);
  }
}

/** Returns whether the range could be fetched ahead. */
async function fetched(
  device: InlineNbdDevice,
  { offset, length }: Pick<Request, 'offset' | 'length'>,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await device.hydrateRange?.(offset, length, { signal });
  } catch {
    return false;
  }
  return device.hydrateRange !== undefined;
}

function endOfPiece(at: number, end: number): number {
  return Math.min(end, at + LIMITS.pieceBytes - (at % LIMITS.pieceBytes));
}
