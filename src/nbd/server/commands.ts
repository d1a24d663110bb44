/** Carries out the requests that complete asynchronously: changes, flushes, cache requests and block status. */

import type { DeviceExtent } from '../../device/types.ts';
import { isCodError } from '../../errors.ts';
import {
  ALLOCATION_FLAG,
  BASE_ALLOCATION,
  COMMAND,
  COMMAND_FLAG,
  COPY_STATE,
  COPY_STATE_VALUE,
  NBD_ERROR,
} from '../constants.ts';
import { CONTEXTS, type InlineNbdDevice, type NbdDevice } from './export.ts';
import { LIMITS } from './limits.ts';
import { blockStatusChunk, type Request, type StatusExtent } from './transmission.ts';

/** A failure with an error number of its own in the reply. */
class NbdFailure extends Error {
  override readonly name = 'NbdFailure';
  readonly error: number;

  constructor(error: number, message: string) {
    super(message);
    this.error = error;
  }
}

/** Written where zeros must be allocated. */
const ZEROS = new Uint8Array(2 ** 20);

/**
 * Carries out a validated request whose reply has no data. With FUA, the change is durable when the promise resolves.
 */
export async function change(device: NbdDevice, request: Request, signal: AbortSignal): Promise<void> {
  const { type, flags, offset, length, payload } = request;
  const fua = (flags & COMMAND_FLAG.fua) !== 0;
  switch (type) {
    case COMMAND.write:
      return device.write!(payload, offset, { fua });
    case COMMAND.flush:
      return device.flush!();
    case COMMAND.cache:
      return device.hydrateRange!(offset, length, { signal });
    case COMMAND.trim:
      await device.discard!(offset, length);
      break;
    case COMMAND.writeZeroes:
      await zero(device, flags, offset, length);
      break;
    default:
      throw new NbdFailure(NBD_ERROR.EINVAL, `unknown command ${type}`);
  }
  if (fua) await device.flush!();
}

async function zero(device: NbdDevice, flags: number, offset: number, length: number): Promise<void> {
  // Node cannot punch holes. Zeroing reads all that is there, so it is not faster than writing.
  if ((flags & COMMAND_FLAG.fastZero) !== 0)
    throw new NbdFailure(NBD_ERROR.ENOTSUP, 'zeroing is not faster than writing');
  if ((flags & COMMAND_FLAG.noHole) === 0) return device.writeZeroes!(offset, length);
  for (let done = 0; done < length; done += ZEROS.length) {
    await device.write!(ZEROS.subarray(0, Math.min(ZEROS.length, length - done)), offset + done);
  }
}

/** Returns the reply to a block status request: one chunk for each of `contexts`, which are ids. */
export async function blockStatus(
  device: InlineNbdDevice,
  request: Request,
  contexts: readonly number[],
): Promise<readonly Uint8Array[]> {
  const limit = (request.flags & COMMAND_FLAG.reqOne) !== 0 ? 1 : LIMITS.statusExtents;
  const found = await device.extents!(request.offset, request.length, limit);
  return contexts.map((context, index) => {
    const extents = statusExtents(device, request, CONTEXTS[context - 1]!, { found, limit });
    return blockStatusChunk(request, context, extents, index === contexts.length - 1);
  });
}

function statusExtents(
  device: InlineNbdDevice,
  request: Request,
  context: string,
  { found, limit }: { found: readonly DeviceExtent[]; limit: number },
): StatusExtent[] {
  switch (context) {
    case BASE_ALLOCATION:
      return merge(found, ({ zero }) => (zero ? ALLOCATION_FLAG.hole | ALLOCATION_FLAG.zero : 0));
    case COPY_STATE:
      return merge(found, ({ state }) => COPY_STATE_VALUE[state]);
    default:
      return modifiedExtents(device, request, limit);
  }
}

function merge(extents: readonly DeviceExtent[], statusOf: (extent: DeviceExtent) => number): StatusExtent[] {
  const merged: { length: number; status: number }[] = [];
  for (const extent of extents) {
    const status = statusOf(extent);
    const last = merged.at(-1);
    if (last?.status === status) last.length += extent.length;
    else merged.push({ length: extent.length, status });
  }
  return merged;
}

/** Returns up to `limit` extents of blocks that users modified, and of others. */
function modifiedExtents(device: InlineNbdDevice, { offset, length }: Request, limit: number): StatusExtent[] {
  const { blockSize } = device;
  const end = offset + length;
  const extents: StatusExtent[] = [];
  const runs = device.modified!.extents(Math.floor(offset / blockSize), Math.ceil(end / blockSize));
  for (const { start, end: stop, synced } of runs) {
    if (extents.length >= limit) break;
    const bytes = Math.min(end, stop * blockSize) - Math.max(offset, start * blockSize);
    extents.push({ length: bytes, status: synced ? 1 : 0 });
  }
  return extents;
}

/**
 * Returns the error number and the message that a client gets for a failure.
 * The message names no paths or addresses, since the client may be anyone.
 */
export function failureOf(error: unknown): { readonly error: number; readonly message: string } {
  if (error instanceof NbdFailure) return { error: error.error, message: error.message };
  if (!isCodError(error)) return { error: NBD_ERROR.EIO, message: 'an internal error' };
  if (error.code === 'COD_NO_SPACE') return { error: NBD_ERROR.ENOSPC, message: error.code };
  if (error.code === 'COD_NO_MEMORY') return { error: NBD_ERROR.ENOMEM, message: error.code };
  if (error.code === 'COD_CLOSED') return { error: NBD_ERROR.ESHUTDOWN, message: error.code };
  return { error: NBD_ERROR.EIO, message: error.code };
}
