/** What `status` counts. */

import { setImmediate as immediate } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import { CodError, type Device, type Source } from '../../src/index.ts';
import { CrashingFileSystem, SimulatedClock } from '../../src/testing/index.ts';

const BLOCK = 4096;
const SIZE = 10 * BLOCK;

/** A source that takes 20 ms for an answer, and may be away. */
function slowSource(clock: SimulatedClock): Source & { isAway: boolean } {
  const source = {
    size: SIZE,
    identity: 'v1',
    isAway: false,
    read: async (into: Uint8Array) => {
      await clock.sleep(20);
      if (source.isAway) throw new CodError('COD_SOURCE_IO', 'away');
      into.fill(1);
    },
    close: async () => undefined,
  };
  return source;
}

async function open(hydrate: boolean): Promise<{ clock: SimulatedClock; device: Device; source: { isAway: boolean } }> {
  const clock = new SimulatedClock({ settle: () => immediate() });
  const source = slowSource(clock);
  const device = await openDeviceIn(
    { clock, randomBytes: (into) => into.fill(7) },
    { source, fileSystem: new CrashingFileSystem(), target: 'disk', ...(hydrate ? {} : { hydrate }) },
  );
  onTestFinished(() => device.close());
  return { clock, device, source };
}

test('calls, their time, and what they take from the source', async () => {
  const { clock, device, source } = await open(false);
  await clock.run(device.read(new Uint8Array(2 * BLOCK), 0));
  await device.read(new Uint8Array(BLOCK), 0);
  await device.read(new Uint8Array(0), 0);
  await device.write(new Uint8Array(10), 5 * BLOCK);
  await device.flush();
  expect(device.status()).toMatchObject({
    sourceBytes: 2 * BLOCK,
    demand: { bytes: 2 * BLOCK, requests: 1 },
    background: { bytes: 0, requests: 0 },
    reads: { count: 2, totalMs: 20 },
    writes: { count: 1, totalMs: 0 },
    flushes: { count: 1, totalMs: 0 },
    errors: {},
  });
  source.isAway = true;
  for (let count = 0; count < 2; count++) {
    const reading = device.read(new Uint8Array(1), 9 * BLOCK);
    await expect(clock.run(reading)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
  }
  expect(device.status()).toMatchObject({ reads: { count: 4, totalMs: 60 }, errors: { COD_SOURCE_IO: 2 } });
});

test('the background copy, and its retries as errors', async () => {
  const { clock, device, source } = await open(true);
  source.isAway = true;
  await clock.advance(10_000);
  source.isAway = false;
  await clock.run(device.hydrated);
  const { background, demand, errors, retries } = device.status();
  expect(background.bytes).toBe(SIZE);
  expect(background.requests).toBe(retries + 1);
  expect(demand).toEqual({ bytes: 0, requests: 0 });
  expect(errors).toEqual({ COD_SOURCE_IO: retries });
  expect(retries).toBeGreaterThan(1);
});
