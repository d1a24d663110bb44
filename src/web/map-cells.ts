/**
 * The layout of the map: the number of squares, the blocks of each square, and the state that a square shows. This
 * module draws nothing.
 */

/** The visible part of the device, in blocks: [start, end). */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** The arrangement of the squares. */
export interface Grid {
  readonly columns: number;
  readonly rows: number;
  /** Number of squares. The last row may be incomplete. */
  readonly cells: number;
  /** Distance from one square to the next, in CSS pixels. */
  readonly pitch: number;
  readonly height: number;
}

const MAX_CELLS = 1800;
const MAX_PITCH = 26;

/** Returns as many squares as fit readably into `width` × `height`, and at most one per block. */
export function gridFor({ width, height }: { width: number; height: number }, blocks: number): Grid {
  const wanted = Math.max(1, Math.min(MAX_CELLS, blocks));
  let pitch = Math.max(9, Math.min(MAX_PITCH, Math.floor(Math.sqrt((width * height) / wanted))));
  const fits = (size: number): boolean => Math.floor(width / size) * Math.floor(height / size) >= wanted;
  while (pitch > 9 && !fits(pitch)) pitch--;
  const columns = Math.max(1, Math.min(wanted, Math.floor(width / pitch)));
  const rows = Math.max(1, Math.min(Math.ceil(wanted / columns), Math.floor(height / pitch)));
  return { columns, rows, cells: Math.min(wanted, columns * rows), pitch, height: rows * pitch };
}

/** Returns the blocks of a square. The device divides blocks in the same way when it counts them. */
export function blocksOfCell({ start, end }: Span, cells: number, cell: number): Span {
  const edge = (index: number): number => start + Math.floor(((end - start) * index) / cells);
  return { start: edge(cell), end: edge(cell + 1) };
}

/** Returns the square of a block. For a block outside the span it is the nearest square. */
export function cellOfBlock(span: Span, cells: number, block: number): number {
  const blocks = span.end - span.start;
  let cell = Math.max(0, Math.min(cells - 1, Math.floor(((block - span.start) * cells) / blocks)));
  while (cell + 1 < cells && blocksOfCell(span, cells, cell).end <= block) cell++;
  while (cell > 0 && blocksOfCell(span, cells, cell).start > block) cell--;
  return cell;
}

/**
 * Scales `span` by `factor` around `block`. The result is within the device and has at least 16 blocks, if the device
 * has as many.
 */
export function zoomed(span: Span, total: number, block: number, factor: number): Span {
  const length = span.end - span.start;
  const wanted = Math.min(total, Math.max(16, Math.round(length * factor)));
  const share = (block - span.start) / length;
  const start = Math.max(0, Math.min(total - wanted, Math.round(block - wanted * share)));
  return { start, end: start + wanted };
}

/** Moves `span` by `by` blocks, within the device. */
export function moved(span: Span, total: number, by: number): Span {
  const length = span.end - span.start;
  const start = Math.max(0, Math.min(total - length, Math.round(span.start + by)));
  return { start, end: start + length };
}

export type CellState = 'unsynced' | 'partly' | 'synced' | 'dirty' | 'fetching';

/** Returns the state that a square shows. `arriving`: a read waits for the square, or part of it arrived just now. */
export function cellState(cell: { blocks: number; synced: number; dirty: number; arriving: boolean }): CellState {
  if (cell.arriving) return 'fetching';
  if (cell.dirty > 0) return 'dirty';
  if (cell.synced >= cell.blocks) return 'synced';
  return cell.synced > 0 ? 'partly' : 'unsynced';
}

export const STATE_NAMES: Readonly<Record<CellState, string>> = {
  unsynced: 'not copied',
  partly: 'partly copied',
  fetching: 'being fetched',
  dirty: 'partly written',
  synced: 'copied',
};
