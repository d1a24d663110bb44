/**
 * A source that takes what it can from an older image on this machine.
 *
 * It is used beneath a comparison with the manifest, which asks for whole extents, and asks the source itself again for
 * what does not match. So nothing of the older image needs to be trusted.
 */

import { leafOf, type Manifest } from './manifest.ts';
import type { InlineSource, InternalStreamOptions, Source } from './source.ts';

/** An older image, and its manifest. */
export interface Seed {
  /** The image. It is not closed. */
  readonly source: Source;
  /** Its manifest, with extents of the same length. */
  readonly manifest: Manifest;
}

/** The longest read of a seed. */
const PIECE_BYTES = 2 ** 20;

/** Extents in a row: from the seed, from `at` on, or from the source. */
interface Run {
  readonly start: number;
  end: number;
  readonly at: number | undefined;
}

export class SeededSource implements Source {
  readonly size: number;
  readonly #source: InlineSource;
  readonly #manifest: Manifest;
  /** Undefined once it has failed. */
  #seed: Source | undefined;
  /** Where the seed has each extent, or -1. */
  readonly #places: Float64Array;
  declare stream?: NonNullable<InlineSource['stream']>;

  /** @throws `RangeError` when the manifests have extents of different lengths. */
  constructor(source: InlineSource, manifest: Manifest, seed: Seed) {
    if (seed.manifest.extentBytes !== manifest.extentBytes) {
      const [one, other] = [seed.manifest.extentBytes, manifest.extentBytes];
      throw new RangeError(`the manifest of the seed has extents of ${one} bytes, not ${other}`);
    }
    this.size = source.size;
    this.#source = source;
    this.#manifest = manifest;
    this.#seed = seed.source;
    this.#places = placesOf(manifest, seed.manifest);
    if (source.stream !== undefined) this.stream = (...range) => this.#stream(...range);
  }

  /** The range must be whole extents. */
  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    const reads = this.#runs(offset, offset + into.length).map(async ({ start, end, at }) => {
      const part = into.subarray(start - offset, end - offset);
      if (at === undefined || !(await this.#readSeed(part, at, options.signal)))
        await this.#source.read(part, start, options);
    });
    await Promise.all(reads);
  }

  async *#stream(offset: number, length: number, options: InternalStreamOptions = {}): AsyncGenerator<Uint8Array> {
    for (const { start, end, at } of this.#runs(offset, offset + length)) {
      let done = start;
      while (at !== undefined && done < end) {
        const piece = new Uint8Array(Math.min(PIECE_BYTES, end - done));
        if (!(await this.#readSeed(piece, at + done - start, options.signal))) break;
        yield piece;
        done += piece.length;
      }
      if (done < end) yield* this.#source.stream!(done, end - done, options);
    }
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  /** Returns false if the seed cannot be read. It is not used any more then. */
  async #readSeed(into: Uint8Array, at: number, signal: AbortSignal | undefined): Promise<boolean> {
    const seed = this.#seed;
    if (seed === undefined) return false;
    try {
      await seed.read(into, at, signal === undefined ? {} : { signal });
      return true;
    } catch {
      signal?.throwIfAborted();
      this.#seed = undefined;
      return false;
    }
  }

  #runs(start: number, end: number): Run[] {
    const { extentBytes } = this.#manifest;
    const runs: Run[] = [];
    for (let offset = start; offset < end; offset += extentBytes) {
      const place = this.#seed === undefined ? -1 : this.#places[offset / extentBytes]!;
      const at = place < 0 ? undefined : place;
      const next = Math.min(end, offset + extentBytes);
      const last = runs.at(-1);
      const expected = last?.at === undefined ? undefined : last.at + (offset - last.start);
      if (last !== undefined && at === expected) last.end = next;
      else runs.push({ start: offset, end: next, at });
    }
    return runs;
  }
}

/** The offset in a seed of each extent of a manifest, or -1. */
function placesOf(manifest: Manifest, seed: Manifest): Float64Array {
  const { size, extentBytes } = manifest;
  const known = new Map<number, number>();
  for (let at = 0; at < seed.size; at += extentBytes) known.set(keyOf(leafOf(seed, at)), at);
  const places = new Float64Array(Math.ceil(size / extentBytes)).fill(-1);
  for (let at = 0; at < size; at += extentBytes) {
    const place = known.get(keyOf(leafOf(manifest, at)));
    const lengths = [size - at, seed.size - (place ?? 0)].map((rest) => Math.min(extentBytes, rest));
    if (place !== undefined && lengths[0] === lengths[1]) places[at / extentBytes] = place;
  }
  return places;
}

/** 48 bits of a digest. Two digests with the same key only cost a request: what does not match is asked for again. */
function keyOf(leaf: Uint8Array): number {
  const view = new DataView(leaf.buffer, leaf.byteOffset, leaf.byteLength);
  return view.getUint32(0) * 2 ** 16 + view.getUint16(4);
}
