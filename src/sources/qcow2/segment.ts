/** Where the bytes of a disk are: runs of zeros, of plain data in a file, and parts of compressed clusters. */

import type { Source } from '../source.ts';

/** Compressed clusters of one layer. */
export interface Packing {
  /** Number of the layer, unique within an image. */
  readonly layer: number;
  readonly file: Source;
  /** Bytes of a cluster, uncompressed. */
  readonly clusterBytes: number;
  /**
   * Uncompresses a cluster. Bytes behind its end are ignored.
   * @throws an error if `packed` does not begin with a compressed cluster of `length` bytes
   */
  unpack(packed: Uint8Array, length: number): Uint8Array;
}

/** A part of a compressed cluster: `length` bytes from `skip` on. */
export interface PackedSegment {
  readonly kind: 'packed';
  readonly length: number;
  readonly skip: number;
  readonly packing: Packing;
  readonly offset: number;
  readonly packedBytes: number;
}

export type Segment =
  | { readonly kind: 'zero'; length: number }
  | { readonly kind: 'data'; length: number; readonly file: Source; readonly offset: number }
  | PackedSegment;

/** Appends a run of zeros. */
export function addZeros(segments: Segment[], length: number): void {
  const last = segments.at(-1);
  if (last?.kind === 'zero') last.length += length;
  else segments.push({ kind: 'zero', length });
}

/** Appends a run of data. */
export function addData(segments: Segment[], file: Source, offset: number, length: number): void {
  const last = segments.at(-1);
  if (last?.kind === 'data' && last.file === file && last.offset + last.length === offset) last.length += length;
  else segments.push({ kind: 'data', length, file, offset });
}
