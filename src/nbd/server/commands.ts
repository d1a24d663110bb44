/** Carries out the requests that complete asynchronously: changes, flushes, cache requests and block status. */

import type { DeviceExtent } from '../../device/types.ts';
import { isCodError } from '../../errors.ts';
import { COMMAND, COMMAND_FLAG, NBD_ERROR } from '../constants.ts';
import { CONTEXTS, type NbdDevice } from './export.ts';
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
  device: NbdDevice,
  request: Request,
  contexts: readonly number[],
): Promise<readonly Uint8Array[]> {
  const one = (request.flags & COMMAND_FLAG.reqOne) !== 0;
  const found = await device.extents!(request.offset, request.length, one ? 1 : LIMITS.statusExtents);
  return contexts.map((context, index) => {
    const extents = merge(found, CONTEXTS[context - 1]!.statusOf);
    return blockStatusChunk(request, context, extents, index === contexts.length - 1);
  });
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
