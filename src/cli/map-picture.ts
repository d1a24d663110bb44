/** The map of a copy as one row of characters, however large the device. */

/** What a cell of the picture stands for; `dirty` where a user's write waits for the rest of its block. */
export type Cell = 'unsynced' | 'partly' | 'dirty' | 'synced';

/** What is drawn: block ranges disjoint and half open. */
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
  ['partly', 'partly'],
  ['dirty', 'written here, the rest not copied'],
  ['unsynced', 'not copied'],
];

/** Shares the blocks out among `width` cells, fewer if there are fewer blocks. A cell is `synced` only if all of it is, `unsynced` only if none. */
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

/** One character a cell; in colour, with one escape sequence a run. */
export function drawCells(cells: readonly Cell[], options: { colour: boolean }): string {
  let text = '';
  for (let start = 0, end = 0; start < cells.length; start = end) {
    const cell = cells[start]!;
    while (end < cells.length && cells[end] === cell) end++;
    text += paint(cell, CHARACTERS[cell].repeat(end - start), options);
  }
  return text;
}

/** What the characters mean. */
export function drawLegend(options: { colour: boolean }): string {
  return NAMES.map(([cell, name]) => `${paint(cell, CHARACTERS[cell], options)} ${name}`).join('   ');
}

function paint(cell: Cell, text: string, { colour }: { colour: boolean }): string {
  return colour ? `\x1b[${COLOURS[cell]}m${text}\x1b[0m` : text;
}
