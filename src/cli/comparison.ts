/** Compares bytes of a target with a manifest, or with a source. */

import type { ByteExtent } from '../core/range-set.ts';
import { type Manifest, mismatches } from '../sources/manifest.ts';
import type { Source } from '../sources/source.ts';
import { wholeExtents } from '../sources/whole-extents.ts';
import type { TargetFile } from './copied-ranges.ts';

/** The next bytes of a comparison. */
export interface Compared {
  readonly length: number;
  /** Extents of these bytes that do not match, ascending. */
  readonly wrong: readonly ByteExtent[];
}

/** What a target is compared with. */
export interface Comparison {
  /** Bytes of the image. */
  readonly size: number;
  /** The part of an extent that can be compared. Its length may be 0. */
  comparable(extent: ByteExtent): ByteExtent;
  /** Compares an extent that is comparable, from its beginning to its end. */
  compare(extent: ByteExtent, target: TargetFile, signal: AbortSignal): AsyncGenerator<Compared>;
}

const PIECE_BYTES = 2 ** 20;
/** Differences from a source are reported in blocks of this length. */
const BLOCK_BYTES = 4096;
/** The longest extent of a manifest. Pieces of a source are at least as long. */
export const UNIT_BYTES = 65_536;

/** Compares whole extents of a manifest. */
export function withManifest(manifest: Manifest): Comparison {
  const { size, extentBytes } = manifest;
  return {
    size,
    comparable: ({ offset, length }) => {
      const start = Math.ceil(offset / extentBytes) * extentBytes;
      const end = offset + length === size ? size : Math.floor((offset + length) / extentBytes) * extentBytes;
      return { offset: start, length: Math.max(0, end - start) };
    },
    compare: async function* ({ offset, length }, target) {
      const buffer = new Uint8Array(Math.min(PIECE_BYTES, length));
      const pieceAt = (at: number): Uint8Array => buffer.subarray(0, offset + length - at);
      let reading = length > 0 ? target.read(pieceAt(offset), offset) : Promise.resolve();
      for (let at = offset; at < offset + length; ) {
        await reading;
        const piece = pieceAt(at);
        // The bytes are copied before the call returns, so the next ones can be read meanwhile.
        const hashing = mismatches(manifest, piece, at);
        const next = at + piece.length;
        if (next < offset + length) reading = target.read(pieceAt(next), next);
        reading.catch(() => undefined);
        const wrong = (await hashing).map((each) => ({ offset: each, length: Math.min(extentBytes, size - each) }));
        yield { length: piece.length, wrong };
        at = next;
      }
    },
  };
}

/** Compares all bytes. */
export function withSource(source: Source): Comparison {
  return {
    size: source.size,
    comparable: (extent) => extent,
    compare: async function* ({ offset, length }, target, signal) {
      let buffer = new Uint8Array(PIECE_BYTES);
      let at = offset;
      const range = { start: offset, end: offset + length, extentBytes: UNIT_BYTES };
      for await (const piece of wholeExtents(source, range, signal)) {
        if (buffer.length < piece.length) buffer = new Uint8Array(piece.length);
        const found = buffer.subarray(0, piece.length);
        await target.read(found, at);
        yield { length: piece.length, wrong: Buffer.compare(found, piece) === 0 ? [] : differences(found, piece, at) };
        at += piece.length;
      }
    },
  };
}

function differences(found: Uint8Array, expected: Uint8Array, offset: number): ByteExtent[] {
  const wrong: ByteExtent[] = [];
  for (let at = 0; at < found.length; ) {
    const end = Math.min(found.length, at + BLOCK_BYTES - ((offset + at) % BLOCK_BYTES));
    if (Buffer.compare(found.subarray(at, end), expected.subarray(at, end)) !== 0)
      wrong.push({ offset: offset + at, length: end - at });
    at = end;
  }
  return wrong;
}
