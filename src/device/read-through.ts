/**
 * Cold reads from a source that answers at once, such as a local file. They take no promise and no memory of their own.
 *
 * - Whole blocks are read right into the reader's memory, and stored from there before the read returns.
 * - No caller waits for the records, so many of them share an append: until then the blocks count as missing, and a
 *   further read fetches and stores the same bytes again.
 */

import type { Done } from '../async/done.ts';
import { newBytes } from '../core/new-bytes.ts';
import type { BlockRange } from '../core/runs.ts';
import type { Clock } from '../platform/clock.ts';
import type { Filler } from './filler.ts';
import type { Origin } from './origin.ts';
import type { Target } from './target.ts';

/** Longer reads would keep the event loop for too long. */
const MAX_BYTES = 2 ** 16;
/** So many reads share an append, or those of one turn of the event loop. */
const MAX_UNRECORDED = 32;

interface Parts {
  readonly origin: Origin;
  readonly filler: Filler;
  readonly clock: Clock;
  /** Called for each request. */
  onBegin(): void;
  onFetched(bytes: number): void;
  onStored(): void;
}

export class ReadThrough {
  readonly #parts: Parts;
  /** Blocks that are stored. */
  #unrecorded: BlockRange[] = [];
  #recording = 0;
  #onIdle: (() => void) | undefined;
  /** For reads that begin or end within a block. */
  #spare = newBytes(0);

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * Reads bytes of which the target holds nothing. Returns true if that is done, and undefined if it was not tried: the
   * target holds some of the bytes, or the source may not answer at once.
   */
  read(into: Uint8Array, offset: number, { state, log }: Target): Promise<void> | true | undefined {
    const { source, diagnostics } = this.#parts.origin;
    if (source?.readNow === undefined || diagnostics?.isWatched || log.poisoning !== undefined) return undefined;
    const blocks = state.blocksOf(offset, into.length);
    const { offset: start, length } = state.bytesOf(blocks);
    if (length > MAX_BYTES || state.nextHeld(blocks.start, blocks.end) < blocks.end) return undefined;
    const bytes = length === into.length ? into : this.#memory(length);
    try {
      if (!source.readNow(bytes, start)) return undefined;
    } catch {
      // The long way asks again, and says what is wrong.
      return undefined;
    }
    this.#parts.onBegin();
    this.#parts.onFetched(length);
    if (bytes !== into) into.set(bytes.subarray(offset - start, offset - start + into.length));
    const stored = this.#store(bytes, start, blocks);
    if (stored === undefined) return true;
    if (bytes !== into) this.#spare = newBytes(0);
    return stored;
  }

  #memory(length: number): Uint8Array {
    if (this.#spare.length < length) this.#spare = newBytes(length);
    return this.#spare.subarray(0, length);
  }

  /** The reader has its bytes: an error here is found by the background copy, which will store the same blocks. */
  #store(bytes: Uint8Array, offset: number, blocks: BlockRange): Done {
    try {
      const storing = this.#parts.filler.store(bytes, offset);
      if (storing === undefined) this.#recordSoon(blocks);
      else return storing.then(() => this.#recordSoon(blocks)).catch(() => undefined);
    } catch {}
    return undefined;
  }

  #recordSoon(blocks: BlockRange): void {
    this.#unrecorded.push(blocks);
    if (this.#unrecorded.length >= MAX_UNRECORDED) this.#record();
    else if (this.#unrecorded.length === 1) {
      const turned = this.#parts.clock.turn?.() ?? Promise.resolve();
      const record = (): void => this.#record();
      turned.then(record, record);
    }
  }

  #record(): void {
    const all = this.#unrecorded;
    this.#unrecorded = [];
    this.#recording += all.length;
    for (const blocks of all) {
      this.#parts.filler.record(blocks, () => {
        this.#parts.onStored();
        if (--this.#recording === 0) this.#onIdle?.();
      });
    }
  }

  /** Resolves when everything is recorded. Nothing may be read meanwhile. */
  async close(): Promise<void> {
    this.#record();
    if (this.#recording > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }
}

/** Replaced in pages, which have no such source. */
export const newReadThrough: ((parts: Parts) => ReadThrough) | undefined = (parts) => new ReadThrough(parts);
