import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { blocksOfCell, cellOfBlock, cellState, gridFor, moved, zoomed } from '../../src/web/map-cells.ts';

const BLOCKS = fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.constantFrom(256, 2 ** 18, 2 ** 32));

describe('the squares of the map', () => {
  test('fit into their room, from one block to 16 TiB, on a phone and on a screen', () => {
    fc.assert(
      fc.property(BLOCKS, fc.integer({ min: 20, max: 2500 }), (blocks, width) => {
        const { columns, rows, cells, pitch, height } = gridFor({ width, height: 250 }, blocks);
        expect(columns * pitch).toBeLessThanOrEqual(width);
        expect(height).toBeLessThanOrEqual(250);
        expect(cells).toBeLessThanOrEqual(Math.min(blocks, columns * rows));
        expect(cells).toBeGreaterThan(columns * (rows - 1));
      }),
    );
    expect(gridFor({ width: 1200, height: 250 }, 256).cells).toBe(256);
    expect(gridFor({ width: 1200, height: 250 }, 2 ** 32).cells).toBe(1800);
  });

  test('divide the blocks without gaps, and each block is found again', () => {
    fc.assert(
      fc.property(BLOCKS, fc.nat(2 ** 20), fc.integer({ min: 1, max: 1800 }), fc.nat(), (length, start, wanted, at) => {
        const span = { start, end: start + length };
        const cells = Math.min(wanted, length);
        const cell = cellOfBlock(span, cells, start + (at % length));
        const blocks = blocksOfCell(span, cells, cell);
        expect(blocks.start).toBeLessThanOrEqual(start + (at % length));
        expect(blocks.end).toBeGreaterThan(start + (at % length));
        expect(blocksOfCell(span, cells, 0).start).toBe(span.start);
        expect(blocksOfCell(span, cells, cells - 1).end).toBe(span.end);
      }),
    );
  });

  test('zoom around a block that stays visible, and stay within the disk', () => {
    fc.assert(
      fc.property(
        BLOCKS,
        fc.nat(),
        fc.array(fc.constantFrom(0.5, 2, 0.8, 1.25), { maxLength: 40 }),
        fc.double({ min: -1e9, max: 1e9, noNaN: true }),
        (total, at, factors, by) => {
          const block = at % total;
          let span = { start: 0, end: total };
          for (const factor of factors) {
            span = zoomed(span, total, block, factor);
            expect(span.start).toBeLessThanOrEqual(block);
            expect(span.end).toBeGreaterThanOrEqual(block);
          }
          const after = moved(span, total, by);
          expect(after.end - after.start).toBe(span.end - span.start);
          expect(after.start).toBeGreaterThanOrEqual(0);
          expect(after.end).toBeLessThanOrEqual(total);
        },
      ),
    );
  });

  test('show the most important state of their blocks', () => {
    const cell = { blocks: 4, synced: 0, dirty: 0, arriving: false };
    expect(cellState(cell)).toBe('unsynced');
    expect(cellState({ ...cell, synced: 3 })).toBe('partly');
    expect(cellState({ ...cell, synced: 4 })).toBe('synced');
    expect(cellState({ ...cell, synced: 2, dirty: 1 })).toBe('dirty');
    expect(cellState({ ...cell, synced: 2, dirty: 1, arriving: true })).toBe('fetching');
  });
});
