/** The caches of tables and clusters: what is kept, what is dropped, and what readers share. */

import { describe, expect, it } from 'vitest';
import { ClusterCache } from '../../../src/sources/qcow2/cluster-cache.ts';
import type { PackedSegment } from '../../../src/sources/qcow2/segment.ts';
import { TABLE_PAGE_BYTES, TableCache } from '../../../src/sources/qcow2/table-cache.ts';
import type { Source } from '../../../src/sources/source.ts';

/** A file of zeros, and the offsets that were read. */
function counted(size: number, fail = false): { file: Source; reads: number[] } {
  const reads: number[] = [];
  const file: Source = {
    size,
    read: async (_into, offset) => {
      reads.push(offset);
      if (fail) throw new Error('away');
    },
    close: async () => undefined,
  };
  return { file, reads };
}

describe('the cache of clusters', () => {
  const MIB = 2 ** 20;
  const cluster = (file: Source, index: number, layer = 0): PackedSegment => ({
    kind: 'packed',
    length: MIB,
    skip: 0,
    packing: { layer, file, clusterBytes: MIB, unpack: (_packed, length) => new Uint8Array(length) },
    offset: index * 512,
    packedBytes: 512,
  });

  it('keeps 8 MiB, and drops the cluster that was used longest ago', async () => {
    const { file, reads } = counted(MIB);
    const cache = new ClusterCache();
    for (let index = 0; index < 8; index++) await cache.get(cluster(file, index));
    await cache.get(cluster(file, 0));
    expect(reads.length).toBe(8);
    await cache.get(cluster(file, 8));
    // Cluster 0 was used after cluster 1.
    await cache.get(cluster(file, 0));
    expect(reads.length).toBe(9);
    await cache.get(cluster(file, 1));
    expect(reads.length).toBe(10);
  });

  it('gives one read to readers of the same cluster, and none to those of another layer', async () => {
    const { file, reads } = counted(MIB);
    const cache = new ClusterCache();
    const [one, other] = await Promise.all([cache.get(cluster(file, 3)), cache.get(cluster(file, 3))]);
    expect(one).toBe(other);
    expect(reads).toEqual([3 * 512]);
    await cache.get(cluster(file, 3, 1));
    expect(reads).toEqual([3 * 512, 3 * 512]);
  });

  it('keeps no failure', async () => {
    const { file, reads } = counted(MIB, true);
    const cache = new ClusterCache();
    for (let round = 0; round < 2; round++) await expect(cache.get(cluster(file, 0))).rejects.toThrow('away');
    expect(reads.length).toBe(2);
  });
});

describe('the cache of tables', () => {
  const PAGES = 256;

  it('keeps 16 MiB, and drops the page that was used longest ago', async () => {
    const { file, reads } = counted(300 * TABLE_PAGE_BYTES);
    const cache = new TableCache();
    const layer = cache.addLayer();
    for (let page = 0; page < PAGES; page++) await cache.page(layer, file, page * TABLE_PAGE_BYTES);
    await cache.page(layer, file, 8);
    expect(reads.length).toBe(PAGES);
    await cache.page(layer, file, PAGES * TABLE_PAGE_BYTES);
    await cache.page(layer, file, 16);
    expect(reads.length).toBe(PAGES + 1);
    await cache.page(layer, file, TABLE_PAGE_BYTES);
    expect(reads.length).toBe(PAGES + 2);
  });

  it('does not take the page of one layer for that of another', async () => {
    const { file, reads } = counted(TABLE_PAGE_BYTES);
    const cache = new TableCache();
    for (const layer of [cache.addLayer(), cache.addLayer()]) await cache.page(layer, file, 0);
    expect(reads.length).toBe(2);
  });

  it('keeps no failure', async () => {
    const { file, reads } = counted(TABLE_PAGE_BYTES, true);
    const cache = new TableCache();
    for (let round = 0; round < 2; round++) await expect(cache.page(0, file, 0)).rejects.toThrow('away');
    expect(reads.length).toBe(2);
  });
});
