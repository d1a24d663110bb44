/** What an owner tells of its copy. */

import type { CallCount, DeviceState, TransferCount } from '../device/types.ts';

/** The last failure that the owner met. */
export interface CopyFailure {
  /** Code of a `CodError`, or the error's name. */
  readonly code: string;
  /** For people. URLs have neither query nor credentials. */
  readonly message: string;
  /** When it came: ISO 8601, by the owner's clock. */
  readonly time: string;
  /** When the owner got further again, ISO 8601. Null: not yet. */
  readonly recoveredAt: string | null;
}

/** What the owner of a copy does now. Null: not known, or there is none. */
export interface CopyStatus {
  /** The copy, as it was asked for. */
  readonly target: string;
  /** Process id of the owner, in its own PID namespace. Null: no process owns the copy. */
  readonly pid: number | null;
  /** As of a device. `opening`: the owner has the copy, and opens it. */
  readonly state: DeviceState | 'opening';
  /** Bytes of the device. */
  readonly size: number | null;
  /** Bytes of a block. */
  readonly blockSize: number | null;
  /** Blocks that the target holds completely. */
  readonly syncedBlocks: number | null;
  /** `ceil(size / blockSize)`. */
  readonly totalBlocks: number | null;
  /** Blocks that were written in part and that only the source holds completely. */
  readonly dirtyBlocks: number | null;
  /** Current speed of the background copy, in bytes per second. */
  readonly bytesPerSecond: number;
  /** The rate limit in bytes per second. Null: no limit. */
  readonly rateBytesPerSecond: number | null;
  /** Path of the file that says the rate. */
  readonly rateFile: string | null;
  /** Seconds until the copy is complete, at the current speed. 0: it is complete. */
  readonly secondsLeft: number | null;
  /** The source, without query and credentials. */
  readonly source: string | null;
  /** Prefix of the paths of the metadata files. */
  readonly metadata: string | null;
  /** The last failure. It stays after the recovery. */
  readonly lastError: CopyFailure | null;
  /** When the next attempt begins, ISO 8601. Null: no attempt has failed since the last success. */
  readonly nextAttemptAt: string | null;
  /** Failed attempts since the copy was opened. */
  readonly retries: number | null;
  /** Clients that use the copy. */
  readonly clients: number | null;
  /** Whether the background copy waits for `resume`. */
  readonly paused: boolean;
  /** When the owner began, ISO 8601. */
  readonly since: string | null;
  /** Bytes written to logs and checkpoints since the copy was opened. */
  readonly metadataBytes: number | null;
  /** What reads of users took from the source since the copy was opened. */
  readonly demand: TransferCount | null;
  /** What the background copy took from the source since the copy was opened. */
  readonly background: TransferCount | null;
  /** Reads by users since the copy was opened. */
  readonly reads: CallCount | null;
  /** Writes by users since the copy was opened. */
  readonly writes: CallCount | null;
  /** Flushes by users since the copy was opened. */
  readonly flushes: CallCount | null;
  /** Calls of users that failed, and failed attempts, by the code of the error. */
  readonly errors: Readonly<Record<string, number>> | null;
  /**
   * The map, if cells were asked for: a character for each of at most `cells` equal parts of the blocks.
   * `.`: nothing is copied. `+`: some blocks are. `#`: all are. `!`: a block was written in part, and is not copied.
   */
  readonly map: string | null;
}

/** A status that tells nothing. */
export const UNKNOWN: Omit<CopyStatus, 'target' | 'pid' | 'state'> = {
  size: null,
  blockSize: null,
  syncedBlocks: null,
  totalBlocks: null,
  dirtyBlocks: null,
  bytesPerSecond: 0,
  rateBytesPerSecond: null,
  rateFile: null,
  secondsLeft: null,
  source: null,
  metadata: null,
  lastError: null,
  nextAttemptAt: null,
  retries: null,
  clients: null,
  paused: false,
  since: null,
  metadataBytes: null,
  demand: null,
  background: null,
  reads: null,
  writes: null,
  flushes: null,
  errors: null,
  map: null,
};

/** The most cells of a map. */
export const MAX_CELLS = 4096;
