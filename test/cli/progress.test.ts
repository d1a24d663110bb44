import { expect, test } from 'vitest';
import { describeProgress, Speedometer } from '../../src/cli/progress.ts';

test('the speed is that of the last five seconds', () => {
  let now = 0;
  const speedometer = new Speedometer(() => now);
  const at = (ms: number, bytes: number): number => {
    now = ms;
    return speedometer.update(bytes);
  };
  expect(at(0, 100)).toBe(0);
  expect(at(1000, 1100)).toBe(1000);
  expect(at(4000, 4100)).toBe(1000);
  for (let second = 5; second <= 20; second++) at(second * 1000, 4100);
  expect(at(21_000, 4100)).toBe(0);
});

test('progress shows bytes, share, speed and remaining time', () => {
  expect(describeProgress({ bytes: 2 ** 20, total: 2 ** 22, speed: 2 ** 20 })).toBe(
    '1 MiB of 4 MiB, 25.0 %, 1 MiB/s, 0:03 left',
  );
  expect(describeProgress({ bytes: 0, total: 2 ** 22, speed: 0 })).toBe('0 bytes of 4 MiB, 0.0 %, 0 bytes/s');
});
