/** How long the background copy gives way to readers. */

import { describe, expect, it } from 'vitest';
import { GivingWay } from '../../src/device/giving-way.ts';

function given(...answers: readonly [count: number, ms: number][]): number {
  const givingWay = new GivingWay();
  for (const [count, ms] of answers) for (let answer = 0; answer < count; answer++) givingWay.answeredAfter(ms);
  return givingWay.ms;
}

describe('the time that a piece of the copy gives way', () => {
  it('is 20 ms before the first answer', () => {
    expect(given()).toBe(20);
  });

  it('shrinks to nothing while readers are answered as quickly as ever', () => {
    expect(given([5, 20])).toBeCloseTo(20 * 0.8 ** 5);
    expect(given([20, 20])).toBe(0);
    expect(given([20, 20], [1, 24])).toBe(0);
  });

  it('grows to 20 ms again while answers are slow', () => {
    expect(given([20, 20], [1, 25])).toBe(1);
    expect(given([20, 20], [3, 25])).toBe(4);
    expect(given([20, 20], [9, 25])).toBe(20);
  });

  it('is not moved by two milliseconds more', () => {
    expect(given([20, 1], [9, 3])).toBe(0);
    expect(given([20, 1], [9, 3.5])).toBe(20);
  });

  it('shrinks again once the line has become slower', () => {
    expect(given([20, 20], [200, 60])).toBe(20);
    expect(given([20, 20], [600, 60])).toBe(0);
  });
});
