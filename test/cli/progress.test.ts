import { describe, expect, test } from 'vitest';
import { describeProgress, progressFor, Speedometer } from '../../src/cli/progress.ts';

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

describe('elsewhere than on a terminal', () => {
  const KIB = 1024;

  /** Copies 1 KiB each second for `seconds`, and returns the printed lines with the second of each. */
  async function linesOf(seconds: number): Promise<{ ticks: [second: number, line: string][]; end: string[] }> {
    let now = 7_000;
    let printed: string[] = [];
    const stream = { isTTY: false, write: (text: string) => printed.push(text) > 0 };
    const progress = progressFor(stream, { quiet: false, now: () => now });
    await progress.begin({ label: 'copying', total: 100 * KIB, initial: 0 });
    const ticks: [number, string][] = [];
    for (let second = 1; second <= seconds; second++) {
      now += 1000;
      progress.update(second * KIB);
      for (const line of printed) ticks.push([second, line]);
      printed = [];
    }
    progress.end();
    progress.end();
    return { ticks, end: printed };
  }

  test('there is a line after 5 s, then one each 30 s, and the last state', async () => {
    expect(await linesOf(70)).toEqual({
      ticks: [
        [5, 'copying: 5 KiB of 100 KiB, 5.0 %, 1 KiB/s, 1:35 left\n'],
        [35, 'copying: 35 KiB of 100 KiB, 35.0 %, 1 KiB/s, 1:05 left\n'],
        [65, 'copying: 65 KiB of 100 KiB, 65.0 %, 1 KiB/s, 0:35 left\n'],
      ],
      end: ['copying: 70 KiB of 100 KiB, 70.0 %, 1 KiB/s, 0:30 left\n'],
    });
  });

  test('a short phase prints nothing, and a state is printed once', async () => {
    expect(await linesOf(4)).toEqual({ ticks: [], end: [] });
    expect((await linesOf(35)).end).toEqual([]);
  });
});
