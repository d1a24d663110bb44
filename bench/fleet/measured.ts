/**
 * What the simulation of a fleet takes from measurements. Each constant names the bench that it comes from, and
 * docs/BENCHMARKS.md has the tables. What was not measured is under {@link assumed}.
 */

export const measured = {
  /** bench/boot.mjs, `serve --no-hydrate`: requests of a small Linux until its disk is mounted. */
  bootReads: 60,
  /** bench/boot.mjs, the same row: bytes of these requests. */
  bootBytes: 8.2e6,
  /** bench/boot.mjs: 14 s until the disk is mounted, less 60 requests of 21.4 ms. The guest is emulated. */
  guestSeconds: 12.7,
  /** bench/nbd.mjs, cold reads: from the start of the command to its first byte. */
  startSeconds: 0.19,
  /** bench/nbd.mjs, cold reads of 4 KiB: what a read takes beyond the latency of the server. */
  coldReadSeconds: 0.0014,
  /** bench/many-disks.mjs: a read of 4 KiB of a complete disk. */
  localReadSeconds: 0.000_046,
  /** bench/copy.mjs, nginx on loopback: what one machine copies at most, in bytes per second. */
  copyRate: 846e6,
  /** src/device/governor.ts: streams of one copy, at most. */
  streams: 8,
  /** src/device/retries.ts: the longest wait between two attempts of the background copy. */
  retrySeconds: 30,
  /** docs/DESIGN.md: a power cut takes what was copied since the last sync, at most this. */
  unsyncedBytes: 268_435_456,
} as const;

/** The recipe of docs/SCALING.md, and what nginx does with it. test/fleet runs it. */
export const cache = {
  /** `slice 1m`: the unit that the cache fetches and keeps. */
  sliceBytes: 1_048_576,
  /** A request that waits for `proxy_cache_lock` looks again after this time (nginx 1.22, `ngx_http_file_cache.c`). */
  lockPollSeconds: 0.5,
} as const;

/** Not measured by this project. Options of run.mjs replace most of them. */
export const assumed = {
  /** Round trip within a rack. */
  rackSeconds: 0.0003,
  /** The part of their upload rate that peers use for each other. */
  peerEfficiency: 0.9,
  /** A read that waits for a peer waits for a whole piece: only pieces have digests. */
  pieceBytes: 4_194_304,
} as const;
