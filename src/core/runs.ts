/** Runs of blocks, and of bytes in one state. */

/** A range of blocks: [start, end). */
export interface BlockRange {
  /** Number of the first block. */
  readonly start: number;
  /** Number of the block after the last one. */
  readonly end: number;
}

/** A run of bytes that one side holds. */
export interface Piece {
  /** Bytes from the beginning of the device. */
  readonly start: number;
  readonly end: number;
  readonly from: 'target' | 'source';
}

/** A run of bytes whose blocks are in one state. */
export interface StateRun {
  /** Bytes. */
  readonly length: number;
  readonly state: 'synced' | 'unsynced' | 'dirty';
}

/** Adds [start, end), joined with the piece before it if both are from one side. */
export function addPiece(pieces: Piece[], start: number, end: number, from: Piece['from']): void {
  if (start >= end) return;
  const last = pieces.at(-1);
  if (last?.from === from) pieces[pieces.length - 1] = { from, start: last.start, end };
  else pieces.push({ from, start, end });
}
