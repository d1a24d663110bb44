/** The map as squares: how many there are, what each stands for, and what it shows. No drawing. */

/** What is seen of a device, in blocks: [start, end). */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** How the squares lie. */
export interface Grid {
  readonly columns: number;
  readonly rows: number;
  /** Squares in use; the last row may not be full. */
  readonly cells: number;
  /** From one square to the next, in CSS pixels. */
  readonly pitch: number;
  readonly height: number;
}

const MAX_CELLS = 1800;
const MAX_PITCH = 26;

/** As many squares as are readable in so much room, but no more than blocks. */
export function gridFor({ width, height }: { width: number; height: number }, blocks: number): Grid {
  const wanted = Math.max(1, Math.min(MAX_CELLS, blocks));
  let pitch = Math.max(9, Math.min(MAX_PITCH, Math.floor(Math.sqrt((width * height) / wanted))));
  const fits = (size: number): boolean => Math.floor(width / size) * Math.floor(height / size) >= wanted;
  while (pitch > 9 && !fits(pitch)) pitch--;
  const columns = Math.max(1, Math.min(wanted, Math.floor(width / pitch)));
  const rows = Math.max(1, Math.min(Math.ceil(wanted / columns), Math.floor(height / pitch)));
  return { columns, rows, cells: Math.min(wanted, columns * rows), pitch, height: rows * pitch };
}

/** The blocks of a square, as the device shares them out. */
export function blocksOfCell({ start, end }: Span, cells: number, cell: number): Span {
  const edge = (index: number): number => start + Math.floor(((end - start) * index) / cells);
  return { start: edge(cell), end: edge(cell + 1) };
}

/** The square that has a block; the nearest for one outside. */
export function cellOfBlock(span: Span, cells: number, block: number): number {
  const blocks = span.end - span.start;
  let cell = Math.max(0, Math.min(cells - 1, Math.floor(((block - span.start) * cells) / blocks)));
  while (cell + 1 < cells && blocksOfCell(span, cells, cell).end <= block) cell++;
  while (cell > 0 && blocksOfCell(span, cells, cell).start > block) cell--;
  return cell;
}

/** `span` made `factor` times as long about `block`, within the device; never shorter than 16 blocks. */
export function zoomed(span: Span, total: number, block: number, factor: number): Span {
  const length = span.end - span.start;
  const wanted = Math.min(total, Math.max(16, Math.round(length * factor)));
  const share = (block - span.start) / length;
  const start = Math.max(0, Math.min(total - wanted, Math.round(block - wanted * share)));
  return { start, end: start + wanted };
}

/** `span` moved by so many blocks, within the device. */
export function moved(span: Span, total: number, by: number): Span {
  const length = span.end - span.start;
  const start = Math.max(0, Math.min(total - length, Math.round(span.start + by)));
  return { start, end: start + length };
}

export type CellState = 'unsynced' | 'partly' | 'synced' | 'dirty' | 'fetching';

/** What a square shows. `fetching`: somebody waits for it, or a part of it has come just now. */
export function cellState(cell: { blocks: number; synced: number; dirty: number; arriving: boolean }): CellState {
  if (cell.arriving) return 'fetching';
  if (cell.dirty > 0) return 'dirty';
  if (cell.synced >= cell.blocks) return 'synced';
  return cell.synced > 0 ? 'partly' : 'unsynced';
}

export const STATE_NAMES: Readonly<Record<CellState, string>> = {
  unsynced: 'not here yet',
  partly: 'partly here',
  fetching: 'arriving',
  dirty: 'written here',
  synced: 'here',
};
