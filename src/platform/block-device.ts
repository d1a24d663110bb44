/** Block devices of Linux. */

import { readFileSync } from 'node:fs';

/**
 * Returns the size of a block device in bytes. The kernel counts sectors of 512 bytes here, whatever the device's own
 * sectors are (block/genhd.c).
 * @param rdev the device's number, as of stat(2)
 * @throws the error of the system where there is no sysfs
 */
export function blockDeviceBytes(rdev: bigint): number {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
}
