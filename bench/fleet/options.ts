/** The fleet that is simulated, and what is found. */

/**
 * How the machines get the image:
 * - `origin`: each machine copies from the origin.
 * - `rack-cache`: each rack has a cache, which fetches each slice once.
 * - `rack-peers`: the machines of a rack give each other what one of them has fetched.
 * - `peers`: all machines do so, without regard to racks.
 */
export const WAYS = ['origin', 'rack-cache', 'rack-peers', 'peers'] as const;
export type Way = (typeof WAYS)[number];

/** Rates are in bytes per second. */
export interface FleetOptions {
  readonly way: Way;
  readonly machines: number;
  readonly racks: number;
  readonly seed: number;
  readonly imageBytes: number;
  /** Machines start at random within this time. */
  readonly stormSeconds: number;
  readonly originRate: number;
  readonly originSeconds: number;
  /** Limit of the origin for one connection. */
  readonly connectionRate: number;
  /** From the origin to each rack. */
  readonly uplinkRate: number;
  readonly cacheRate: number;
  readonly machineRate: number;
  /** What each peer sends to others. */
  readonly uploadRate: number;
  readonly bootReads: number;
  readonly bootBytes: number;
  readonly guestSeconds: number;
  /** The background copy begins with what the boot reads (`--order`). */
  readonly isOrdered: boolean;
  /** The origin answers nothing in this time. */
  readonly originAway?: readonly [from: number, to: number];
  /** The cache of the first rack is away. Without `to` it never comes back, and its machines copy from the origin. */
  readonly cacheAway?: readonly [from: number, to?: number];
  /** The part of the machines that crash once, at random within the storm and a minute after it. */
  readonly crashes: number;
  readonly downSeconds: number;
  /** What a crash takes of a copy that is not complete, at most. */
  readonly lostBytes: number;
}

export interface FleetResult {
  /** Of each machine, from its start: sorted. */
  readonly bootSeconds: readonly number[];
  readonly completeSeconds: readonly number[];
  /** Until all machines are complete. */
  readonly endSeconds: number;
  readonly originBytes: number;
  /** What caches or peers have sent. */
  readonly relayBytes: number;
  readonly peakOriginRate: number;
  /** Mean rates of the origin in equal parts of the time. */
  readonly originRates: { readonly bucketSeconds: number; readonly rates: readonly number[] };
  /** The highest load of any link, as a part of its capacity. */
  readonly peakLoad: number;
  readonly receivedBytes: readonly number[];
  readonly lostBytes: readonly number[];
}

export function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}
