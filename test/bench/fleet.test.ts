/** The simulation of a fleet (bench/fleet) against what must hold for any fleet. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Heap } from '../../bench/fleet/heap.ts';
import { type Sharer, shareLinks } from '../../bench/fleet/links.ts';
import { assumed, cache, measured } from '../../bench/fleet/measured.ts';
import { type FleetOptions, type FleetResult, WAYS } from '../../bench/fleet/options.ts';
import { simulate } from '../../bench/fleet/simulation.ts';

const IMAGE = 2 ** 30;
/** No image of these tests is wrong by more than this, in parts of it: sums of fractions are rounded. */
const NEAR = 1e-6;

const fleet = (options: Partial<FleetOptions> = {}): FleetResult =>
  simulate({
    ...{ way: 'origin', machines: 30, racks: 3, seed: 1, imageBytes: IMAGE, stormSeconds: 10 },
    ...{ originRate: 1e9, originSeconds: 0.02, connectionRate: Number.POSITIVE_INFINITY },
    ...{ uplinkRate: 5e8, cacheRate: 2e9, machineRate: 5e8, uploadRate: 1e8 },
    ...{ bootReads: 40, bootBytes: 8e6, guestSeconds: 5, isOrdered: false },
    ...{ crashes: 0, downSeconds: 5, lostBytes: 0 },
    ...options,
  });

const images = (bytes: number): number => bytes / IMAGE;

const anyFleet = fc.record({
  way: fc.constantFrom(...WAYS),
  machines: fc.integer({ min: 1, max: 60 }),
  racks: fc.integer({ min: 1, max: 5 }),
  seed: fc.integer(),
  stormSeconds: fc.constantFrom(0, 1, 30),
  originRate: fc.constantFrom(1e8, 1e9, 1e10),
  uplinkRate: fc.constantFrom(5e7, 5e8, 1e10),
  cacheRate: fc.constantFrom(1e8, 2e9),
  machineRate: fc.constantFrom(1e8, 5e8, 2e9),
  uploadRate: fc.constantFrom(2e7, 5e8),
  isOrdered: fc.boolean(),
  crashes: fc.constantFrom(0, 0.5, 1),
});

/** Faults that all pass. */
const anyFaults = fc.record(
  {
    originAway: fc.constantFrom([2, 9] as const, [0, 70] as const),
    cacheAway: fc.constantFrom([3, 20] as const, [3] as const),
    lostBytes: fc.constantFrom(0, IMAGE / 4),
  },
  { requiredKeys: [] },
);

test('every machine gets the image once, and again only what a crash took', () => {
  fc.assert(
    fc.property(anyFleet, anyFaults, (options, faults) => {
      const { receivedBytes, lostBytes, completeSeconds, bootSeconds } = fleet({ ...options, ...faults });
      receivedBytes.forEach((bytes, machine) => {
        expect(Math.abs(images(bytes - lostBytes[machine]!) - 1)).toBeLessThan(NEAR);
      });
      for (const seconds of [...completeSeconds, ...bootSeconds])
        expect(seconds).toBeLessThan(Number.POSITIVE_INFINITY);
      if (faults.lostBytes === undefined || faults.lostBytes === 0) expect(Math.max(...lostBytes)).toBe(0);
    }),
    { numRuns: 50 },
  );
});

test('what machines receive is what the origin and relays send', () => {
  fc.assert(
    fc.property(anyFleet, anyFaults, (options, faults) => {
      const { receivedBytes, originBytes, relayBytes } = fleet({ ...options, ...faults });
      const received = receivedBytes.reduce((sum, bytes) => sum + bytes, 0);
      if (options.way === 'rack-cache') {
        // What the cache fetches it sends to machines; after its end the origin sends to them itself.
        expect(images(relayBytes)).toBeLessThan(images(received) + NEAR);
        if (faults.cacheAway === undefined) expect(Math.abs(relayBytes / received - 1)).toBeLessThan(NEAR);
      } else expect(Math.abs((originBytes + relayBytes) / received - 1)).toBeLessThan(NEAR);
    }),
    { numRuns: 50 },
  );
});

test('no link carries more than its capacity', () => {
  fc.assert(
    fc.property(anyFleet, anyFaults, (options, faults) => {
      const { peakLoad, peakOriginRate } = fleet({ ...options, ...faults });
      expect(peakLoad).toBeLessThan(1 + NEAR);
      expect(peakOriginRate).toBeLessThan(options.originRate * (1 + NEAR));
    }),
    { numRuns: 50 },
  );
});

test('the same seed gives the same result, and another seed another one', () => {
  for (const way of WAYS) {
    const options = { way, crashes: 0.5, originAway: [3, 8] } as const;
    expect(fleet(options)).toEqual(fleet(options));
    expect(fleet({ ...options, seed: 2 }).completeSeconds).not.toEqual(fleet(options).completeSeconds);
  }
});

test('one machine alone takes the size over the rate', () => {
  const one = { machines: 1, racks: 1, stormSeconds: 0 };
  const seconds = (options: Partial<FleetOptions>): number => fleet({ ...one, ...options }).completeSeconds[0]!;
  const at = (rate: number): number => measured.startSeconds + IMAGE / rate;
  expect(seconds({})).toBeCloseTo(at(5e8), 6);
  expect(seconds({ originRate: 1e8 })).toBeCloseTo(at(1e8), 6);
  expect(seconds({ uplinkRate: 2e8 })).toBeCloseTo(at(2e8), 6);
  expect(seconds({ connectionRate: 1e7 })).toBeCloseTo(at(measured.streams * 1e7), 6);
  const fast = { machineRate: 1e11, originRate: 1e11, uplinkRate: 1e11 };
  expect(seconds(fast)).toBeCloseTo(at(measured.copyRate), 6);
  // Each stream waits for the origin at each slice of the cache.
  const slices = (measured.streams * cache.sliceBytes) / 0.1;
  expect(seconds({ way: 'rack-cache', originSeconds: 0.1 })).toBeCloseTo(at(slices), 6);
});

test('a boot alone takes its reads and the time of the guest', () => {
  const slow = { machines: 1, racks: 1, stormSeconds: 0, originRate: 1e6, imageBytes: 2 ** 40 };
  const [seconds] = fleet(slow).bootSeconds;
  const read = 0.02 + measured.coldReadSeconds + (8e6 / 40 / 1e6) * (measured.streams + 1);
  expect(seconds).toBeCloseTo(measured.startSeconds + 40 * read + 5, 0);
});

test('the origin sends the image once for each machine, rack or swarm', () => {
  const sent = (options: Partial<FleetOptions>): number => images(fleet(options).originBytes);
  expect(sent({})).toBeCloseTo(30, 6);
  expect(sent({ way: 'rack-cache' })).toBeCloseTo(3, 6);
  expect(sent({ way: 'rack-cache', crashes: 1 })).toBeCloseTo(3, 6);
  expect(sent({ way: 'rack-cache', originAway: [2, 30] })).toBeCloseTo(3, 6);
  expect(sent({ way: 'rack-cache', cacheAway: [2, 30] })).toBeCloseTo(3, 6);
  expect(sent({ way: 'rack-peers' })).toBeCloseTo(3, 6);
  expect(sent({ way: 'peers' })).toBeCloseTo(1, 6);
  // The machines of the rack whose cache is gone copy the rest from the origin.
  const without = sent({ way: 'rack-cache', cacheAway: [2] });
  expect(without).toBeGreaterThan(3.5);
  expect(without).toBeLessThan(12);
});

test('peers that start together are as fast as the origin, their links and what they send allow', () => {
  fc.assert(
    fc.property(anyFleet, (options) => {
      const { machines, originRate, uploadRate, uplinkRate, racks } = options;
      const { endSeconds } = fleet({ ...options, way: 'peers', stormSeconds: 0, crashes: 0 });
      const own = Math.min(options.machineRate, measured.copyRate);
      // Kumar and Ross 2006: no distribution is faster than the origin, a link, or all senders together.
      const bound = Math.min(originRate, own, (originRate + machines * uploadRate) / machines);
      expect(endSeconds * (1 + NEAR)).toBeGreaterThan(IMAGE / bound);
      if (racks > 1) return;
      const sent = machines === 1 ? own : (machines * uploadRate * assumed.peerEfficiency) / (machines - 1);
      expect(endSeconds).toBeCloseTo(measured.startSeconds + IMAGE / Math.min(originRate, own, uplinkRate, sent), 3);
    }),
    { numRuns: 50 },
  );
});

test('reads that the background copy fetches first make a boot faster', () => {
  const crowded = { machines: 60, racks: 1, originRate: 2e8, bootReads: 200 };
  const [plain] = fleet(crowded).bootSeconds.slice(-1);
  const [ordered] = fleet({ ...crowded, isOrdered: true }).bootSeconds.slice(-1);
  expect(ordered).toBeLessThan(plain! * 0.9);
});

test('a fair share is the largest that the fullest link allows', () => {
  const sharer = (cap: number, ...loads: (readonly [link: number, weight: number])[]): Sharer => ({
    cap,
    loads: loads.map(([link, weight]) => ({ link, weight })),
    rate: 0,
  });
  const rates = (capacities: number[], ...sharers: Sharer[]): number[] => {
    shareLinks(capacities, sharers);
    return sharers.map(({ rate }) => rate);
  };
  expect(rates([10], sharer(100, [0, 1]), sharer(100, [0, 4]))).toEqual([2, 2]);
  expect(rates([10], sharer(1, [0, 1]), sharer(100, [0, 1]))).toEqual([1, 9]);
  expect(rates([10, 3], sharer(100, [0, 1], [1, 1]), sharer(100, [0, 1]))).toEqual([3, 7]);
  expect(rates([0, 5], sharer(100, [0, 1]), sharer(100, [1, 1]))).toEqual([0, 5]);
  expect(rates([9, 2, 100], sharer(100, [0, 1], [1, 1]), sharer(100, [0, 1], [2, 5]), sharer(3, [0, 1]))).toEqual([
    2, 4, 3,
  ]);
});

test('a heap gives its elements in order, and equal ones as they came', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 9 })), (keys) => {
      const heap = new Heap<number>();
      for (const [index, key] of keys.entries()) heap.push(key, index);
      const order = keys.map((_, index) => index).sort((one, other) => keys[one]! - keys[other]! || one - other);
      expect(keys.map(() => heap.pop())).toEqual(order);
      expect(heap.pop()).toBeUndefined();
    }),
  );
});
