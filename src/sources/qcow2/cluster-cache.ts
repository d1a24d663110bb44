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

  has(cluster: PackedSegment): boolean {
    return this.#clusters.has(keyOf(cluster));
  }

  /**
   * Resolves to a whole cluster. Its bytes must not be changed.
   * @param read returns bytes of the file. Default: by a request for the cluster
   */
  get(cluster: PackedSegment, read?: (offset: number, length: number) => Promise<Uint8Array>): Promise<Uint8Array> {
    const key = keyOf(cluster);
    let entry = this.#clusters.get(key);
    if (entry === undefined) {
      entry = { bytes: unpacked(cluster, read), length: cluster.packing.clusterBytes };
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

function keyOf({ packing, offset, packedBytes }: PackedSegment): string {
  return `${packing.layer}:${offset}:${packedBytes}`;
}

async function unpacked(
  { packing, offset, packedBytes }: PackedSegment,
  read: (offset: number, length: number) => Promise<Uint8Array> = async () => {
    const packed = new Uint8Array(packedBytes);
    await packing.file.read(packed, offset);
    return packed;
  },
): Promise<Uint8Array> {
  return unpack(packing, await read(offset, packedBytes), offset);
}

/** @throws {@link CodError} COD_CORRUPT */
export function unpack(packing: Packing, packed: Uint8Array, offset: number): Uint8Array {
  try {
    return packing.unpack(packed, packing.clusterBytes);
  } catch (error) {
    throw corrupt(`the compressed cluster at ${offset} is damaged (${(error as Error).message})`, { offset });
  }
}
