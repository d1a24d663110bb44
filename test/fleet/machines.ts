/** Machines of a rack, as processes: some copy an image, others boot from it while it is copied. */

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { percentile } from '../../bench/fleet/options.ts';
import { nbdSource } from '../../src/nbd.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { startServe } from '../support/programs.ts';

/** The boot of a machine: reads at random, and what the guest does between them. */
export const BOOT = { reads: 60, readBytes: 131_072, guestSeconds: 6 } as const;

export interface FleetRun {
  readonly url: string;
  readonly image: Uint8Array;
  readonly machines: number;
  readonly seed: number;
  readonly stormSeconds: number;
  /** Limit of each machine, for `--rate`. */
  readonly rate: string;
}

/** Seconds from the start of a machine, sorted. */
export interface FleetTimes {
  readonly bootSeconds: readonly number[];
  readonly completeSeconds: readonly number[];
  readonly endSeconds: number;
}

/** Every third machine boots. The others only copy. */
const isBooting = (machine: number): boolean => machine % 3 === 0;

/** Starts all machines within the storm, waits until each is complete, and compares each target with the image. */
export async function runFleet(run: FleetRun): Promise<FleetTimes> {
  const folder = temporaryDirectory();
  const random = seededRandom(run.seed);
  const beganMs = performance.now();
  const bootSeconds: number[] = [];
  const completeSeconds: number[] = [];
  const seconds = (sinceMs: number): number => (performance.now() - sinceMs) / 1000;
  await Promise.all(
    Array.from({ length: run.machines }, async (_, machine) => {
      const own = random.fork();
      await sleep(own.below(1000) * run.stormSeconds);
      const startedMs = performance.now();
      const target = join(folder, `${machine}.raw`);
      if (isBooting(machine)) {
        const booted = await serveAndBoot(run, target, own.below(2 ** 32));
        bootSeconds.push(booted.bootSeconds);
        completeSeconds.push(booted.completeSeconds);
      } else {
        const result = await runCommand(['copy', run.url, target, '--quiet', '--rate', run.rate]);
        expect(result.exitCode, result.stderr).toBe(0);
        completeSeconds.push(seconds(startedMs));
      }
    }),
  );
  const endSeconds = seconds(beganMs);
  for (let machine = 0; machine < run.machines; machine++) {
    const target = join(folder, `${machine}.raw`);
    expect(readFileSync(target).equals(run.image), `the target of machine ${machine}`).toBe(true);
    rmSync(target);
  }
  const sorted = (values: number[]): number[] => values.sort((one, other) => one - other);
  return { bootSeconds: sorted(bootSeconds), completeSeconds: sorted(completeSeconds), endSeconds };
}

async function serveAndBoot(
  { url, image, rate, seed }: FleetRun,
  target: string,
  socketName: number,
): Promise<{ bootSeconds: number; completeSeconds: number }> {
  const startedMs = performance.now();
  const served = await startServe(url, target, '--rate', rate, '--socket', `${target}.${socketName}`);
  const complete = served.warns(`${target}: complete`).then(() => (performance.now() - startedMs) / 1000);
  const disk = await nbdSource(served.uri);
  // All machines read the same places.
  const places = seededRandom(seed);
  const into = new Uint8Array(BOOT.readBytes);
  for (let read = 0; read < BOOT.reads; read++) {
    const offset = places.below(image.length / BOOT.readBytes) * BOOT.readBytes;
    await disk.read(into, offset);
    expect(Buffer.compare(into, image.subarray(offset, offset + into.length))).toBe(0);
    await sleep((BOOT.guestSeconds / BOOT.reads) * 1000);
  }
  const bootSeconds = (performance.now() - startedMs) / 1000;
  await disk.close();
  const completeSeconds = await complete;
  expect(await served.stop()).toMatchObject({ exitCode: 0 });
  expect(await runCommand(['finish', target])).toMatchObject({ exitCode: 0 });
  return { bootSeconds, completeSeconds };
}

/** What a run has found, or its simulation. */
export interface FleetFigures extends FleetTimes {
  /** What the origin has sent, in images. */
  readonly sent: number;
}

/** Prints the figures of a run beside those of its simulation. */
export function report(name: string, real: FleetFigures, simulated: FleetFigures): void {
  const times = (seconds: readonly number[]): string =>
    `p50 ${percentile(seconds, 0.5).toFixed(1)} s, p99 ${percentile(seconds, 0.99).toFixed(1)} s`;
  const line = ({ bootSeconds, completeSeconds, endSeconds, sent }: FleetFigures): string =>
    `boot ${times(bootSeconds)}; complete ${times(completeSeconds)}; all ${endSeconds.toFixed(1)} s; ` +
    `origin sent ${sent.toFixed(2)} images`;
  console.log(`${name}\n  here:      ${line(real)}\n  simulated: ${line(simulated)}`);
}
