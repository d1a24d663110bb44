import { describe, expect, it } from 'vitest';
import { RateLimiter } from '../../src/device/rate-limiter.ts';
import { SimulatedClock } from '../../src/testing/index.ts';

const forever = new AbortController().signal;

/** The bytes that a consumer takes in `ms` when only the limiter delays it. */
async function takenIn(clock: SimulatedClock, limiter: RateLimiter, ms: number, pieceBytes: number): Promise<number> {
  const stop = new AbortController();
  let taken = 0;
  const consume = async (): Promise<void> => {
    for (;;) {
      await limiter.wait(stop.signal);
      taken += pieceBytes;
      limiter.spend(pieceBytes);
    }
  };
  const consuming = consume().catch(() => undefined);
  await clock.advance(ms);
  stop.abort(new Error('enough'));
  await clock.run(consuming);
  return taken;
}

function settled(promise: Promise<unknown>): () => boolean {
  let done = false;
  promise.then(
    () => (done = true),
    () => (done = true),
  );
  return () => done;
}

describe('a rate limiter', () => {
  it.each([1000, 1_000_000, 250_000_000])('admits %i bytes per second after its burst', async (rate) => {
    const clock = new SimulatedClock();
    const limiter = new RateLimiter(clock, rate);
    const taken = await takenIn(clock, limiter, 10_000, rate / 100);
    expect(taken / (10 * rate)).toBeGreaterThan(0.99);
    expect(taken / (10 * rate)).toBeLessThan(1.03);
  });

  it('keeps the average rate with pieces of more than a second’s bytes', async () => {
    const clock = new SimulatedClock();
    const taken = await takenIn(clock, new RateLimiter(clock, 1000), 100_000, 5000);
    expect(taken).toBeGreaterThanOrEqual(100_000);
    expect(taken).toBeLessThanOrEqual(105_000);
  });

  it('saves a burst of at most a tenth of a second, however long it was idle', async () => {
    const clock = new SimulatedClock();
    const limiter = new RateLimiter(clock, 1000);
    await clock.advance(3_600_000);
    expect(await takenIn(clock, limiter, 1000, 10)).toBeLessThanOrEqual(1110);
  });

  it('counts bytes that others spend', async () => {
    const clock = new SimulatedClock();
    const limiter = new RateLimiter(clock, 1000);
    limiter.spend(5000);
    const done = settled(limiter.wait(forever));
    await clock.advance(4890);
    expect(done()).toBe(false);
    await clock.advance(20);
    expect(done()).toBe(true);
  });

  it('does not wait without a rate, and does not count bytes spent then', async () => {
    const clock = new SimulatedClock();
    const limiter = new RateLimiter(clock, undefined);
    limiter.spend(1e12);
    await limiter.wait(forever);
    limiter.set(1000);
    await limiter.wait(forever);
    expect(limiter.rate).toBe(1000);
  });

  it.each([
    { to: undefined, name: 'lifted' },
    { to: 1e9, name: 'raised' },
  ])('releases waiting consumers immediately when the limit is $name', async ({ to }) => {
    const clock = new SimulatedClock();
    const limiter = new RateLimiter(clock, 1);
    limiter.spend(1_000_000);
    const waiting = [limiter.wait(forever), limiter.wait(forever)].map(settled);
    await clock.advance(1000);
    expect(waiting.map((done) => done())).toEqual([false, false]);
    limiter.set(to);
    await clock.advance(0);
    expect(waiting.map((done) => done())).toEqual([true, true]);
  });

  it('applies a lower rate from the moment it is set', async () => {
    const clock = new SimulatedClock();
    const limiter = new RateLimiter(clock, 1_000_000);
    await takenIn(clock, limiter, 1000, 1000);
    limiter.set(1000);
    expect(await takenIn(clock, limiter, 10_000, 10)).toBeLessThanOrEqual(10_110);
  });

  it('rejects immediately with the signal’s reason, and leaves neither timer nor listener', async () => {
    const clock = new SimulatedClock();
    const limiter = new RateLimiter(clock, 1);
    limiter.spend(1_000_000);
    const stop = new AbortController();
    const waiting = limiter.wait(stop.signal);
    const done = settled(waiting);
    await clock.advance(1);
    stop.abort(new Error('stop'));
    await expect(waiting).rejects.toThrow('stop');
    expect(done()).toBe(true);
    await expect(limiter.wait(AbortSignal.abort(new Error('stopped before')))).rejects.toThrow('stopped before');
    expect(clock.now()).toBe(1);
  });
});
