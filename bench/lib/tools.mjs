/** Helpers that several benchmarks share. */

import { randomFillSync } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Path of slow-server.mjs. */
export const slowServer = fileURLToPath(new URL('slow-server.mjs', import.meta.url));

/** Whether a program is installed. */
export function have(program) {
  return (process.env.PATH ?? '').split(':').some((folder) => existsSync(join(folder, program)));
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

/** Makes a file of random bytes, and syncs it. */
export function makeImage(path, mebibytes) {
  const fd = openSync(path, 'w');
  const piece = Buffer.alloc(2 ** 20);
  for (let index = 0; index < mebibytes; index++) writeSync(fd, randomFillSync(piece));
  fsyncSync(fd);
  closeSync(fd);
}
