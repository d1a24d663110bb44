/**
 * A rack of machines for real: radosgw is the origin, nginx the cache of the rack, and each machine is a process of the
 * built command. A slow link stands between the origin and the rack. `npm run test:fleet` prints the times beside
 * those of the simulation (bench/fleet).
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import type { Way } from '../../bench/fleet/options.ts';
import { simulate } from '../../bench/fleet/simulation.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { type JsonEvent, runCommand, runUntil, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { CEPH_TOOLS, Ceph } from '../support/ceph.ts';
import { type RackCache, startRackCache } from '../support/rack-cache.ts';
import { SlowLink } from '../support/slow-link.ts';
import { describeWith } from '../support/tools.ts';
import { BOOT, type FleetFigures, type FleetTimes, report, runFleet } from './machines.ts';

const MiB = 2 ** 20;
const MACHINES = Number(process.env['COD_FLEET_MACHINES'] ?? 30);
const IMAGE = seededRandom(22).fill(Buffer.alloc(64 * MiB));
const PATH = '/images/disk.raw';
/** What the origin sends at most through a cache, in images: a slice that is asked for twice is no fault. */
const MOST_SENT = 1.1;
const LINK = { bytesPerSecond: 24e6, delayMs: 20 };
const STORM_SECONDS = 30;
/** Of one machine. Two processors carry thirty of them. */
const RATE = 2 * MiB;
const SEED = 1;

describeWith(['nginx', ...CEPH_TOOLS], 'a rack of machines', () => {
  let ceph: Ceph;

  beforeAll(async () => {
    ceph = await Ceph.start({ accessKeyId: 'AKTEST', secretAccessKey: 'SKTEST' });
    await ceph.put('/images', new Uint8Array());
    await ceph.put(PATH, IMAGE, 'public-read');
  });

  afterAll(() => ceph.stop());

  /** Starts a cache behind the link. */
  async function startCache(link: SlowLink): Promise<RackCache> {
    const cache = await startRackCache(join(temporaryDirectory(), 'nginx'), link.origin);
    onTestFinished(() => cache.kill());
    return cache;
  }

  async function startLink(): Promise<SlowLink> {
    const link = await SlowLink.start(ceph.origin, LINK);
    onTestFinished(() => link[Symbol.asyncDispose]());
    return link;
  }

  const run = (origin: string): Promise<FleetTimes> =>
    runFleet({
      ...{ url: origin + PATH, image: IMAGE, machines: MACHINES, seed: SEED },
      ...{ stormSeconds: STORM_SECONDS, rate: `${RATE / MiB}M` },
    });

  function simulated(way: Way): FleetFigures {
    const none = Number.POSITIVE_INFINITY;
    const found = simulate({
      ...{ way, machines: MACHINES, racks: 1, seed: SEED, imageBytes: IMAGE.length, stormSeconds: STORM_SECONDS },
      ...{ originRate: LINK.bytesPerSecond, originSeconds: LINK.delayMs / 1000, connectionRate: none },
      ...{ uplinkRate: none, cacheRate: none, machineRate: RATE, uploadRate: 0 },
      ...{ bootReads: BOOT.reads, bootBytes: BOOT.reads * BOOT.readBytes, guestSeconds: BOOT.guestSeconds },
      ...{ isOrdered: false, crashes: 0, downSeconds: 0, lostBytes: 0 },
    });
    return { ...found, sent: found.originBytes / IMAGE.length };
  }

  /** What a link has carried, in images. */
  const sentOver = (link: SlowLink): number => link.carriedBytes / IMAGE.length;

  test(`${MACHINES} machines behind a cache take the image from the origin once`, async () => {
    const link = await startLink();
    const cache = await startCache(link);
    const before = await ceph.sentBytes();
    const times = await run(cache.url);
    const sent = sentOver(link);
    report(`${MACHINES} machines behind a cache`, { ...times, sent }, simulated('rack-cache'));
    expect(sent).toBeGreaterThan(1);
    expect(sent).toBeLessThan(MOST_SENT);
    expect((await ceph.sentBytes()) - before).toBeLessThan(IMAGE.length * MOST_SENT);
  });

  test(`${MACHINES} machines without a cache take it ${MACHINES} times`, async () => {
    const link = await startLink();
    const times = await run(link.origin);
    const sent = sentOver(link);
    report(`${MACHINES} machines without a cache`, { ...times, sent }, simulated('origin'));
    expect(sent).toBeGreaterThan(MACHINES);
    expect(sent).toBeLessThan(MACHINES * MOST_SENT);
  });

  test('copies survive a cache that is killed, and its disk still has what it had', async () => {
    const link = await startLink();
    const cache = await startCache(link);
    const folder = temporaryDirectory();
    let restarting: Promise<void> | undefined;
    const onLine = (line: string): void => {
      const { event, bytes } = JSON.parse(line) as JsonEvent & { bytes?: number };
      if (event === 'progress' && bytes! >= IMAGE.length / 2) restarting ??= cache.restart();
    };
    const copies = Array.from({ length: 6 }, async (_, copy) => {
      const target = join(folder, `${copy}.raw`);
      const args = ['copy', cache.url + PATH, target, '--json', '--rate', '8M'];
      const result = await startCommand(args, { onLine }).result;
      expect(result.exitCode, result.stderr).toBe(0);
      return target;
    });
    for (const target of await Promise.all(copies)) expectBytes(readFileSync(target), IMAGE);
    expect(restarting).toBeDefined();
    await restarting;
    expect(sentOver(link)).toBeLessThan(MOST_SENT);
  });

  test('a machine that is killed does not fetch again what it has', async () => {
    const link = await startLink();
    const target = join(temporaryDirectory(), 'disk.raw');
    const args = ['copy', link.origin + PATH, target, '--rate', '8M'];
    for (const part of [0.25, 0.5, 0.75]) {
      const killed = await runUntil(args, 'SIGKILL', ({ event, bytes }) => {
        return event === 'progress' && (bytes as number) >= part * IMAGE.length;
      });
      expect(killed.signal, killed.stderr).toBe('SIGKILL');
    }
    const { exitCode, stderr } = await runCommand([...args, '--quiet']);
    expect(exitCode, stderr).toBe(0);
    expectBytes(readFileSync(target), IMAGE);
    // Copies from the start would be 2.5 images. What a limited copy has left in its sockets comes again: 1.54 here.
    expect(sentOver(link)).toBeLessThan(1.9);
  });
});
