/** Draws the map of a copy as one row of characters, for a device of any size. */

/** State of a cell. `dirty`: a block of the cell was written in part, and the rest of the block is not copied. */
export type Cell = 'unsynced' | 'partly' | 'dirty' | 'synced';

/** The map to draw. Block ranges are disjoint and half open. */
export interface MapExtents {
  readonly totalBlocks: number;
  readonly synced: Iterable<readonly [start: number, end: number]>;
  readonly dirtyBlocks: Iterable<number>;
}

const CHARACTERS: Readonly<Record<Cell, string>> = { unsynced: '░', partly: '▒', dirty: '▚', synced: '█' };
/** SGR codes: grey, cyan, yellow, green. */
const COLOURS: Readonly<Record<Cell, number>> = { unsynced: 90, partly: 36, dirty: 33, synced: 32 };
const NAMES: readonly (readonly [Cell, string])[] = [
  ['synced', 'copied'],
  ['partly', 'partly copied'],
  ['dirty', 'partly written, rest not copied'],
  ['unsynced', 'not copied'],
];

/**
 * Divides the blocks among at most `width` cells, each of at least one block. A cell with a dirty block is `dirty`. Any
 * other cell is `synced` if all of its blocks are, and `unsynced` if none is.
 */
export function mapCells({ totalBlocks, synced, dirtyBlocks }: MapExtents, width: number): Cell[] {
  const count = Math.max(1, Math.min(width, totalBlocks));
  const cellOf = (block: number) => Math.min(count - 1, Math.floor(((block + 1) * count - 1) / totalBlocks));
  const startOf = (cell: number) => Math.floor((cell * totalBlocks) / count);
  const covered = new Array<number>(count).fill(0);
  for (const [start, end] of synced) {
    for (let cell = cellOf(start); cell < count && startOf(cell) < end; cell++) {
      covered[cell]! += Math.min(end, startOf(cell + 1)) - Math.max(start, startOf(cell));
    }
  }
  const cells = covered.map((blocks, cell): Cell => {
    if (blocks === 0) return 'unsynced';
    return blocks === startOf(cell + 1) - startOf(cell) ? 'synced' : 'partly';
  });
  for (const block of dirtyBlocks) cells[cellOf(block)] = 'dirty';
  return cells;
}

/** Draws one character per cell. In colour, a run of equal cells takes one escape sequence. */
export function drawCells(cells: readonly Cell[], options: { colour: boolean }): string {
  let text = '';
  for (let start = 0, end = 0; start < cells.length; start = end) {
    const cell = cells[start]!;
    while (end < cells.length && cells[end] === cell) end++;
    text += paint(cell, CHARACTERS[cell].repeat(end - start), options);
  }
  return text;
}

/** Returns a legend of the characters. */
export function drawLegend(options: { colour: boolean }): string {
  return NAMES.map(([cell, name]) => `${paint(cell, CHARACTERS[cell], options)} ${name}`).join('   ');
}

function paint(cell: Cell, text: string, { colour }: { colour: boolean }): string {
  return colour ? `\x1b[${COLOURS[cell]}m${text}\x1b[0m` : text;
}
