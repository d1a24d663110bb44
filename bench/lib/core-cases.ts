/** The cases of the core's benchmarks, for Node and browsers: logs of a million records, and maps of 1 TiB. */

import { RoaringBitmap32 } from 'roaring-wasm/browser';
import type { BlockMap } from '../../src/core/block-map.ts';
import { CopyState } from '../../src/core/copy-state.ts';
import { addFormat1Bitmap } from '../../src/core/format1-bitmaps.ts';
import { Format1Replay } from '../../src/core/format1-replay.ts';
import { FrameEncoder } from '../../src/core/frames.ts';
import { type Geometry, geometry } from '../../src/core/geometry.ts';
import { FILLED } from '../../src/core/layout.ts';
import { LogScan } from '../../src/core/replay.ts';
import type { Core } from '../../src/wasm/core.ts';

export const RECORDS = 1_000_000;

/** Returns a repeatable generator of numbers below 2^32 (xorshift32). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

export interface History {
  readonly name: string;
  readonly blocks: number;
  /** Largest allowed ratio to `copy`. */
  readonly copyBar: number | undefined;
  /** Whether format 2 has bars for its size and speed. */
  readonly extents: boolean;
  /** [block, 0, 4096] for a whole block, or a part of a block. */
  readonly writes: Iterable<readonly [block: number, start: number, length: number]>;
}

export const histories: readonly History[] = [
  {
    name: 'sequential',
    blocks: 2 ** 28,
    copyBar: 2.5,
    extents: true,
    *writes() {
      for (let i = 0; i < RECORDS; i++) yield [i, 0, 4096] as const;
    },
  },
  {
    name: 'random over 2^28',
    blocks: 2 ** 28,
    copyBar: 20,
    extents: false,
    *writes() {
      const next = numbers(1);
      for (let i = 0; i < RECORDS; i++) yield [next() % 2 ** 28, 0, 4096] as const;
    },
  },
  {
    // The guest writes a part of a block, and 1000 writes later the hydrator completes the block.
    name: 'half dirty over 2,000,000',
    blocks: 2_000_000,
    copyBar: 12,
    extents: false,
    *writes() {
      const dirty = numbers(2);
      const synced = numbers(2);
      for (let i = 0; i < RECORDS / 2; i++) {
        yield [dirty() % 2_000_000, (i % 7) * 512, 512] as const;
        if (i >= 1000) yield [synced() % 2_000_000, 0, 4096] as const;
      }
      for (let i = 0; i < 1000; i++) yield [synced() % 2_000_000, 0, 4096] as const;
    },
  },
  {
    name: 'random runs of 16',
    blocks: 2 ** 28,
    copyBar: 10,
    extents: true,
    *writes() {
      const next = numbers(3);
      for (let i = 0; i < RECORDS / 16; i++) {
        const start = (next() % 2 ** 24) * 16;
        for (let block = start; block < start + 16; block++) yield [block, 0, 4096] as const;
      }
    },
  },
  {
    name: 'half dirty, none completed',
    blocks: 2_000_000,
    copyBar: undefined,
    extents: false,
    *writes() {
      const next = numbers(4);
      for (let i = 0; i < RECORDS / 2; i++) {
        yield [next() % 2_000_000, (i % 7) * 512, 512] as const;
        yield [next() % 2_000_000, 0, 4096] as const;
      }
    },
  },
].map((history) => ({ ...history, writes: { [Symbol.iterator]: history.writes } }));

export function format1(history: History): Uint8Array {
  const words = new Uint32Array(RECORDS * 8);
  let at = 0;
  const put = (value: number): void => {
    words[at++] = value % 2 ** 32;
    words[at++] = Math.floor(value / 2 ** 32);
  };
  for (const [block, start, length] of history.writes) {
    const whole = length === 4096;
    put(whole ? 1 : 2);
    put(block);
    if (!whole) {
      put(start);
      put(length);
    }
  }
  return new Uint8Array(words.buffer, 0, at * 4).slice();
}

/** Encodes the history in format 2, in groups of 1024 writes. */
export function format2(core: Core, history: History): { body: Uint8Array; used: number } {
  const encoder = new FrameEncoder(core, { epoch: 1 });
  const body = new Uint8Array(RECORDS * 20);
  let position = 512;
  let sequence = 0;
  let waiting = 0;
  const seal = (): void => {
    const sealed = encoder.seal({ position, sequence, firm: 0 });
    body.set(sealed.bytes, position - 512);
    position = sealed.end;
    sequence += sealed.frames;
    waiting = 0;
  };
  for (const [block, start, length] of history.writes) {
    encoder.data(FILLED, block * 4096 + start, length, 0);
    if (++waiting === 1024) seal();
  }
  seal();
  encoder.dispose();
  return { body: body.slice(0, Math.ceil(position / 512) * 512 - 512), used: position - 512 };
}

export function replayFormat1(core: Core, shape: Geometry, log: Uint8Array): Promise<number> {
  return replayed(core, shape, (replay) => replay.format1(log));
}

export function replayFormat2(core: Core, shape: Geometry, log: { body: Uint8Array; used: number }): Promise<number> {
  return replayed(core, shape, (replay) => {
    const scan = new LogScan(core, shape, { epoch: 1 });
    scan.feed(log.body);
    replay.format2(log.body, scan.finish().endOffset - 512);
  });
}

/** Replays what `feed` adds into new maps. Resolves to their number of blocks. */
async function replayed(core: Core, shape: Geometry, feed: (replay: Format1Replay) => void): Promise<number> {
  const state = await CopyState.open(core, shape);
  const replay = new Format1Replay(core, shape);
  feed(replay);
  for (const _ of state.merging(replay));
  const count = state.blocks.count + state.dirty.blockCount;
  replay.dispose();
  state.dispose();
  return count;
}

const TEBIBYTE = geometry({ size: 2 ** 40, blockSize: 4096 });

/** Maps of a device of 1 TiB. */
export const maps: readonly {
  readonly name: string;
  /** Longest allowed serialization, in ms. */
  readonly bar: number;
  readonly fill: (map: BlockMap) => void;
}[] = [
  { name: 'full', bar: 0.1, fill: (map) => map.add(0, 2 ** 28) },
  {
    name: 'one eighth half-random',
    bar: 0.4,
    fill: (map) => {
      const next = numbers(5);
      const set = new RoaringBitmap32();
      for (let i = 0; i < 64; i++) set.addMany(Uint32Array.from({ length: 2 ** 18 }, () => next() % 2 ** 25));
      addFormat1Bitmap(map, TEBIBYTE, 0, set.serialize('portable'));
      set.dispose();
    },
  },
  {
    name: 'a million random blocks',
    bar: 0.75,
    fill: (map) => {
      const next = numbers(6);
      const set = new RoaringBitmap32();
      for (let i = 0; i < 4; i++) set.addMany(Uint32Array.from({ length: 250_000 }, () => next() % 2 ** 28));
      addFormat1Bitmap(map, TEBIBYTE, 0, set.serialize('portable'));
      set.dispose();
    },
  },
  {
    name: 'alternating MiB',
    bar: 0.8,
    fill: (map) => {
      for (let block = 0; block < 2 ** 28; block += 512) map.add(block, block + 256);
    },
  },
];
