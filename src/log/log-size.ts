/** How long a log is, and when a checkpoint replaces it (docs/DESIGN.md, "Cost of checkpoints"). */

import { MAX_LOG_BYTES } from '../core/layout.ts';

/**
 * `log bytes = max(4 × last checkpoint, clamp(40 B × blocks, 1 MiB, 8 MiB))`; 40 B is one record in its own frame. The
 * file is sparse, so unused bytes cost nothing. A short log is full sooner, and each full log costs a checkpoint.
 */
const MIN_LOG_BYTES = 2 ** 20;
const MIN_LOG_BYTES_OF_LARGE = 2 ** 23;
const BYTES_PER_RECORD = 40;

/** Length of a log whose checkpoint is small. */
function minLogBytes(blockCount: number): number {
  return Math.min(MIN_LOG_BYTES_OF_LARGE, Math.max(MIN_LOG_BYTES, blockCount * BYTES_PER_RECORD));
}

/** Length of a new log. */
export function logCapacity(blockCount: number, checkpointBytes: number): number {
  const wanted = Math.max(minLogBytes(blockCount), 4 * checkpointBytes);
  return Math.min(MAX_LOG_BYTES, Math.ceil(wanted / 65_536) * 65_536);
}

/**
 * Log bytes after which a checkpoint pays: as many as the checkpoint has. At most half of what the log may have: the
 * rest is for the time that the checkpoint takes.
 */
export function growthBeforeCheckpoint(blockCount: number, checkpointBytes: number, limit: number): number {
  return Math.min(limit / 2, Math.max(minLogBytes(blockCount) / 2, checkpointBytes));
}
