import { expect, test } from 'vitest';
import { bytesSource, grownSource } from '../../src/index.ts';
import { bytesBeforeGrowth } from '../../src/sources/grown.ts';
import type { InlineSource, Source } from '../../src/sources/source.ts';

const BYTES = Uint8Array.from({ length: 5000 }, (_, i) => (i % 255) + 1);
const SIZE = 100_000;

function grown(identity?: string): Source {
  return grownSource(bytesSource(BYTES, identity === undefined ? {} : { identity }), SIZE);
}

function expected(offset: number, length: number): Uint8Array {
  const all = new Uint8Array(SIZE);
  all.set(BYTES);
  return all.slice(offset, offset + length);
}

test.each([
  [0, 100],
  [4000, 1000],
  [4000, 1001],
  [5000, 1],
  [4999, 90_000],
  [SIZE - 1, 1],
  [SIZE, 0],
])('bytes %i, length %i: those of the source, then zeros', async (offset, length) => {
  const source = grown() as InlineSource;
  const into = new Uint8Array(length).fill(0xff);
  await source.read(into, offset);
  expect(into).toEqual(expected(offset, length));
  const pieces: number[] = [];
  for await (const piece of source.stream!(offset, length)) pieces.push(...piece);
  expect(Uint8Array.from(pieces)).toEqual(expected(offset, length));
  const extents = await source.extents!(offset, length);
  expect(extents.reduce((sum, extent) => sum + extent.length, 0)).toBe(length);
  expect(extents.filter(({ zero }) => zero).reduce((sum, extent) => sum + extent.length, 0)).toBe(
    Math.min(length, Math.max(0, offset + length - BYTES.length)),
  );
});

test('its identity names the size of the source, so one that was cut short is another', () => {
  expect(grown('a').identity).toBe('grown:5000:a');
  expect(grown().identity).toBe('grown:5000:');
  expect([bytesBeforeGrowth(grown('a').identity), bytesBeforeGrowth('a'), bytesBeforeGrowth(undefined)]).toEqual([
    5000,
    undefined,
    undefined,
  ]);
});

test.each([4999, 1.5, Number.NaN, -1])('a size of %d is refused', (size) => {
  expect(() => grownSource(bytesSource(BYTES), size)).toThrow(RangeError);
});

test('a range behind its end is refused, and closing it closes the source', async () => {
  const inner = bytesSource(BYTES);
  const source = grownSource(inner, SIZE);
  await expect(source.read(new Uint8Array(2), SIZE - 1)).rejects.toThrow(RangeError);
  await source.close();
  await expect(inner.read(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_CLOSED' });
});
