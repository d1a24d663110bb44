/** What a test tells the crashing file system: its options, faults, and how the process ends. */

import type { CodErrorCode } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';
import type { Random } from './random.ts';

/** Options of a `CrashingFileSystem`. */
export interface CrashingFileSystemOptions {
  /** Decides the order in which overlapping operations end, and what failed operations leave. Default: seed 0. */
  readonly random?: Random;
  /** Names the boot. A power cut makes a new name; other crashes keep it. Default: none, as in a browser. */
  readonly bootId?: string | undefined;
  /** The clock on which operations take time. Default: none; operations take a few rounds of the microtask queue. */
  readonly clock?: Clock;
  /** The longest time of an operation in milliseconds of {@link clock}. Each takes a random part of it. Default: 1. */
  readonly latencyMs?: number;
  /**
   * A write that a process crash interrupts ends at a multiple of this many bytes of the file, or at its own end. A
   * function gives the number for each name. Kernels copy a write page by page: 4096. Default: 1.
   */
  readonly tearBytes?: number | ((name: string) => number);
  /** Whether a file's `sync` makes its name durable. False simulates OPFS in a file's first minute. Default: true. */
  readonly syncsNames?: boolean;
  /** Whether files also have calls that complete synchronously or later, as chance decides. Default: false. */
  readonly inline?: boolean;
  /** As in OPFS: opening or removing an open file rejects with COD_LOCKED. Default: false. */
  readonly exclusive?: boolean;
}

/** A storage operation, as the conditions of faults see it. */
export interface StorageOperation {
  /** 1 for the first call on this file system, then consecutive. `close` is not counted. */
  readonly number: number;
  /** The method of the file system or of the file. */
  readonly kind: 'open' | 'remove' | 'size' | 'read' | 'write' | 'truncate' | 'sync';
  /** Name of the file, as it was opened. */
  readonly name: string;
  /** First byte of a read or write, new size of a truncation, otherwise 0. */
  readonly offset: number;
  /** Bytes of a read or write, otherwise 0. */
  readonly length: number;
}

/** Which error a failing operation rejects with, and whether the fault is permanent. */
export interface FaultOptions {
  /** The code of the error. Default: COD_TARGET_IO. */
  readonly code?: CodErrorCode;
  /** False: only the first matching operation fails. True: all of them fail until `clearFaults`. Default: false. */
  readonly stays?: boolean;
}

/** How the process ends. */
export interface Crash {
  /**
   * `process`: the kernel survives. `power`: only synced changes are certain to survive. `loss`: as `power`, but the
   * machine keeps running: the volume was detached, remounted, or restored from a snapshot of one moment.
   */
  readonly kind: 'process' | 'power' | 'loss';
  /** Decides what the crash leaves. */
  readonly random: Random;
}
