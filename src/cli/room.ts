/** Looks before a copy begins whether it fits on its disk. */

import { nodeFileSystem } from '../control/node-file-system.ts';
import type { Device } from '../device/types.ts';
import { syncedBytes } from './synced-bytes.ts';
import { formatBytes } from './units.ts';

/** The device is asked for the extents of so many bytes at a time, each of which has at least 64 KiB in most images. */
const PIECE_BYTES = 2 ** 28;
const MAX_EXTENTS = 4096;

/**
 * Returns a warning if the rest of a copy does not fit on the disk of its target. What the target has allocated, and
 * what the source knows to be zeros, needs no room. Zeros that the copy finds itself count, so the copy may fit.
 *
 * @throws {@link CodError} or another error when the room or the zeros are not known.
 */
export async function lackOfRoom(device: Device, target: string, signal: AbortSignal): Promise<string | undefined> {
  const { freeBytes, allocatedBytes } = nodeFileSystem('.', { readOnly: true });
  const free = await freeBytes!(target);
  const { size } = device;
  const unallocated = size - (await allocatedBytes!(target));
  if (Math.min(size - syncedBytes(device.status()), unallocated) <= free) return undefined;
  let missing = 0;
  for (let at = 0; at < size; ) {
    signal.throwIfAborted();
    for (const { length, state, zero } of await device.extents(at, Math.min(size - at, PIECE_BYTES), MAX_EXTENTS)) {
      if (state !== 'synced' && !zero) missing += length;
      at += length;
    }
  }
  missing = Math.min(missing, unallocated);
  if (missing <= free) return undefined;
  return (
    `${target}: the disk has ${formatBytes(free)} free, and the rest of the copy may need ${formatBytes(missing)}; ` +
    'if the disk is full, the copy waits for room'
  );
}
