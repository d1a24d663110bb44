/** What a device counts since it was opened. */

/** Calls of one kind, without those of 0 bytes. */
export interface CallCount {
  /** Calls, also those that failed. */
  readonly count: number;
  /** How long they took together, in milliseconds. A call that completes synchronously counts as 0 ms. */
  readonly totalMs: number;
}

/** Use of the source. */
export interface TransferCount {
  /** Bytes that came. */
  readonly bytes: number;
  /** Requests that were begun. The source may repeat or divide them. */
  readonly requests: number;
}

export class Counters {
  readonly reads = { count: 0, totalMs: 0 };
  readonly writes = { count: 0, totalMs: 0 };
  readonly flushes = { count: 0, totalMs: 0 };
  readonly demand = { bytes: 0, requests: 0 };
  readonly errors: Record<string, number> = {};

  /** Counts an error that a caller gets, or that an event `retry` reports. */
  failed(code: string): void {
    this.errors[code] = (this.errors[code] ?? 0) + 1;
  }
}
