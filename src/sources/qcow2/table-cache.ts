/**
 * Pages of the tables of all layers of an image. At most {@link LIMIT_PAGES} of them are kept; the page that was used
 * longest ago is dropped first. Readers of a page that is being read share the request.
 */

import type { Source } from '../source.ts';
import { viewOf } from './header.ts';

/** A page of 64 KiB has the L2 table of a cluster of the usual size: one request for 512 MiB of the disk. */
export const TABLE_PAGE_BYTES = 65_536;
/** 16 MiB: the tables of 128 GiB with clusters of 64 KiB. */
const LIMIT_PAGES = 256;

export class TableCache {
  readonly #pages = new Map<string, DataView | Promise<DataView>>();
  #layers = 0;

  /** Returns a number for a layer, see {@link page}. */
  addLayer(): number {
    return this.#layers++;
  }

  /** Returns the page that has the byte at `offset` of a layer's file, which must be within the file. */
  page(layer: number, file: Source, offset: number): DataView | Promise<DataView> {
    const index = Math.floor(offset / TABLE_PAGE_BYTES);
    const key = `${layer}:${index}`;
    const known = this.#pages.get(key);
    if (known !== undefined) {
      // The map lists its entries in the order of their last use.
      this.#pages.delete(key);
      this.#pages.set(key, known);
      return known;
    }
    const loading = this.#load(key, file, index * TABLE_PAGE_BYTES);
    this.#pages.set(key, loading);
    if (this.#pages.size > LIMIT_PAGES) this.#pages.delete(this.#pages.keys().next().value!);
    return loading;
  }

  async #load(key: string, file: Source, start: number): Promise<DataView> {
    const bytes = new Uint8Array(Math.min(TABLE_PAGE_BYTES, file.size - start));
    try {
      await file.read(bytes, start);
    } catch (error) {
      this.#pages.delete(key);
      throw error;
    }
    const view = viewOf(bytes);
    if (this.#pages.has(key)) this.#pages.set(key, view);
    return view;
  }
}
