/** The links of a fleet, and the groups of machines that share them. */

import { Group } from './group.ts';
import type { Load } from './links.ts';
import { cache, measured } from './measured.ts';
import type { FleetOptions } from './options.ts';
import type { Relay } from './relay.ts';

/** The link from the origin. */
export const ORIGIN = 0;

/** The link into a rack. */
function uplink(rack: number): number {
  return 1 + rack;
}

export interface Topology {
  /** Bytes per second of each link: the origin, the uplinks of racks, the relays. */
  readonly capacities: number[];
  /** By rack: the machines that copy from the origin itself. */
  readonly direct: readonly Group[];
  readonly relays: readonly Relay[];
  /** By rack. */
  readonly relayOf: readonly (Relay | undefined)[];
}

export function makeTopology(options: FleetOptions): Topology {
  const { way, cacheRate, machineRate, connectionRate } = options;
  const racks = Array.from({ length: options.racks }, (_, rack) => rack);
  const capacities = [options.originRate, ...racks.map(() => options.uplinkRate)];
  const cap = Math.min(machineRate, measured.copyRate);
  const direct = racks.map((rack) => {
    const loads = (count: number): Load[] => [ORIGIN, uplink(rack)].map((link) => ({ link, weight: count }));
    return new Group(Math.min(cap, measured.streams * connectionRate), loads);
  });
  if (way === 'origin') return { capacities, direct, relays: [], relayOf: racks.map(() => undefined) };
  const add = (own: readonly number[]): Relay => {
    // Peers add to this link when they start.
    const link = capacities.push(way === 'rack-cache' ? cacheRate : 0) - 1;
    return makeRelay(options, own, link, cap);
  };
  if (way === 'peers') {
    const all = add(racks);
    return { capacities, direct, relays: [all], relayOf: racks.map(() => all) };
  }
  const relays = racks.map((rack) => add([rack]));
  return { capacities, direct, relays, relayOf: relays };
}

/** @param cap the most that one machine takes, in bytes per second */
function makeRelay(options: FleetOptions, racks: readonly number[], link: number, cap: number): Relay {
  const isCache = options.way === 'rack-cache';
  // Peers ask any peer, so this part of the bytes comes from other racks.
  const across = 1 - 1 / racks.length;
  const behind = racks.map((rack): [number, Group] => {
    const loads = (count: number): Load[] => [
      { link, weight: count },
      { link: uplink(rack), weight: count * across },
    ];
    return [rack, new Group(cap, loads)];
  });
  // A stream through a cache waits for the origin at each slice.
  const streamRate = Math.min(cache.sliceBytes / options.originSeconds, options.connectionRate);
  const edge = new Group(isCache ? Math.min(cap, measured.streams * streamRate) : cap, (count) => [
    { link: ORIGIN, weight: 1 },
    // What the origin sends to one peer, no other peer has to send to it.
    { link, weight: isCache ? count : count - 1 },
    // Those at the edge are taken to be spread evenly over the racks.
    ...racks.map((rack) => ({ link: uplink(rack), weight: across === 0 ? 1 : (count / racks.length) * across })),
  ]);
  return { edge, behind: new Map(behind), link, slices: new Map(), isAway: false };
}
