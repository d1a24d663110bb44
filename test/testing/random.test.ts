import { expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';

test('a seed repeats its numbers, and adjacent seeds give other numbers', () => {
  const draw = (seed: number): number[] => {
    const random = seededRandom(seed);
    return Array.from({ length: 20 }, () => random.below(2 ** 32));
  };
  expect(draw(1)).toEqual(draw(1));
  expect(new Set([draw(0), draw(1), draw(2), draw(-1)].flat()).size).toBe(80);
});

test('numbers are spread evenly below their limit', () => {
  const random = seededRandom(3);
  const counts = new Array<number>(10).fill(0);
  for (let draw = 0; draw < 10_000; draw++) counts[random.below(10)]!++;
  for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(150);
});

test('a fork gives independent numbers', () => {
  const random = seededRandom(4);
  const [first, second] = [random.fork(), random.fork()];
  expect(first.below(2 ** 32)).not.toBe(second.below(2 ** 32));
});

test('shuffling keeps every item', () => {
  const items = Array.from({ length: 100 }, (_, index) => index);
  const shuffled = seededRandom(5).shuffle([...items]);
  expect(shuffled).not.toEqual(items);
  expect(shuffled.sort((a, b) => a - b)).toEqual(items);
});
