/**
 * A file allocation table that is changed in memory and then written to all its copies.
 *
 * - Nothing is written before {@link FatTable.commit}.
 * - A part of the table is changed only if all copies of this part are equal.
 * - The first copy is written last: programs that find different copies use the first.
 */

import { VolumeError, viewOf } from './bytes.ts';
import type { WritableBytes } from './writable.ts';

export interface TableLayout {
  readonly bits: 12 | 16 | 32;
  readonly fatOffset: number;
  /** Bytes of one copy. */
  readonly fatBytes: number;
  readonly copies: number;
  readonly clusterCount: number;
  readonly sectorBytes: number;
}

/** Consecutive clusters. */
export interface ClusterRun {
  readonly first: number;
  readonly count: number;
}

interface Page {
  readonly bytes: Uint8Array;
  /** The changed part, in whole sectors. Empty if `from` ≥ `to`. */
  from: number;
  to: number;
  /** Whether the other copies were compared. */
  compared: boolean;
}

/** A multiple of 3, so that no entry of 12 bits is on two pages, and of every sector size. */
const PAGE_BYTES = 12_288;
/** Unchanged pages beyond this number are dropped. */
const MAX_PAGES = 256;

export class FatTable {
  readonly #bytes: WritableBytes;
  readonly #layout: TableLayout;
  readonly #pages = new Map<number, Page>();
  readonly #perPage: number;
  /** The first value that ends a chain. */
  readonly #end: number;

  constructor(bytes: WritableBytes, layout: TableLayout) {
    this.#bytes = bytes;
    this.#layout = layout;
    this.#perPage = (PAGE_BYTES * 8) / layout.bits;
    this.#end = layout.bits === 32 ? 0x0ffffff8 : layout.bits === 16 ? 0xfff8 : 0xff8;
  }

  /** The value that {@link FatTable.set} stores at the end of a chain. */
  get endOfChain(): number {
    return this.#end + 7;
  }

  async get(cluster: number, signal?: AbortSignal): Promise<number> {
    const page = await this.#page(cluster, signal);
    const index = cluster % this.#perPage;
    const view = viewOf(page.bytes);
    if (this.#layout.bits === 32) return view.getUint32(index * 4, true) & 0x0fffffff;
    if (this.#layout.bits === 16) return view.getUint16(index * 2, true);
    const word = view.getUint16(Math.floor(index * 1.5), true);
    return index % 2 === 1 ? word >> 4 : word & 0xfff;
  }

  async set(cluster: number, value: number): Promise<void> {
    const { bits, sectorBytes } = this.#layout;
    const page = await this.compare(cluster);
    const index = cluster % this.#perPage;
    const at = Math.floor((index * bits) / 8);
    const view = viewOf(page.bytes);
    // The four upper bits of an entry of FAT32 are reserved and keep their value.
    if (bits === 32) view.setUint32(at, ((view.getUint32(at, true) & 0xf0000000) | value) >>> 0, true);
    else if (bits === 16) view.setUint16(at, value, true);
    else {
      const word = view.getUint16(at, true);
      view.setUint16(at, index % 2 === 1 ? (word & 0xf) | (value << 4) : (word & 0xf000) | value, true);
    }
    const end = at + (bits === 32 ? 4 : 2);
    page.from = Math.min(page.from, at - (at % sectorBytes));
    page.to = Math.max(page.to, Math.min(page.bytes.length, Math.ceil(end / sectorBytes) * sectorBytes));
  }

  /**
   * Compares the copies of the part of the table with the entry of `cluster`.
   * @throws {@link VolumeError} when they differ.
   */
  async compare(cluster: number): Promise<Page> {
    const page = await this.#page(cluster);
    const { fatOffset, fatBytes, copies } = this.#layout;
    for (let copy = 1; copy < copies && !page.compared; copy++) {
      const at = fatOffset + copy * fatBytes + Math.floor(cluster / this.#perPage) * PAGE_BYTES;
      const other = await this.#bytes.read(at, page.bytes.length);
      if (other.some((byte, index) => byte !== page.bytes[index]))
        throw new VolumeError('the copies of the file allocation table differ: repair the volume first');
    }
    page.compared = true;
    return page;
  }

  /**
   * Yields the clusters of a chain.
   * @throws {@link VolumeError} when the chain leaves the volume, has a free cluster or contains a cycle.
   */
  async *chain(first: number, signal?: AbortSignal): AsyncGenerator<number> {
    const { clusterCount } = this.#layout;
    let cluster = first;
    for (let count = 0; cluster < this.#end; count++) {
      signal?.throwIfAborted();
      if (cluster < 2 || cluster >= clusterCount + 2 || count === clusterCount)
        throw new VolumeError('the file allocation table is damaged: repair the volume first');
      // The next link is read first, because the caller may change it.
      const next = await this.get(cluster, signal);
      yield cluster;
      cluster = next;
    }
  }

  /**
   * Finds `count` free clusters, from cluster `from` on.
   * @returns The runs, or the number of all free clusters if they are fewer.
   */
  async findFree(
    count: number,
    from: number,
    signal?: AbortSignal,
  ): Promise<{ runs: ClusterRun[] } | { free: number }> {
    const last = this.#layout.clusterCount + 1;
    const runs: { first: number; count: number }[] = [];
    let left = count;
    const start = from >= 2 && from <= last ? from : 2;
    for (let step = 0; step < this.#layout.clusterCount && left > 0; step++) {
      const cluster = start + step <= last ? start + step : start + step - this.#layout.clusterCount;
      if (cluster % this.#perPage === 0) signal?.throwIfAborted();
      if ((await this.get(cluster, signal)) !== 0) continue;
      const run = runs.at(-1);
      if (run !== undefined && run.first + run.count === cluster) run.count++;
      else runs.push({ first: cluster, count: 1 });
      left--;
    }
    return left === 0 ? { runs } : { free: count - left };
  }

  /** Links clusters to a chain that ends with them. */
  async link(runs: readonly ClusterRun[]): Promise<void> {
    let previous: number | undefined;
    for (const { first, count } of runs) {
      for (let cluster = first; cluster < first + count; cluster++) {
        if (previous !== undefined) await this.set(previous, cluster);
        previous = cluster;
      }
    }
    if (previous !== undefined) await this.set(previous, this.endOfChain);
  }

  /** Writes the changes to all copies, the first copy last. */
  async commit(): Promise<void> {
    const { fatOffset, fatBytes, copies } = this.#layout;
    const changed = [...this.#pages].filter(([, { from, to }]) => from < to).sort(([a], [b]) => a - b);
    for (let copy = copies - 1; copy >= 0; copy--) {
      for (const [index, { bytes, from, to }] of changed)
        await this.#bytes.write(fatOffset + copy * fatBytes + index * PAGE_BYTES + from, bytes.slice(from, to));
    }
    for (const [, page] of changed) Object.assign(page, UNCHANGED);
  }

  async #page(cluster: number, signal?: AbortSignal): Promise<Page> {
    const index = Math.floor(cluster / this.#perPage);
    const found = this.#pages.get(index);
    if (found !== undefined) return found;
    const { fatOffset, fatBytes } = this.#layout;
    const at = index * PAGE_BYTES;
    const bytes = await this.#bytes.read(fatOffset + at, Math.min(PAGE_BYTES, fatBytes - at), signal);
    const page: Page = { bytes, ...UNCHANGED, compared: false };
    if (this.#pages.size >= MAX_PAGES) {
      const old = [...this.#pages].find(([, { from, to }]) => from >= to);
      if (old !== undefined) this.#pages.delete(old[0]);
    }
    this.#pages.set(index, page);
    return page;
  }
}

const UNCHANGED = { from: Number.POSITIVE_INFINITY, to: 0 };
