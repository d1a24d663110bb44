/** The background copy, over sources under the test's control and a simulated clock. */

import { setImmediate as immediate } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { shareStreams } from '../../src/device/known-streams.ts';
import { openDeviceIn } from '../../src/device/open.ts';
import type { Device, HydrateOptions, Source } from '../../src/index.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { CrashingFileSystem, SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { ControlledSource, TimedSource } from '../support/controlled-source.ts';
import { nextEvent } from '../support/device-events.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;

function pattern(size: number, seed = 1): Uint8Array {
  return seededRandom(seed).fill(new Uint8Array(size));
}

const opened: Device[] = [];

afterEach(async () => {
  for (const device of opened.splice(0)) await device.close().catch(() => undefined);
});

class Rig {
  readonly clock = new SimulatedClock({ settle: () => immediate() });
  readonly fileSystem = new CrashingFileSystem({ bootId: 'boot' });

  async open(source: Source, hydrate: false | HydrateOptions = {}, more: { blockSize?: number } = {}): Promise<Device> {
    const device = await openDeviceIn(
      { clock: this.clock, randomBytes: (into) => into.fill(7) },
      { source, fileSystem: this.fileSystem, target: 'disk', hydrate, ...more },
    );
    opened.push(device);
    return device;
  }

  /** The contents of the target's file. */
  async target(): Promise<Uint8Array> {
    const file = await this.fileSystem.open('disk');
    const bytes = new Uint8Array(await file.size());
    await file.read(bytes, 0);
    await file.close();
    return bytes;
  }
}

async function readSome(device: Device, offset: number, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length);
  await device.read(into, offset);
  return into;
}

const isStream = ({ ask }: { ask: { kind: string } }): boolean => ask.kind === 'stream';
const isRead = ({ ask }: { ask: { kind: string } }): boolean => ask.kind === 'read';

describe('what the background copy fetches', () => {
  it.each([
    { rate: undefined, wants: 2 * MIB },
    { rate: 20 * MIB, wants: 2 * MIB },
    { rate: 19 * MIB, wants: undefined },
  ])('is in pieces as the target prefers, ten a second at a rate of $rate', async ({ rate, wants }) => {
    const rig = new Rig();
    const { fileSystem } = rig;
    const asked: (number | undefined)[] = [];
    const source: InlineSource = {
      size: MIB,
      read: async (into) => void into.fill(7),
      async *stream(_offset, length, { pieceBytes } = {}) {
        asked.push(pieceBytes);
        yield new Uint8Array(length).fill(7);
      },
      close: async () => {},
    };
    const open = fileSystem.open.bind(fileSystem);
    fileSystem.open = async (...args) => Object.assign(await open(...args), { preferredWriteBytes: 2 * MIB });
    const device = await rig.open(source, rate === undefined ? {} : { rateBytesPerSecond: rate });
    await device.hydrated;
    expect(asked).toEqual([wants]);
  });

  it('is one long request for a source with streams, whose pieces may end within blocks', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const rig = new Rig();
      const random = seededRandom(seed);
      const bytes = pattern(70 * BLOCK + 700, seed);
      const source = new ControlledSource(bytes, { pieceBytes: () => 1 + random.below(3 * BLOCK) });
      const device = await rig.open(source);
      await source.serve(device.hydrated);
      expect(source.asked(), `seed ${seed}`).toEqual([[0, bytes.length]]);
      expect(source.deliveredBytes).toBe(bytes.length);
      expectBytes(await rig.target(), bytes);
    }
  });

  it('is written without its long runs of zeros, independent of the bounds of pieces', async () => {
    const rig = new Rig();
    const bytes = new Uint8Array(4 * MIB);
    bytes.set(pattern(MIB), MIB);
    let written = 0;
    rig.fileSystem.failWhen(({ kind, name, length }) => {
      if (kind === 'write' && name === 'disk') written += length;
      return false;
    });
    const random = seededRandom(3);
    const source = new ControlledSource(bytes, { pieceBytes: () => 1 + random.below(3 * 65_536) });
    await source.serve((await rig.open(source)).hydrated);
    expectBytes(await rig.target(), bytes);
    expect(written).toBeGreaterThanOrEqual(MIB);
    expect(written).toBeLessThan(MIB + 2 * 65_536);
  });

  it.each([
    { name: 'one byte', size: 1 },
    { name: 'a block and a byte', size: BLOCK + 1 },
    { name: 'two MiB minus a byte', size: 2 * MIB - 1 },
    { name: 'whole blocks', size: 3 * BLOCK },
  ])('is every byte, up to the last byte of a short last block: $name', async ({ size }) => {
    for (const streams of [true, false]) {
      for (const blockSize of [BLOCK, 65_536]) {
        const rig = new Rig();
        const bytes = pattern(size).map((byte) => byte | 1);
        const source = new ControlledSource(bytes, { streams, pieceBytes: () => 99_999 });
        const device = await rig.open(source, {}, { blockSize });
        await source.serve(device.hydrated);
        expect(source.deliveredBytes).toBe(size);
        expect(device.status()).toMatchObject({ state: 'hydrated', sourceBytes: size });
        expectBytes(await rig.target(), bytes);
      }
    }
  });

  it.each([
    { streams: true, hydrate: { concurrency: 1, extentBytes: 64 * 1024 } },
    { streams: true, hydrate: { concurrency: 5, extentBytes: 10_000 } },
    { streams: true, hydrate: {} },
    { streams: false, hydrate: { concurrency: 7, extentBytes: 12_345 } },
    { streams: false, hydrate: {} },
  ])('equals the size of the device: $streams, $hydrate', async ({ streams, hydrate }) => {
    const rig = new Rig();
    const random = seededRandom(5);
    const bytes = pattern(3 * MIB + 77);
    const source = new ControlledSource(bytes, { streams, pieceBytes: () => 1 + random.below(100_000) });
    const device = await rig.open(source, hydrate);
    await source.serve(device.hydrated);
    expect(source.deliveredBytes).toBe(bytes.length);
    expect(source.asks.reduce((sum, { length }) => sum + length, 0)).toBe(bytes.length);
    expect(device.status().sourceBytes).toBe(bytes.length);
    expectBytes(await rig.target(), bytes);
  });

  it('excludes long synced runs, and fetches short ones without overwriting writes', async () => {
    const rig = new Rig();
    const bytes = pattern(6 * MIB);
    const source = new ControlledSource(bytes, { pieceBytes: () => 50_001 });
    let device = await rig.open(source, false);
    for (const [offset, length] of [
      [MIB, MIB],
      [3 * MIB, 8 * BLOCK],
      [4 * MIB + 100, 200],
      [5 * MIB, MIB],
    ] as const) {
      const written = pattern(length, offset);
      await device.write(written, offset);
      bytes.set(written, offset);
    }
    await device.close();
    device = await rig.open(new ControlledSource(pattern(6 * MIB)), { rateBytesPerSecond: 1 });
    await device.close();
    // The source is unchanged: the writes above are only on the target.
    const original = new ControlledSource(pattern(6 * MIB), { pieceBytes: () => 50_001 });
    device = await rig.open(original);
    await original.serve(device.hydrated);
    expect(original.asked()).toEqual([
      [0, MIB],
      [2 * MIB, 3 * MIB],
    ]);
    expectBytes(await rig.target(), bytes);
  });

  it('is nothing if every block is written already', async () => {
    const rig = new Rig();
    const source = new ControlledSource(pattern(MIB));
    let device = await rig.open(source, false);
    await device.write(pattern(MIB, 2), 0);
    await device.hydrated;
    await device.close();
    device = await rig.open(source);
    await device.hydrated;
    expect(source.asked()).toEqual([]);
  });

  it('excludes known zeros, which may begin and end within blocks', async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const random = seededRandom(seed);
      const size = 20 * BLOCK + 1 + random.below(5000);
      const bytes = pattern(size, seed).map((byte) => byte | 1);
      const zero: { start: number; end: number }[] = [];
      for (let at = random.below(2 * BLOCK); at < size; at += 1 + random.below(3 * BLOCK)) {
        const end = random.oneIn(4) ? size : Math.min(size, at + 1 + random.below(6 * BLOCK));
        bytes.fill(0, at, end);
        zero.push({ start: at, end });
        at = end;
      }
      const extents = (offset: number, length: number) => {
        const runs: { length: number; zero: boolean }[] = [];
        for (let at = offset; at < offset + length; ) {
          const inside = zero.find(({ start, end }) => start <= at && at < end);
          const next = inside?.end ?? zero.find(({ start }) => start > at)?.start ?? size;
          const end = Math.min(offset + length, next);
          runs.push({ length: end - at, zero: inside !== undefined });
          at = end;
        }
        return runs;
      };
      const rig = new Rig();
      const source = new ControlledSource(bytes, {
        extents,
        streams: random.oneIn(2),
        pieceBytes: () => 1 + random.below(2 * BLOCK),
      });
      const device = await rig.open(source, random.oneIn(2) ? {} : { concurrency: 2, extentBytes: 3 * BLOCK });
      await source.serve(device.hydrated);
      expectBytes(await rig.target(), bytes);
      for (const { start, end } of zero) {
        const wholeStart = Math.ceil(start / BLOCK) * BLOCK;
        const wholeEnd = end === size ? size : Math.floor(end / BLOCK) * BLOCK;
        for (const { offset, length } of source.asks) {
          const fetched = Math.min(wholeEnd, offset + length) - Math.max(wholeStart, offset);
          expect(fetched, `seed ${seed}: zeros fetched from ${offset} on`).toBeLessThanOrEqual(0);
        }
      }
    }
  });

  it('grows with the latency of a request, so that waiting is a small part of the time', async () => {
    const longest = async (latencyMs: number): Promise<number> => {
      const rig = new Rig();
      const source = new TimedSource(rig.clock, { size: 192 * MIB, latencyMs, bytesPerMs: 50_000 });
      const device = await rig.open(source, { concurrency: 1 });
      await rig.clock.run(device.hydrated);
      const [first, ...later] = source.asks.map(({ length }) => length);
      expect(first).toBe(64 * MIB);
      return Math.max(...later);
    };
    expect(await longest(1)).toBe(8 * MIB);
    expect(await longest(20)).toBeGreaterThan(48 * MIB);
  });

  it('is a stretch of the configured length', async () => {
    const rig = new Rig();
    const source = new ControlledSource(pattern(10 * 20_480 + 5));
    const device = await rig.open(source, { concurrency: 1, extentBytes: 20_480 });
    await source.serve(device.hydrated);
    expect(source.asked()).toEqual([
      ...Array.from({ length: 10 }, (_, index) => [index * 20_480, 20_480]),
      [204_800, 5],
    ]);
  });
});

describe('the number of concurrent requests', () => {
  it('begins as the last copy from the same server has', async () => {
    const asked: number[] = [];
    const source: InlineSource = {
      size: 64 * MIB,
      place: 'http://known',
      read: () => new Promise(() => undefined),
      async *stream(offset, _length, { signal } = {}) {
        asked.push(offset);
        await new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
        yield new Uint8Array(0);
      },
      close: async () => {},
    };
    shareStreams({ stretchCount: 4, options: {}, limiter: { rate: undefined } }, { source });
    const rig = new Rig();
    await rig.open(source);
    await expect.poll(() => asked.length).toBe(4);
  });

  it.each([
    { streams: true, concurrency: 1 },
    { streams: true, concurrency: 3 },
    { streams: false, concurrency: 1 },
    { streams: false, concurrency: 6 },
  ])('is as configured: $concurrency, streams: $streams', async ({ streams, concurrency }) => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, { size: 24 * MIB, latencyMs: 20, bytesPerMs: 10_000, streams });
    const device = await rig.open(source, { concurrency, extentBytes: MIB });
    await rig.clock.run(device.hydrated);
    expect(source.mostOpen).toBe(concurrency);
    expect(source.deliveredBytes).toBe(24 * MIB);
  });

  it('starts at two and rises for a slow source without streams, so that latency costs no time', async () => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, { size: 512 * MIB, latencyMs: 20, bytesPerMs: 1e6, streams: false });
    const device = await rig.open(source);
    await rig.clock.run(device.hydrated);
    expect(source.mostOpen).toBe(8);
  });

  it('rises up to eight if each stream is slow', async () => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, {
      size: 256 * MIB,
      latencyMs: 50,
      bytesPerMs: 2000,
      pieceBytes: 2 ** 17,
    });
    const device = await rig.open(source);
    await rig.clock.run(device.hydrated);
    expect(source.mostOpen).toBe(8);
    expect(source.deliveredBytes).toBe(256 * MIB);
    expect(rig.clock.now()).toBeLessThan((256 * MIB) / 2000 / 3);
  });
});

describe('a reader', () => {
  /** A stream of 8 MiB, 5 bytes per µs after 50 ms, whose first pieces have arrived. */
  async function flowing() {
    const rig = new Rig();
    const bytes = pattern(8 * MIB);
    const source = new ControlledSource(bytes, { pieceBytes: () => 50_000 });
    const device = await rig.open(source);
    await source.next();
    await rig.clock.advance(50);
    const flow = async (pieces: number): Promise<void> => {
      for (let count = 0; count < pieces; count++) {
        (await source.next(isStream)).release();
        await rig.clock.advance(10);
      }
    };
    await flow(110);
    return { rig, bytes, source, device, flow };
  }

  it('of blocks that the copy is about to reach waits for the copy, without a request', async () => {
    const { bytes, source, device, flow } = await flowing();
    const at = Math.floor((110 * 50_000) / BLOCK) * BLOCK + 20 * BLOCK + 100;
    const reading = readSome(device, at, 5000);
    await immediate();
    expect(source.pending.filter(isRead)).toEqual([]);
    await flow(3);
    expectBytes(await reading, bytes.slice(at, at + 5000));
    expect(source.asks.length).toBe(1);
    expect(source.asks[0]!.delivered).toBeLessThan(6 * MIB);
  });

  it('of blocks that the copy has stored makes no request, even if the next piece never arrives', async () => {
    const rig = new Rig();
    const bytes = pattern(MIB);
    const source = new ControlledSource(bytes, { pieceBytes: () => 50_000 });
    const device = await rig.open(source);
    (await source.next()).release();
    await source.next();
    expectBytes(await readSome(device, 5 * BLOCK, 5000), bytes.slice(5 * BLOCK, 5 * BLOCK + 5000));
    expect(source.asked()).toEqual([[0, MIB]]);
  });

  it('of stored blocks rejects at once when the log fails, or fetches its bytes itself', async () => {
    const rig = new Rig();
    const bytes = pattern(MIB);
    const source = new ControlledSource(bytes, { pieceBytes: () => 50_000 });
    const device = await rig.open(source);
    const retry = nextEvent(device, 'retry');
    const first = await source.next();
    rig.fileSystem.failWhen(({ kind, name }) => kind === 'write' && name.startsWith('disk.wil'), {
      code: 'COD_NO_SPACE',
      stays: true,
    });
    first.release();
    await source.next();
    expectBytes(await source.serve(readSome(device, 5 * BLOCK, 100), isRead), bytes.slice(5 * BLOCK, 5 * BLOCK + 100));
    expect(await retry).toMatchObject({ code: 'COD_NO_SPACE' });
    rig.fileSystem.clearFaults();
  });

  it('of blocks too far ahead of the copy makes its own request', async () => {
    const { bytes, source, device } = await flowing();
    const reading = readSome(device, 7 * MIB, 5000);
    (await source.next(isRead)).release();
    expectBytes(await reading, bytes.slice(7 * MIB, 7 * MIB + 5000));
  });

  it.each(['breaks', 'ends early'])('that waits for the copy makes its own request when the stream %s', async (how) => {
    const { bytes, source, device } = await flowing();
    const at = Math.floor((110 * 50_000) / BLOCK) * BLOCK + 20 * BLOCK;
    const reading = readSome(device, at, 2 * BLOCK);
    await immediate();
    expect(source.pending.filter(isRead)).toEqual([]);
    const piece = await source.next(isStream);
    const retry = nextEvent(device, 'retry');
    if (how === 'breaks') piece.fail();
    else piece.end();
    expect(await retry).toMatchObject({ code: 'COD_SOURCE_IO' });
    (await source.next(isRead)).release();
    expectBytes(await reading, bytes.slice(at, at + 2 * BLOCK));
    expect(device.status().state).toBe('waiting');
  });

  it('that waits for the copy rejects when its signal is aborted or the device is closed', async () => {
    const { device, source } = await flowing();
    const at = 110 * 50_000 + 20 * BLOCK;
    const stop = new AbortController();
    const first = device.read(new Uint8Array(10), at, { signal: stop.signal });
    const second = device.read(new Uint8Array(10), at);
    second.catch(() => undefined);
    await immediate();
    stop.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    await device.close();
    await expect(second).rejects.toMatchObject({ code: 'COD_CLOSED' });
    expect(source.asked('read')).toEqual([]);
  });

  it.each([
    { name: 'bytes that other readers fetched before', late: false },
    { name: 'bytes that other readers fetch later', late: true },
  ])('that could wait for the copy is not delayed by the rate limit, for $name', async ({ late }) => {
    const { rig, bytes, source, device } = await flowing();
    device.setRate(4_000_000);
    const at = Math.floor((110 * 50_000) / BLOCK) * BLOCK + 20 * BLOCK;
    const takeMuch = async (): Promise<void> => {
      const elsewhere = device.read(new Uint8Array(2 * MIB), 6 * MIB - 100);
      (await source.next(isRead)).release();
      await elsewhere;
    };
    if (!late) await takeMuch();
    const reading = readSome(device, at, 100);
    await immediate();
    if (late) {
      expect(source.pending.filter(isRead)).toEqual([]);
      await takeMuch();
    }
    const started = rig.clock.now();
    let done = false;
    void reading.then(() => (done = true));
    while (!done && rig.clock.now() - started < 500) {
      for (const answer of [...source.pending]) answer.release();
      await rig.clock.advance(1);
    }
    expect(rig.clock.now() - started).toBeLessThan(50);
    expectBytes(await reading, bytes.slice(at, at + 100));
  });

  it('goes first: for a time, the copy fetches no more while a reader waits', async () => {
    const rig = new Rig();
    const bytes = pattern(4 * MIB);
    const source = new ControlledSource(bytes, { pieceBytes: () => 50_000 });
    const device = await rig.open(source);
    const piece = await source.next(isStream);
    const reading = readSome(device, 3 * MIB, 10);
    const demand = await source.next(isRead);
    piece.release();
    await rig.clock.advance(19);
    expect(source.pending.filter(isStream)).toEqual([]);
    await rig.clock.advance(2);
    expect(source.pending.filter(isStream).length).toBe(1);
    source.pending.find(isStream)!.release();
    await rig.clock.advance(5);
    expect(source.pending.filter(isStream)).toEqual([]);
    demand.release();
    await rig.clock.advance(0);
    expect(source.pending.filter(isStream).length).toBe(1);
    expectBytes(await reading, bytes.slice(3 * MIB, 3 * MIB + 10));
  });

  it('does not reject when another reader is aborted', async () => {
    const rig = new Rig();
    const bytes = pattern(MIB);
    const inner = new ControlledSource(bytes);
    let letGo!: () => void;
    const gate = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    // A source needs time to react to an abort.
    const source: Source = {
      size: inner.size,
      read: async (into, offset, options) => {
        try {
          await inner.read(into, offset, options);
        } catch (error) {
          await gate;
          throw error;
        }
      },
      close: async () => undefined,
    };
    const device = await rig.open(source, false);
    const stop = new AbortController();
    const first = device.read(new Uint8Array(10), 0, { signal: stop.signal });
    await inner.next();
    stop.abort(new Error('only mine'));
    await expect(first).rejects.toThrow('only mine');
    const second = readSome(device, 0, 10);
    await immediate();
    letGo();
    expectBytes(await inner.serve(second), bytes.slice(0, 10));
  });
});

describe('the rate limit', () => {
  it.each([
    { streams: true, rate: MIB },
    { streams: true, rate: 20 * MIB },
    { streams: false, rate: 8 * MIB },
  ])('is held: $rate bytes per second, streams: $streams', async ({ streams, rate }) => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, {
      size: 64 * rate,
      latencyMs: 5,
      bytesPerMs: 1e6,
      pieceBytes: rate / 16,
      streams,
    });
    const device = await rig.open(source, { rateBytesPerSecond: rate });
    expect(device.status().rateBytesPerSecond).toBe(rate);
    await rig.clock.advance(30_000);
    const before = device.status().sourceBytes;
    expect(Math.abs(before / (30 * rate) - 1)).toBeLessThan(0.05 + 4 / 30 / (rate / MIB));
    await rig.clock.advance(20_000);
    expect(Math.abs((device.status().sourceBytes - before) / (20 * rate) - 1)).toBeLessThan(0.05);
  });

  it('counts bytes that readers fetch', async () => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, { size: 64 * MIB, latencyMs: 1, bytesPerMs: 1e6 });
    const device = await rig.open(source, { rateBytesPerSecond: MIB });
    await rig.clock.advance(1000);
    await rig.clock.run(device.read(new Uint8Array(4 * MIB), 40 * MIB));
    await rig.clock.advance(9000);
    expect(device.status().sourceBytes / (10 * MIB)).toBeGreaterThan(0.95);
    expect(device.status().sourceBytes / (10 * MIB)).toBeLessThan(1.05);
  });

  it('may be changed at any time with immediate effect; without it the copy runs at full speed', async () => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, { size: 64 * MIB, latencyMs: 1, bytesPerMs: 1e6 });
    const device = await rig.open(source, { rateBytesPerSecond: 1 });
    await rig.clock.advance(60_000);
    expect(device.status().sourceBytes).toBe(BLOCK);
    device.setRate(2 * MIB);
    await rig.clock.advance(5000);
    expect(Math.abs((device.status().sourceBytes - BLOCK) / (10 * MIB) - 1)).toBeLessThan(0.05);
    device.setRate(1);
    await rig.clock.advance(10);
    const slow = device.status().sourceBytes;
    await rig.clock.advance(60_000);
    expect(device.status().sourceBytes).toBe(slow);
    expect(device.status().rateBytesPerSecond).toBe(1);
    device.setRate(undefined);
    await rig.clock.advance(1000);
    expect(device.status()).toMatchObject({ state: 'hydrated', sourceBytes: 64 * MIB, rateBytesPerSecond: undefined });
  });

  it('bounds the length of a request, because the network may transfer all that was requested', async () => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, { size: 64 * MIB, latencyMs: 1, bytesPerMs: 1e6 });
    const device = await rig.open(source, { rateBytesPerSecond: MIB });
    await rig.clock.run(device.hydrated);
    expect(Math.max(...source.asks.map(({ length }) => length))).toBe(16 * MIB);
  });

  it('ends a request that it would delay for long, and later resumes from there', async () => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, { size: 64 * MIB, latencyMs: 1, bytesPerMs: 1e6, pieceBytes: 10_000 });
    const device = await rig.open(source);
    await rig.clock.advance(5);
    expect(source.open).toBe(1);
    device.setRate(1);
    await rig.clock.advance(100);
    expect(source.open).toBe(0);
    const { sourceBytes, syncedBlocks } = device.status();
    expect(syncedBlocks).toBe(Math.floor(sourceBytes / BLOCK));
    await rig.clock.advance(60_000);
    expect(device.status()).toMatchObject({ state: 'hydrating', sourceBytes, syncedBlocks });
    expect(source.asks.length).toBe(1);
    device.setRate(undefined);
    await rig.clock.run(device.hydrated);
    expect(source.asks[1]!.offset).toBe(syncedBlocks * BLOCK);
    expect(device.status().sourceBytes).toBeLessThan(64 * MIB + BLOCK);
  });

  it('holds a request of configured length: without ranges a new request would start at 0', async () => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, { size: 64 * MIB, latencyMs: 1, bytesPerMs: 1e6, pieceBytes: 10_000 });
    const device = await rig.open(source, { concurrency: 1, extentBytes: 64 * MIB });
    await rig.clock.advance(5);
    device.setRate(1);
    await rig.clock.advance(60_000);
    expect(source.open).toBe(1);
    device.setRate(undefined);
    await rig.clock.run(device.hydrated);
    expect(source.asks.length).toBe(1);
  });

  it.each([
    { streams: true, hydrate: {} },
    { streams: true, hydrate: { concurrency: 2 } },
    { streams: false, hydrate: {} },
  ])('shows in the status as the current speed: streams: $streams, $hydrate', async ({ streams, hydrate }) => {
    const rig = new Rig();
    const source = new TimedSource(rig.clock, { size: 256 * MIB, latencyMs: 5, bytesPerMs: 1e6, streams });
    const device = await rig.open(source, { ...hydrate, rateBytesPerSecond: 10 * MIB });
    await rig.clock.advance(10_000);
    expect(device.status().hydrateBytesPerSecond / MIB).toBeGreaterThan(7);
    expect(device.status().hydrateBytesPerSecond / MIB).toBeLessThan(13);
  });
});

describe('an error', () => {
  it('stops all streams and is an event; earlier bytes are kept', async () => {
    const rig = new Rig();
    const bytes = pattern(MIB);
    const source = new ControlledSource(bytes, { pieceBytes: () => 8 * BLOCK });
    const device = await rig.open(source, { concurrency: 3, extentBytes: 64 * BLOCK });
    for (let pieces = 0; pieces < 3; pieces++) (await source.next(({ ask }) => ask.offset === 0)).release();
    await rig.clock.advance(0);
    await rig.clock.advance(0);
    const retry = nextEvent(device, 'retry');
    (await source.next(({ ask }) => ask.offset === 64 * BLOCK)).fail(new Error('the line is cut'));
    expect(await retry).toMatchObject({ code: 'Error', message: 'the line is cut', attempt: 1 });
    await immediate();
    expect(source.asks.map(({ outcome }) => outcome)).toEqual(['aborted', 'failed', 'aborted']);
    expect(source.pending).toEqual([]);
    expect(device.status()).toMatchObject({ state: 'waiting', syncedBlocks: 24, hydrateBytesPerSecond: 0 });
    await device.close();
    const again = new ControlledSource(bytes);
    const second = await rig.open(again);
    await again.serve(second.hydrated);
    expect(again.asked()).toEqual([[24 * BLOCK, MIB - 24 * BLOCK]]);
    expectBytes(await rig.target(), bytes);
  });

  it('of the target stops the copy as well', async () => {
    const rig = new Rig();
    const source = new ControlledSource(pattern(MIB), { pieceBytes: () => 8 * BLOCK });
    const device = await rig.open(source);
    rig.fileSystem.failWhen(({ kind, name }) => kind === 'write' && name === 'disk', { code: 'COD_NO_SPACE' });
    const retry = nextEvent(device, 'retry');
    (await source.next()).release();
    expect(await retry).toMatchObject({ code: 'COD_NO_SPACE' });
    await immediate();
    expect(source.asks.map(({ outcome }) => outcome)).toEqual(['returned']);
  });

  it('is the first error, even if earlier bytes cannot be recorded either', async () => {
    const rig = new Rig();
    const source = new ControlledSource(pattern(MIB), { pieceBytes: () => 8 * BLOCK });
    const device = await rig.open(source);
    (await source.next()).release();
    const next = await source.next(({ offset }) => offset > 0);
    rig.fileSystem.failWhen(({ kind, name }) => kind === 'write' && name.startsWith('disk.wil'), {
      code: 'COD_NO_SPACE',
      stays: true,
    });
    const retry = nextEvent(device, 'retry');
    next.fail(new Error('the line is cut'));
    expect(await retry).toMatchObject({ message: 'the line is cut' });
    expect(device.status()).toMatchObject({ state: 'waiting', syncedBlocks: 0 });
  });

  it.each([
    { name: 'a stream that ends before its first byte', pieces: 0, last: 'end' },
    { name: 'a stream that ends early', pieces: 2, last: 'end' },
    { name: 'a stream that is too long', pieces: 2, last: 'more' },
    { name: 'a stream whose last piece is too long', pieces: 3, last: 'more' },
  ] as const)('is $name, whose extra or missing bytes are not recorded', async ({ pieces, last }) => {
    for (const size of [10 * BLOCK, 10 * BLOCK + 5]) {
      const rig = new Rig();
      const bytes = pattern(size);
      const source = new ControlledSource(bytes, { pieceBytes: () => BLOCK + 1 });
      const device = await rig.open(source, { concurrency: 1, extentBytes: 4 * BLOCK });
      const retry = nextEvent(device, 'retry');
      for (let count = 0; count < pieces; count++) (await source.next()).release();
      const answer = await source.next();
      if (last === 'end') answer.end();
      else {
        answer.bytes = new Uint8Array(size).fill(0xee);
        answer.release();
      }
      expect(await retry).toMatchObject({ code: 'COD_SOURCE_IO' });
      expect(source.asks.length).toBe(1);
      expectBytes(await source.serve(readSome(device, 0, size)), bytes);
      await device.close();
      const again = new ControlledSource(bytes);
      const second = await rig.open(again);
      await again.serve(second.hydrated);
      expectBytes(await rig.target(), bytes);
    }
  });

  it('is a stream that ends before a run of zeros: the missing bytes are not recorded with the zeros', async () => {
    const rig = new Rig();
    const bytes = pattern(16 * BLOCK).map((byte) => byte | 1);
    bytes.fill(0, 4 * BLOCK, 8 * BLOCK);
    const extents = () => [
      { length: 4 * BLOCK, zero: false },
      { length: 4 * BLOCK, zero: true },
      { length: 8 * BLOCK, zero: false },
    ];
    const source = new ControlledSource(bytes, { extents, pieceBytes: () => BLOCK });
    const device = await rig.open(source, { concurrency: 1 });
    (await source.next()).release();
    const retry = nextEvent(device, 'retry');
    (await source.next(({ offset }) => offset === BLOCK)).end();
    expect(await retry).toMatchObject({ code: 'COD_SOURCE_IO' });
    expectBytes(await source.serve(readSome(device, 0, 16 * BLOCK)), bytes);
  });

  it.each([
    { name: 'fewer', runs: [{ length: BLOCK, zero: true }] },
    { name: 'no', runs: [] },
    { name: 'more', runs: [{ length: 100 * BLOCK, zero: true }] },
  ])('is a source whose extents cover $name bytes than requested', async ({ runs }) => {
    const rig = new Rig();
    const bytes = pattern(10 * BLOCK);
    const source = new ControlledSource(bytes, { extents: () => runs });
    const device = await rig.open(source);
    expect(await nextEvent(device, 'retry')).toMatchObject({ code: 'COD_SOURCE_IO' });
    expect((await rig.target()).length).toBe(10 * BLOCK);
    expectBytes(await source.serve(readSome(device, 0, 10 * BLOCK)), bytes);
  });
});

describe('a killed process', () => {
  it.each([
    { mibPerSecond: 4, seconds: 9 },
    { mibPerSecond: 30, seconds: 3.3 },
    { mibPerSecond: 60, seconds: 1.9 },
  ])(
    'loses at most 16 MiB of the copy or that of a second, at $mibPerSecond MiB/s',
    async ({ mibPerSecond, seconds }) => {
      const rig = new Rig();
      const bytesPerMs = (mibPerSecond * MIB) / 1000;
      const source = new TimedSource(rig.clock, { size: 256 * MIB, latencyMs: 1, bytesPerMs });
      const device = await rig.open(source, { concurrency: 1 });
      for (let step = 0; step < 4; step++) {
        await rig.clock.advance((seconds * 1000) / 4);
        const { syncedBlocks } = device.status();
        expect(syncedBlocks).toBeGreaterThan(0);
        const left = rig.fileSystem.duplicate();
        const { syncedBlocks: kept } = await inspectMetadata(left, 'disk');
        const lost = (syncedBlocks - kept) * BLOCK;
        expect(lost).toBeLessThanOrEqual(Math.max(16, mibPerSecond) * MIB + 2 * MIB);
      }
      expect((await inspectMetadata(rig.fileSystem.duplicate(), 'disk')).syncedBlocks).toBeGreaterThan(0);
    },
  );
});

describe('closing', () => {
  it('ends streams that wait for the source by their signal, and rate-limited streams by `return`', async () => {
    for (const rateBytesPerSecond of [undefined, 1]) {
      const rig = new Rig();
      const source = new ControlledSource(pattern(MIB), { pieceBytes: () => 8 * BLOCK });
      const device = await rig.open(source, {
        concurrency: 2,
        extentBytes: MIB / 2,
        ...(rateBytesPerSecond && { rateBytesPerSecond }),
      });
      await source.next(({ ask }) => ask.offset > 0);
      for (const answer of [...source.pending]) answer.release();
      await immediate();
      await immediate();
      await device.close();
      expect(source.asks.map(({ outcome }) => outcome)).toEqual(
        rateBytesPerSecond === undefined ? ['aborted', 'aborted'] : ['returned', 'returned'],
      );
      expect(source.pending).toEqual([]);
      await expect(device.hydrated).rejects.toMatchObject({ code: 'COD_CLOSED' });
    }
  });

  it('keeps the received bytes: the next device fetches only the rest', async () => {
    const rig = new Rig();
    const bytes = pattern(MIB);
    const source = new ControlledSource(bytes, { pieceBytes: () => 10 * BLOCK + 100 });
    let device = await rig.open(source);
    for (let count = 0; count < 5; count++) {
      (await source.next()).release();
      await immediate();
    }
    await source.next();
    await device.close();
    const again = new ControlledSource(bytes);
    device = await rig.open(again);
    await again.serve(device.hydrated);
    expect(again.asked()).toEqual([[50 * BLOCK, MIB - 50 * BLOCK]]);
    expectBytes(await rig.target(), bytes);
  });
});
