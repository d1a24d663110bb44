/**
 * What stands between the origin and machines: the cache of a rack, or the peers of a rack or of the fleet.
 *
 * A relay has the first bytes of the image, up to its edge. Machines behind the edge take from the relay. Machines at
 * the edge move it: the origin sends each byte once for all of them. A machine behind that reaches the edge joins them.
 */

import type { Group } from './group.ts';
import { assumed, cache } from './measured.ts';

export interface Relay {
  /** The machines at the edge. The progress of this group is the edge. */
  readonly edge: Group;
  /** The machines behind the edge: a group for each rack. */
  readonly behind: ReadonlyMap<number, Group>;
  /** The link of what it sends. */
  readonly link: number;
  /** When each slice that a read has fetched beyond the edge is complete. */
  readonly slices: Map<number, number>;
  isAway: boolean;
}

/** What a read from a relay depends on. */
export interface RelayRead {
  readonly position: number;
  readonly bytes: number;
  readonly now: number;
  readonly imageBytes: number;
  /** What the machine gets from the relay. */
  readonly rate: number;
  /** What the relay gets from the origin, or 0 while the origin is away. */
  readonly fillRate: number;
  readonly originSeconds: number;
  /** A random number below 1. */
  readonly chance: number;
}

/** Seconds of a read through a cache, or undefined if nothing can answer it now. */
export function cacheReadSeconds(relay: Relay, read: RelayRead): number | undefined {
  const { position, bytes, now, rate, fillRate } = read;
  const hit = assumed.rackSeconds + bytes / rate;
  const slice = Math.floor(position / cache.sliceBytes);
  if ((slice + 1) * cache.sliceBytes <= relay.edge.progress(now)) return hit;
  const completeAt = relay.slices.get(slice);
  if (completeAt !== undefined) {
    const polls = Math.ceil(Math.max(0, completeAt - now) / cache.lockPollSeconds);
    return polls * cache.lockPollSeconds + hit;
  }
  if (fillRate === 0) return undefined;
  relay.slices.set(slice, now + read.originSeconds + cache.sliceBytes / fillRate);
  // The cache passes bytes on as they come, from the start of the slice.
  const before = position - slice * cache.sliceBytes;
  return assumed.rackSeconds + read.originSeconds + (before + bytes) / Math.min(rate, fillRate);
}

/** The same through peers. Which pieces they have is random: they fetch the rarest first. */
export function peerReadSeconds(relay: Relay, read: RelayRead): number | undefined {
  const isThere = read.chance < relay.edge.progress(read.now) / read.imageBytes;
  if (isThere) return assumed.rackSeconds + assumed.pieceBytes / read.rate;
  if (read.fillRate === 0) return undefined;
  return read.originSeconds + assumed.pieceBytes / Math.min(read.rate, read.fillRate);
}
