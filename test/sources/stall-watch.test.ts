import { expect, test } from 'vitest';
import type { PassingError } from '../../src/sources/retry.ts';
import { StallWatch } from '../../src/sources/stall-watch.ts';
import { SimulatedClock } from '../../src/testing/index.ts';

const LIMITS = { stallTimeoutMs: 15_000, minBytesPerSecond: 1024 };

function start(limits = LIMITS) {
  const clock = new SimulatedClock();
  const ended = new AbortController();
  const expired: PassingError[] = [];
  const expire = (why: PassingError) => {
    expired.push(why);
    ended.abort();
  };
  return { clock, expired, watch: new StallWatch({ clock, limits, signal: ended.signal, expire }) };
}

/** Lets `bytes` come every `everyMs` for `seconds`, while more are always due. */
async function drip({ clock, watch }: ReturnType<typeof start>, bytes: number, everyMs: number, seconds: number) {
  watch.begin();
  for (let ms = 0; ms < seconds * 1000; ms += everyMs) {
    await clock.advance(everyMs);
    watch.received(bytes);
  }
}

test('a request without a byte for 15 s is stalled', async () => {
  const run = start();
  run.watch.begin();
  await run.clock.advance(14_999);
  expect(run.expired).toEqual([]);
  await run.clock.advance(1);
  expect(run.expired).toMatchObject([{ message: 'the server sent nothing for 15000 ms', options: {} }]);
});

test('a request that drips is stalled after three silences at the latest', async () => {
  const run = start();
  await drip(run, 1, 1000, 46);
  expect(run.expired).toMatchObject([
    { message: expect.stringMatching(/sent only \d+ bytes in \d+ ms/), options: { isSlow: true } },
  ]);
});

test('a request that begins to drip after a fast beginning is stalled', async () => {
  const run = start();
  await drip(run, 1e6, 1000, 3600);
  expect(run.expired).toEqual([]);
  await drip(run, 1, 1000, 80);
  expect(run.expired).toHaveLength(1);
});

test.each([
  ['1 KiB each second', 1024, 1000],
  ['14 KiB each 14 s', 14 * 1024, 14_000],
])('a slow and honest link is not: %s', async (_, bytes, everyMs) => {
  const run = start();
  await drip(run, bytes, everyMs, 3600);
  expect(run.expired).toEqual([]);
});

test('time in which nothing is due does not count', async () => {
  const run = start();
  for (let second = 0; second < 3600; second++) {
    await drip(run, 100, 10, 0.01);
    run.watch.end();
    await run.clock.advance(990);
  }
  expect(run.expired).toEqual([]);
});

test('a rate of 0 allows any drip', async () => {
  const run = start({ ...LIMITS, minBytesPerSecond: 0 });
  await drip(run, 1, 14_000, 3600);
  expect(run.expired).toEqual([]);
});

test('a shorter silence shortens the window', async () => {
  const run = start({ ...LIMITS, stallTimeoutMs: 3000 });
  await drip(run, 1, 1000, 10);
  expect(run.expired).toHaveLength(1);
});
