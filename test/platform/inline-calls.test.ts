import { describe, expect, it } from 'vitest';
import { InlineCalls } from '../../src/platform/inline-calls.ts';

const SHORT = 4096;

/** Calls on a simulated clock. */
class Calls {
  now = 0;
  turns = 0;
  readonly inline = new InlineCalls({
    now: () => this.now,
    turn: async () => {
      this.turns++;
    },
  });

  /** Makes a call if it may be synchronous, and paces like a caller. Returns whether the call was made. */
  call(tookMs: number): boolean {
    if (!this.inline.allow(SHORT)) return false;
    const start = this.inline.start();
    this.now += tookMs;
    this.inline.ended(start);
    void this.inline.pace();
    return true;
  }

  /** Returns the number of calls that use the pool before the next synchronous call. */
  untilInline(tookMs: number): number {
    for (let count = 0; ; count++) if (this.call(tookMs)) return count;
  }
}

describe('synchronous calls', () => {
  it('are short calls', () => {
    const { inline } = new Calls();
    expect([0, 4096, 131_072, 131_073, 2 ** 30].map((bytes) => inline.allow(bytes))).toEqual([
      true,
      true,
      true,
      false,
      false,
    ]);
  });

  it('stop for a while after a slow call, and for longer after each further slow call', () => {
    const calls = new Calls();
    expect(calls.call(0.1)).toBe(true);
    expect(calls.call(5)).toBe(true);
    expect(calls.untilInline(5)).toBe(16);
    expect(calls.untilInline(5)).toBe(32);
    let last = 0;
    for (let round = 0; round < 20; round++) last = calls.untilInline(5);
    expect(last).toBe(4096);
  });

  it('are not counted by asking whether they would be allowed', () => {
    const calls = new Calls();
    expect(calls.inline.allows(131_073)).toBe(false);
    expect(calls.inline.allows(SHORT)).toBe(true);
    calls.call(5);
    for (let count = 0; count < 100; count++) expect(calls.inline.allows(SHORT)).toBe(false);
    expect(calls.untilInline(0.1)).toBe(16);
    expect(calls.inline.allows(SHORT)).toBe(true);
  });

  it('are allowed again after a run of quick calls', () => {
    const calls = new Calls();
    for (let round = 0; round < 5; round++) calls.untilInline(5);
    calls.untilInline(0.01);
    for (let count = 0; count < 1000; count++) expect(calls.call(0.01)).toBe(true);
    calls.call(5);
    expect(calls.untilInline(0.01)).toBe(16);
  });

  it('yield to the event loop after 0.1 ms in total, for single calls of any duration', () => {
    const calls = new Calls();
    for (let count = 0; count < 1000; count++) calls.call(0.002);
    expect(calls.turns).toBeGreaterThanOrEqual(19);
    expect(calls.turns).toBeLessThanOrEqual(21);
    const before = calls.turns;
    calls.call(0.9);
    expect(calls.turns).toBe(before + 1);
  });

  it('need no turn of the event loop while they are short, and each turn resets the total', async () => {
    const calls = new Calls();
    const take = (tookMs: number): void => {
      const start = calls.inline.start();
      calls.now += tookMs;
      calls.inline.ended(start);
    };
    expect(calls.inline.pace()).toBeUndefined();
    take(0.06);
    expect(calls.inline.pace()).toBeUndefined();
    take(0.06);
    const turned = calls.inline.pace();
    expect(turned).toBeInstanceOf(Promise);
    await turned;
    expect(calls.turns).toBe(1);
    expect(calls.inline.pace()).toBeUndefined();
    take(0.06);
    expect(calls.inline.pace()).toBeUndefined();
    expect(calls.turns).toBe(1);
  });

  it('that are slow move the next calls to the pool, also if the caller never paces', () => {
    const calls = new Calls();
    expect(calls.inline.allow(SHORT)).toBe(true);
    const start = calls.inline.start();
    calls.now += 5;
    calls.inline.ended(start);
    expect(calls.turns).toBe(0);
    expect(calls.inline.allow(SHORT)).toBe(false);
    for (let count = 0; count < 15; count++) expect(calls.inline.allow(SHORT)).toBe(false);
    expect(calls.inline.allow(SHORT)).toBe(true);
  });
});
