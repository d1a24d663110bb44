/** The charts of bench/lib/plot.mjs. */

import { expect, test } from 'vitest';

interface Chart {
  readonly title: string;
  readonly description: string;
  readonly x: { readonly label: string; readonly isLog?: boolean };
  readonly y: { readonly label: string; readonly isLog?: boolean };
  readonly series: readonly { readonly name: string; readonly points: readonly (readonly [number, number])[] }[];
}
const path = new URL('../../bench/lib/plot.mjs', import.meta.url).href;
const { lineChart } = (await import(path)) as { lineChart: (chart: Chart) => string };

const chart = (more: Partial<Chart> = {}): string =>
  lineChart({
    ...{ title: 'T', description: 'D', x: { label: 'machines', isLog: true }, y: { label: 'seconds', isLog: true } },
    series: [
      {
        name: 'one',
        points: [
          [10, 1],
          [100, 10],
          [1000, 100],
        ],
      },
    ],
    ...more,
  });

/** The places of the points of a series. */
function placesOf(svg: string, series: number): number[][] {
  const [, path = ''] = new RegExp(`class="line s${series}" d="M([^"]+)"`).exec(svg) ?? [];
  return path.split('L').map((place) => place.split(' ').map(Number));
}

test('a logarithmic axis gives each decade the same length', () => {
  const [first, second, third] = placesOf(chart(), 0);
  expect(second![0]! - first![0]!).toBeCloseTo(third![0]! - second![0]!, 1);
  expect(first![1]! - second![1]!).toBeCloseTo(second![1]! - third![1]!, 1);
  expect(first![1]!).toBeGreaterThan(third![1]!);
});

test('a linear axis begins at zero and has round ticks', () => {
  const svg = chart({
    x: { label: 's' },
    y: { label: 'MB' },
    series: [
      {
        name: 'one',
        points: [
          [0, 0],
          [7, 1500],
        ],
      },
    ],
  });
  const [first, second] = placesOf(svg, 0);
  expect(first![1]! - second![1]!).toBeGreaterThan(200);
  for (const tick of ['0', '500', '1,000', '1,500']) expect(svg).toContain(`>${tick}</text>`);
});

test('text is escaped, and each series has its own colour, marker and dashes', () => {
  const points = [
    [1, 1],
    [2, 2],
  ] as const;
  const svg = chart({
    title: 'a < b & "c"',
    series: [
      { name: '<x>', points },
      { name: 'y', points },
    ],
  });
  expect(svg).toContain('a &lt; b &amp; &quot;c&quot;');
  expect(svg).toContain('>&lt;x&gt;</text>');
  const styles = svg.split('\n').filter((line) => line.includes('.line.s1'));
  expect(styles.some((line) => line.includes('stroke-dasharray'))).toBe(true);
  expect(svg).toContain('prefers-color-scheme:dark');
  expect(svg).not.toMatch(/NaN|undefined/);
});

test('more series than colours are refused', () => {
  const series = Array.from({ length: 6 }, () => ({ name: 'x', points: [[1, 1]] as const }));
  expect(() => chart({ series })).toThrow('at most 5');
});
