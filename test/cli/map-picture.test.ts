import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { drawCells, drawLegend, mapCells } from '../../src/cli/map-picture.ts';

const plain = { colour: false };

function draw(totalBlocks: number, synced: [number, number][], dirtyBlocks: number[], width: number): string {
  return drawCells(mapCells({ totalBlocks, synced, dirtyBlocks }, width), plain);
}

describe('the picture of a map', () => {
  test('has one cell per block if there is room', () => {
    expect(draw(6, [[0, 2]], [3], 80)).toBe('██░▚░░');
    expect(draw(1, [], [], 80)).toBe('░');
  });

  test('distinguishes copied, partly copied and missing cells', () => {
    expect(
      draw(
        100,
        [
          [0, 25],
          [50, 51],
        ],
        [99],
        10,
      ),
    ).toBe('██▒░░▒░░░▚');
  });

  test('shows a single block of 16 TiB', () => {
    const totalBlocks = 2 ** 32;
    expect(draw(totalBlocks, [[totalBlocks - 1, totalBlocks]], [0], 16)).toBe('▚░░░░░░░░░░░░░░▒');
    expect(draw(totalBlocks, [[0, totalBlocks]], [], 16)).toBe('█'.repeat(16));
    expect(draw(totalBlocks, [[0, totalBlocks - 1]], [], 4)).toBe('███▒');
  });

  test('equals a count of each block', () => {
    fc.assert(
      fc.property(
        fc.array(fc.boolean(), { minLength: 1, maxLength: 70 }),
        fc.integer({ min: 1, max: 90 }),
        (blocks, width) => {
          const synced = blocks.flatMap((is, block): [number, number][] => (is ? [[block, block + 1]] : []));
          const cells = mapCells({ totalBlocks: blocks.length, synced, dirtyBlocks: [] }, width);
          let covered = 0;
          for (const [index, cell] of cells.entries()) {
            const start = Math.floor((index * blocks.length) / cells.length);
            const part = blocks.slice(start, Math.floor(((index + 1) * blocks.length) / cells.length));
            covered += part.length;
            expect(cell).toBe(part.every(Boolean) ? 'synced' : part.some(Boolean) ? 'partly' : 'unsynced');
          }
          expect(covered).toBe(blocks.length);
        },
      ),
    );
  });

  test('has escape sequences only with colour, and one per run of cells', () => {
    const cells = mapCells({ totalBlocks: 6, synced: [[0, 3]], dirtyBlocks: [] }, 6);
    expect(drawCells(cells, { colour: true })).toBe('\x1b[32m███\x1b[0m\x1b[90m░░░\x1b[0m');
    expect(drawLegend(plain)).not.toContain('\x1b');
    for (const character of '█▒▚░') expect(drawLegend(plain)).toContain(character);
  });
});
