/** What a test tells the crashing file system: its options, faults, and how the process ends. */

import type { CodErrorCode } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';
import type { Random } from './random.ts';

/** Options of a `CrashingFileSystem`. */
export interface CrashingFileSystemOptions {
  /** Decides the order in which overlapping operations end, and what failed operations leave. Default: seed 0. */
  readonly random?: Random;
  /** Names the boot. A process crash keeps it, a power cut makes a new one. Default: none, as in a browser. */
  readonly bootId?: string | undefined;
  /**
   * Operations take a random time of up to `latencyMs` (default: 1) on this clock. Without a clock they take a few
   * rounds of the microtask queue.
   */
  readonly clock?: Clock;
  readonly latencyMs?: number;
  /**
   * A write that a process crash interrupts ends at a multiple of this many bytes of the file, or at its own end.
   * Default: 1.
   */
  readonly tearBytes?: number;
  /** Whether a file's `sync` makes its name durable. False simulates OPFS in a file's first minute. Default: true. */
  readonly syncsNames?: boolean;
  /** Whether files also have calls that complete synchronously or later, as chance decides. Default: false. */
  readonly inline?: boolean;
  /** As in OPFS: opening or removing an open file rejects with COD_LOCKED. Default: false. */
  readonly exclusive?: boolean;
}

/** One call, as the conditions of faults see it. */
export interface StorageOperation {
  /** 1 for the first call on this file system, then consecutive. `close` is not counted. */
  readonly number: number;
  readonly kind: 'open' | 'remove' | 'size' | 'read' | 'write' | 'truncate' | 'sync';
  readonly name: string;
  /** First byte of a read or write, new size of a truncation, otherwise 0. */
  readonly offset: number;
  /** Bytes of a read or write, otherwise 0. */
  readonly length: number;
}

/** Which error a failing operation rejects with, and whether the fault is permanent. */
export interface FaultOptions {
  /** Default: COD_TARGET_IO. */
  readonly code?: CodErrorCode;
  /**
   * False: only the first matching operation fails. True: all of them fail until
   * `clearFaults`. Default: false.
   */
  readonly stays?: boolean;
}

/** How the process ends. `'process'`: the kernel survives. `'power'`: only what was synced certainly survives. */
export interface Crash {
  readonly kind: 'process' | 'power';
  /** Decides what the crash leaves. */
  readonly random: Random;
}
