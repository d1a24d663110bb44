/**
 * Uncompressed clusters, since small reads ask for the same cluster again and again. Readers of a cluster that is being
 * read share the request. At most {@link LIMIT_BYTES} are kept; the cluster that was used longest ago is dropped first.
 */

import { corrupt } from './header.ts';
import type { PackedSegment, Packing } from './segment.ts';

const LIMIT_BYTES = 2 ** 23;

export class ClusterCache {
  readonly #clusters = new Map<string, { readonly bytes: Promise<Uint8Array>; readonly length: number }>();
  #keptBytes = 0;

  /** Resolves to a whole cluster. Its bytes must not be changed. */
  get(cluster: PackedSegment): Promise<Uint8Array> {
    const { packing, offset, packedBytes } = cluster;
    const key = `${packing.layer}:${offset}:${packedBytes}`;
    let entry = this.#clusters.get(key);
    if (entry === undefined) {
      entry = { bytes: read(cluster), length: packing.clusterBytes };
      this.#keptBytes += entry.length;
      entry.bytes.catch(() => this.#drop(key));
    } else this.#clusters.delete(key);
    // The map lists its entries in the order of their last use.
    this.#clusters.set(key, entry);
    if (this.#keptBytes > LIMIT_BYTES) this.#drop(this.#clusters.keys().next().value!);
    return entry.bytes;
  }

  #drop(key: string): void {
    this.#keptBytes -= this.#clusters.get(key)?.length ?? 0;
    this.#clusters.delete(key);
  }
}

async function read({ packing, offset, packedBytes }: PackedSegment): Promise<Uint8Array> {
  const packed = new Uint8Array(packedBytes);
  await packing.file.read(packed, offset);
  return unpack(packing, packed, offset);
}

/** @throws {@link CodError} COD_CORRUPT */
export function unpack(packing: Packing, packed: Uint8Array, offset: number): Uint8Array {
  try {
    return packing.unpack(packed, packing.clusterBytes);
  } catch (error) {
    throw corrupt(`the compressed cluster at ${offset} is damaged (${(error as Error).message})`, { offset });
  }
}
