/**
 * The spare file of a lock, `<name>.lock.spare`: room that its owner gives up while a lock, a barrier or a checkpoint
 * is written on a full disk, and takes back afterwards. It is a help, not a promise: where it cannot be made, there is
 * none, and on a disk that is almost full it is short.
 *
 * A file that is not ours stays as it is. Ours begins with {@link MAGIC}, or with a part of that where it ends.
 */

import { randomFillSync } from 'node:crypto';
import * as fs from 'node:fs';
import { errnoOf } from '../platform/errno.ts';
import { keepForOwner } from './fs-adapter.ts';
import { readIfThere } from './lock-owner.ts';

/** After this much is freed, xfs and btrfs take a new lock, its socket and a hundred small overwrites (2026). */
const SPARE_BYTES = 262_144;
/** btrfs refuses a write as a whole. */
const STEP_BYTES = 16_384;
const MAGIC = 'COD SPARE\n';
/** Windows has no O_NOFOLLOW. */
const WRITE_FLAGS = fs.constants.O_WRONLY | (fs.constants.O_NOFOLLOW ?? 0);

/** Makes the spare file of the lock `file` as long as the disk has room for, and durable. */
export async function makeSpare(file: string): Promise<void> {
  const path = spareOf(file);
  try {
    const found = ourBytes(path);
    if (found === SPARE_BYTES) return;
    // Random bytes: a file system that compresses gives no room to zeros.
    const bytes = randomFillSync(Buffer.alloc(SPARE_BYTES));
    bytes.write(MAGIC);
    const handle = await fs.promises.open(path, found === undefined ? 'wx' : WRITE_FLAGS, 0o600);
    try {
      keepForOwner(fs, handle.fd);
      for (let at = found ?? 0; at < SPARE_BYTES; )
        at += (await handle.write(bytes, at, Math.min(STEP_BYTES, SPARE_BYTES - at), at)).bytesWritten;
    } finally {
      await handle.sync().finally(() => handle.close());
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

/** Removes the spare file of the lock `file`. Returns whether that made room. */
export function removeSpare(file: string): boolean {
  const path = spareOf(file);
  try {
    const bytes = ourBytes(path);
    if (bytes !== undefined) fs.rmSync(path, { force: true });
    return (bytes ?? 0) > 0;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return false;
  }
}

function spareOf(file: string): string {
  return `${file}.spare`;
}

/** Bytes of a spare file of ours. Undefined: there is none, or another file. */
function ourBytes(path: string): number | undefined {
  const found = fs.lstatSync(path, { throwIfNoEntry: false });
  if (!found?.isFile() || found.size > SPARE_BYTES) return undefined;
  return MAGIC.startsWith((readIfThere(path) ?? '').slice(0, MAGIC.length)) ? found.size : undefined;
}
