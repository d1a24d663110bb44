/** How the background copy uses its source: the decisions alone, on a simulated clock. */

import { describe, expect, it } from 'vitest';
import { Governor, type GovernorOptions } from '../../src/device/governor.ts';
import { SimulatedClock } from '../../src/testing/index.ts';

const MIB = 2 ** 20;
const WINDOW_MS = 500;

function governed(options: Partial<GovernorOptions> = {}): { clock: SimulatedClock; governor: Governor } {
  const clock = new SimulatedClock();
  return { clock, governor: new Governor(clock, { streams: true, ...options }) };
}

/** A running governor. `bytesPerMs` gives the copy's speed for a number of stretches. */
class Run {
  readonly clock = new SimulatedClock();
  readonly governor: Governor;
  readonly #bytesPerMs: (stretches: number) => number;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  asked = 0;

  constructor(bytesPerMs: (stretches: number) => number, options: Partial<GovernorOptions> = {}) {
    this.governor = new Governor(this.clock, { streams: true, ...options });
    // With this latency every window has its full length.
    this.governor.answeredAfter(WINDOW_MS);
    this.#bytesPerMs = bytesPerMs;
    this.#running = this.governor.run(this.#stop.signal, () => this.asked++);
  }

  /** Advances by `count` windows and returns the number of stretches after each. */
  async windows(count: number): Promise<number[]> {
    const counts: number[] = [];
    for (let window = 0; window < count; window++) {
      this.governor.count(this.#bytesPerMs(this.governor.stretchCount) * WINDOW_MS);
      await this.clock.advance(WINDOW_MS);
      counts.push(this.governor.stretchCount);
    }
    return counts;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}

describe('the number of stretches', () => {
  it.each([
    { streams: true, concurrency: undefined, first: 1 },
    { streams: false, concurrency: undefined, first: 2 },
    { streams: true, concurrency: 5, first: 5 },
    { streams: false, concurrency: 5, first: 5 },
  ])('is $first at first with streams: $streams, concurrency: $concurrency', ({ streams, concurrency, first }) => {
    const { governor } = governed({ streams, ...(concurrency && { concurrency }) });
    expect(governor.stretchCount).toBe(first);
  });

  it('doubles with each window, up to eight, while each doubling makes the copy faster', async () => {
    const run = new Run((stretches) => stretches * 1000);
    expect(await run.windows(6)).toEqual([2, 4, 8, 8, 8, 8]);
    expect(run.asked).toBe(3);
    await run.stop();
  });

  it('falls back after two windows that gain less than a tenth, and retries after 2, 4, 8, 16, 16 … s', async () => {
    const run = new Run((stretches) => 1000 + stretches);
    const counts = await run.windows(140);
    expect(counts.slice(0, 3)).toEqual([2, 2, 1]);
    const risesSeconds = counts.flatMap((count, index) => (count > (counts[index - 1] ?? 1) ? [index / 2] : []));
    // A trial takes a second.
    expect(risesSeconds).toEqual([0, 3, 8, 17, 34, 51, 68]);
    await run.stop();
  });

  it('keeps more stretches if the second of two windows is faster', async () => {
    const run: Run = new Run((stretches) => (run.clock.now() < 2 * WINDOW_MS ? 1000 : stretches * 1000));
    expect(await run.windows(4)).toEqual([2, 2, 4, 8]);
    await run.stop();
  });

  it.each([
    { latencyMs: 1, windowMs: 150 },
    { latencyMs: 50, windowMs: 300 },
    { latencyMs: 200, windowMs: 500 },
  ])('doubles after $windowMs ms with a latency of $latencyMs ms', async ({ latencyMs, windowMs }) => {
    const clock = new SimulatedClock();
    const governor = new Governor(clock, { streams: true });
    const stop = new AbortController();
    const risesMs: number[] = [];
    const running = governor.run(stop.signal, () => void risesMs.push(clock.now()));
    governor.answeredAfter(latencyMs);
    for (let ms = 0; ms < 4 * windowMs; ms++) {
      governor.count(governor.stretchCount * 1000);
      await clock.advance(1);
    }
    expect(risesMs).toEqual([windowMs, 2 * windowMs, 3 * windowMs]);
    stop.abort();
    await running;
  });

  it('stays while no bytes arrive', async () => {
    const run = new Run(() => 0);
    expect(await run.windows(3)).toEqual([1, 1, 1]);
    await run.stop();
  });

  it('rises until a rate limit is met', async () => {
    const run = new Run((stretches) => stretches * 1000, { rateBytesPerSecond: 3.5e6 });
    expect(await run.windows(6)).toEqual([2, 4, 4, 4, 4, 4]);
    await run.stop();
  });

  it('stays while the limit holds the copy back, since readers use the rest', async () => {
    const run = new Run(() => 1000, { rateBytesPerSecond: 3.5e6 });
    run.governor.limiter.spend(35e6);
    expect(await run.windows(6)).toEqual([1, 1, 1, 1, 1, 1]);
    await run.stop();
  });

  it('stays while a rate limit is met, and rises when the limit is removed', async () => {
    const run = new Run((stretches) => stretches * 1000, { rateBytesPerSecond: 1e6 });
    expect(await run.windows(3)).toEqual([1, 1, 1]);
    run.governor.limiter.set(undefined);
    expect(await run.windows(2)).toEqual([2, 4]);
    await run.stop();
  });

  it('stays at the configured number, and the speed is still measured', async () => {
    const run = new Run((stretches) => stretches * 1000, { concurrency: 3 });
    expect(await run.windows(4)).toEqual([3, 3, 3, 3]);
    expect(run.governor.bytesPerMs).toBe(3000);
    expect(run.asked).toBe(0);
    await run.stop();
  });

  it.each([
    { name: 'four by default', options: {}, count: 4 },
    { name: 'the given number', options: { concurrency: 2 }, count: 2 },
    { name: 'the normal number with a rate limit', options: { rateBytesPerSecond: 1e6 }, count: 1 },
  ])('for the order is $name', ({ options, count }) => {
    expect(governed(options).governor.orderedStretchCount).toBe(count);
  });
});

describe('the measured speed', () => {
  it('covers the time since the start in the first window, and the last window afterwards', async () => {
    const clock = new SimulatedClock();
    await clock.advance(10_000);
    const governor = new Governor(clock, { streams: true });
    governor.answeredAfter(WINDOW_MS);
    const stop = new AbortController();
    const running = governor.run(stop.signal, () => undefined);
    governor.count(5000);
    await clock.advance(100);
    expect(governor.bytesPerMs).toBe(50);
    await clock.advance(400);
    expect(governor.bytesPerMs).toBe(10);
    await clock.advance(499);
    expect(governor.bytesPerMs).toBe(10);
    await clock.advance(1);
    expect(governor.bytesPerMs).toBe(0);
    expect(governor.bytes).toBe(5000);
    stop.abort();
    await running;
  });

  it('ends immediately when the signal is aborted', async () => {
    const run = new Run(() => 1000);
    await run.windows(1);
    await run.stop();
    expect(run.clock.now()).toBe(WINDOW_MS);
  });
});

describe('the length of a stretch', () => {
  it('is 64 MiB for a stream without a measurement, and 8 MiB for a source without streams', async () => {
    expect(governed().governor.stretchBytes(0, Number.POSITIVE_INFINITY)).toBe(64 * MIB);
    const { clock, governor } = governed({ streams: false });
    governor.count(1e9);
    governor.answeredAfter(1000);
    await clock.advance(1000);
    expect(governor.stretchBytes(0, Number.POSITIVE_INFINITY)).toBe(8 * MIB);
  });

  it.each([
    { latencyMs: 0, inFlight: 1, bytes: 8 * MIB },
    { latencyMs: 1, inFlight: 1, bytes: 8 * MIB },
    { latencyMs: 20, inFlight: 1, bytes: 20 * 10_000 * 64 },
    { latencyMs: 40, inFlight: 2, bytes: 40 * 5000 * 64 },
    { latencyMs: 1000, inFlight: 1, bytes: 256 * MIB },
  ])(
    'is what one of $inFlight streams transfers in 64 × $latencyMs ms, clamped to 8 to 256 MiB',
    async ({ latencyMs, inFlight, bytes }) => {
      const { clock, governor } = governed();
      governor.answeredAfter(latencyMs);
      governor.count(10_000_000);
      await clock.advance(1000);
      expect(governor.stretchBytes(inFlight, Number.POSITIVE_INFINITY)).toBe(bytes);
    },
  );

  it('is at most 16 s of the rate limit', () => {
    expect(governed({ rateBytesPerSecond: MIB }).governor.stretchBytes(0, Number.POSITIVE_INFINITY)).toBe(16 * MIB);
    expect(governed({ rateBytesPerSecond: 100 * MIB }).governor.stretchBytes(0, Number.POSITIVE_INFINITY)).toBe(
      64 * MIB,
    );
  });

  it('is the configured length, also with a rate limit', () => {
    expect(
      governed({ extentBytes: 12_345, rateBytesPerSecond: 1 }).governor.stretchBytes(0, Number.POSITIVE_INFINITY),
    ).toBe(12_345);
  });

  it('is half of a share of the rest at the end, at least 4 MiB, unless there is one stretch', () => {
    const { governor } = governed({ concurrency: 4 });
    expect([400 * MIB, 80 * MIB, 8 * MIB, 0].map((rest) => governor.stretchBytes(3, rest) / MIB)).toEqual([
      50, 10, 4, 4,
    ]);
    expect(governed().governor.stretchBytes(0, 8 * MIB)).toBe(64 * MIB);
    expect(governed({ concurrency: 4, extentBytes: 12_345 }).governor.stretchBytes(0, 8 * MIB)).toBe(12_345);
  });

  it('includes synced runs below 256 KiB, and runs that transfer faster than a request is answered', async () => {
    const { clock, governor } = governed();
    expect(governor.skipBytes(0)).toBe(2 ** 18);
    governor.count(100_000_000);
    await clock.advance(1000);
    expect(governor.skipBytes(1)).toBe(2 ** 18);
    governor.answeredAfter(100);
    expect(governor.skipBytes(1)).toBe(10_000_000);
    expect(governor.skipBytes(4)).toBe(2_500_000);
  });
});

describe('the reach of a stretch', () => {
  it('is what one stream transfers during a request, and zero before the first measurement', async () => {
    const { clock, governor } = governed();
    governor.count(1_000_000);
    await clock.advance(1000);
    expect(governor.reachBytes(1)).toBe(0);
    governor.answeredAfter(50);
    expect(governor.reachBytes(1)).toBe(50_000);
    expect(governor.reachBytes(2)).toBe(25_000);
  });

  it('follows the latency by a quarter of each difference', async () => {
    const { clock, governor } = governed();
    governor.count(1_000_000);
    await clock.advance(1000);
    governor.answeredAfter(100);
    governor.answeredAfter(20);
    expect(governor.reachBytes(1)).toBe(80_000);
  });

  it('is bounded by the rate limit, and zero while the limit delays the copy longer than a request takes', async () => {
    const { clock, governor } = governed({ rateBytesPerSecond: 100_000 });
    governor.count(200_000);
    governor.answeredAfter(50);
    expect(governor.isHeldBack).toBe(true);
    expect(governor.reachBytes(1)).toBe(0);
    await clock.advance(1900);
    expect(governor.isHeldBack).toBe(false);
    expect(governor.reachBytes(1)).toBe(5000);
  });

  it('is zero for a source without streams', async () => {
    const { clock, governor } = governed({ streams: false });
    governor.count(1_000_000);
    governor.answeredAfter(50);
    await clock.advance(1000);
    expect(governor.reachBytes(1)).toBe(0);
  });
});

describe('a stretch', () => {
  it('is ended when the rate limit delays it by more than 16 s', async () => {
    const { clock, governor } = governed({ rateBytesPerSecond: 1000 });
    governor.count(16_200);
    expect(governor.isHeldUp).toBe(true);
    await clock.advance(100);
    expect(governor.isHeldUp).toBe(false);
  });

  it('is never ended if its length is configured', () => {
    const { governor } = governed({ rateBytesPerSecond: 1000, extentBytes: 4096 });
    governor.count(1e9);
    expect(governor.isHeldUp).toBe(false);
    expect(governor.isHeldBack).toBe(true);
  });

  it.each([
    { preferred: undefined, rate: undefined, bytes: undefined },
    { preferred: 2 * MIB, rate: undefined, bytes: 2 * MIB },
    { preferred: 2 * MIB, rate: 20 * MIB, bytes: 2 * MIB },
    { preferred: 2 * MIB, rate: 20 * MIB - 1, bytes: undefined },
  ])(
    'requests pieces of $bytes for a target that prefers $preferred at a rate of $rate',
    ({ preferred, rate, bytes }) => {
      const { governor } = governed(rate === undefined ? {} : { rateBytesPerSecond: rate });
      expect(governor.pieceBytes(preferred)).toBe(bytes);
    },
  );
});
