/** What the times of answers to readers say. */

import { describe, expect, it } from 'vitest';
import { AnswerTimes } from '../../src/device/answer-times.ts';

const KIB = 1024;
const BLOCK = 4 * KIB;

/** How many, how long they took, what they brought, and whether that was more than what was read. */
type Answers = readonly [count: number, ms: number, bytes?: number, isLonger?: boolean];

function told(...answers: readonly Answers[]): AnswerTimes {
  const times = new AnswerTimes();
  for (const [count, ms, bytes = BLOCK, isLonger = false] of answers)
    for (let answer = 0; answer < count; answer++) times.answeredAfter(ms, bytes, isLonger);
  return times;
}

function given(...answers: readonly [count: number, ms: number][]): number {
  return told(...answers).giveWayMs;
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

describe('the length of a request', () => {
  const kib = (...answers: readonly Answers[]): number => told(...answers).fetchBytes / KIB;
  const grown: readonly Answers[] = [
    [3, 20],
    [1, 20, 8 * KIB, true],
    [1, 20, 16 * KIB, true],
  ];

  it('is a block until three answers were quick', () => {
    expect(kib()).toBe(0);
    expect(kib([2, 20])).toBe(4);
    expect(kib([3, 20])).toBe(8);
  });

  it('is nothing for a source that is near', () => {
    expect(kib([9, 2])).toBe(0);
    expect(kib([9, 2.1])).toBe(8);
  });

  it('doubles up to 256 KiB while longer answers are quick', () => {
    expect(kib(...grown)).toBe(32);
    expect(kib(...grown, [9, 24, 256 * KIB, true])).toBe(256);
  });

  it('does not grow with shorter answers, which come where little is missing', () => {
    expect(kib(...grown, [9, 20], [9, 20, 28 * KIB, true])).toBe(32);
  });

  it('halves with slow answers', () => {
    expect(kib(...grown, [1, 24.1, 32 * KIB, true])).toBe(16);
    expect(kib(...grown, [9, 25])).toBe(1);
  });

  it('is compared with short answers, however many longer ones were slower', () => {
    expect(kib(...grown, [999, 23, 4 * KIB, true], [1, 24.1, 32 * KIB, true])).toBe(16);
  });

  it('starts again after a failure', () => {
    const times = told(...grown);
    times.failed();
    expect(times.fetchBytes / KIB).toBe(1);
  });
});
