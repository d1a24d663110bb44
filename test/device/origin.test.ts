/** The device without its source: it opens, waits, and continues by itself. Simulated time. */

import { setImmediate as immediate } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import { patienceOf } from '../../src/device/patience.ts';
import { CodError, type Device, type DeviceEvent, type OpenDeviceOptions, type Source } from '../../src/index.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { CrashingFileSystem, SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { ControlledSource } from '../support/controlled-source.ts';
import { nextEvent } from '../support/device-events.ts';

const BLOCK = 4096;
const SIZE = 20 * BLOCK;
const MIB = 2 ** 20;
const IMAGE = seededRandom(1).fill(new Uint8Array(SIZE));
const OTHER = seededRandom(2).fill(new Uint8Array(SIZE));

const opened: Device[] = [];

afterEach(async () => {
  for (const device of opened.splice(0)) await device.close().catch(() => undefined);
});

/** A machine, with a server that holds an image and can be away. */
class Rig {
  readonly clock = new SimulatedClock({ settle: () => immediate() });
  readonly fileSystem = new CrashingFileSystem({ bootId: 'boot' });
  /** What the server answers. An error: it is away. */
  answer: { readonly bytes: Uint8Array; readonly identity?: string } | Error = { bytes: IMAGE, identity: 'v1' };
  /** When the source was opened, in ms. */
  readonly opens: number[] = [];
  closes = 0;
  readonly events: DeviceEvent[] = [];

  readonly source = async (): Promise<Source> => {
    this.opens.push(this.clock.now());
    if (this.answer instanceof Error) throw this.answer;
    const { bytes, ...options } = this.answer;
    const inner = bytesSource(bytes, options);
    const read: Source['read'] = async (into, offset, how) => {
      if (this.answer instanceof Error) throw this.answer;
      if (this.answer.bytes !== bytes) throw new CodError('COD_SOURCE_CHANGED', 'changed');
      await inner.read(into, offset, how);
    };
    const close = async (): Promise<void> => void this.closes++;
    return { size: inner.size, ...options, read, close };
  };

  async open(options: Partial<OpenDeviceOptions> = {}, how: { patienceMs?: number } = {}): Promise<Device> {
    const device = await openDeviceIn(
      { clock: this.clock, randomBytes: (into) => into.fill(7) },
      { source: this.source, fileSystem: this.fileSystem, target: 'disk', ...options },
      how.patienceMs === undefined ? {} : { patience: patienceOf(how.patienceMs) },
    );
    opened.push(device);
    void this.#follow(device);
    return device;
  }

  async #follow(device: Device): Promise<void> {
    for await (const event of device.events()) this.events.push(event);
  }

  told<Type extends DeviceEvent['type']>(type: Type): Extract<DeviceEvent, { type: Type }>[] {
    return this.events.filter((event): event is Extract<DeviceEvent, { type: Type }> => event.type === type);
  }

  /** Makes a copy that holds only its first 5 blocks. */
  async partCopied(): Promise<void> {
    const device = await this.open({ hydrate: false });
    await device.hydrateRange(0, 5 * BLOCK);
    await this.clock.advance(0);
    expect(device.status().syncedBlocks).toBe(5);
    await device.close();
    await immediate();
    this.opens.length = 0;
    this.events.length = 0;
  }

  async copied(): Promise<void> {
    const device = await this.open();
    await device.hydrated;
    await device.close();
    this.opens.length = 0;
    this.events.length = 0;
  }
}

const away = (code: 'COD_SOURCE_IO' | 'COD_NOT_FOUND' = 'COD_SOURCE_IO'): CodError => new CodError(code, 'no answer');

async function bytesOf(device: Device, offset = 0, length = device.size - offset): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await device.read(bytes, offset);
  return bytes;
}

describe('a complete copy', () => {
  it.each([
    { how: 'without a source', source: undefined },
    { how: 'with a source that never comes', source: () => new Promise<Source>(() => undefined) },
    { how: 'with a source of another image', source: bytesSource(OTHER, { identity: 'v2' }) },
  ])('opens $how, and is finished', async ({ source }) => {
    const rig = new Rig();
    await rig.copied();
    const device = await rig.open({ source });
    await device.hydrated;
    expectBytes(await bytesOf(device), IMAGE);
    await device.finish();
    expect(await rig.fileSystem.open('disk.bak').catch(({ code }) => code)).toBe('COD_NOT_FOUND');
  });

  it('does not ask for its source', async () => {
    const rig = new Rig();
    await rig.copied();
    const device = await rig.open();
    await device.hydrated;
    await rig.clock.advance(600_000);
    expect(rig.opens).toEqual([]);
  });
});

describe('an incomplete copy', () => {
  it('opens at once and serves what is here; missing bytes reject until the source comes', async () => {
    const rig = new Rig();
    await rig.partCopied();
    rig.answer = away('COD_NOT_FOUND');
    const device = await rig.open();
    expect(device.status()).toMatchObject({ state: 'waiting', syncedBlocks: 5 });
    expectBytes(await bytesOf(device, 0, 5 * BLOCK), IMAGE.slice(0, 5 * BLOCK));
    await expect(bytesOf(device, 10 * BLOCK, 1)).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: 'the source is not available: no answer',
      cause: { code: 'COD_NOT_FOUND' },
    });
    const model = IMAGE.slice();
    model.fill(9, 10 * BLOCK + 7, 10 * BLOCK + 107);
    await device.write(new Uint8Array(100).fill(9), 10 * BLOCK + 7);
    expect(device.status().dirtyBlocks).toBe(1);
    await device.flush();
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    await rig.clock.run(device.hydrated);
    expectBytes(await bytesOf(device), model);
    expect(rig.told('recovered')).toHaveLength(1);
  });

  it('needs no source that is only a promise: a read waits for it for 30 s', async () => {
    const rig = new Rig();
    await rig.partCopied();
    const device = await rig.open({ source: () => new Promise<Source>(() => undefined), hydrate: false });
    const reading = bytesOf(device, 10 * BLOCK, 1);
    reading.catch(() => undefined);
    await rig.clock.advance(29_999);
    expect(await Promise.race([reading.catch(() => 'rejected'), immediate('pending')])).toBe('pending');
    await rig.clock.advance(1);
    await expect(reading).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
  });

  it('asks again with growing delays of at most 30 s, tells of each attempt, and never ends', async () => {
    const rig = new Rig();
    await rig.partCopied();
    rig.answer = away();
    const device = await rig.open();
    let ended = false;
    device.hydrated.finally(() => (ended = true)).catch(() => undefined);
    await rig.clock.advance(24 * 3_600_000);
    const retries = rig.told('retry');
    expect(retries.length).toBeGreaterThan(2880);
    expect(retries[0]).toEqual({
      type: 'retry',
      code: 'COD_SOURCE_IO',
      message: 'no answer',
      attempt: 1,
      delayMs: expect.any(Number),
    });
    expect(retries.map(({ attempt }) => attempt)).toEqual(retries.map((_, index) => index + 1));
    for (const [index, { delayMs }] of retries.entries()) {
      const longest = Math.min(30_000, 500 * 2 ** index);
      expect(delayMs).toBeGreaterThanOrEqual(longest / 2);
      expect(delayMs).toBeLessThanOrEqual(longest);
      if (index > 0) expect(rig.opens[index]! - rig.opens[index - 1]!).toBe(retries[index - 1]!.delayMs);
    }
    expect(device.status()).toMatchObject({ state: 'waiting', retries: retries.length });
    expect(ended).toBe(false);
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    await rig.clock.advance(30_000);
    await device.hydrated;
    expect(rig.told('state').map(({ state }) => state)).toEqual(['hydrating', 'hydrated']);
  });

  it('is woken by a read that finds the source', async () => {
    const rig = new Rig();
    await rig.partCopied();
    rig.answer = away();
    const device = await rig.open();
    await rig.clock.advance(600_000);
    const { length } = rig.told('retry');
    while (rig.told('retry').length === length) await rig.clock.advance(100);
    await rig.clock.advance(1000);
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    const now = rig.clock.now();
    await bytesOf(device, 12 * BLOCK, 1);
    await rig.clock.advance(0);
    await device.hydrated;
    expect(rig.clock.now()).toBe(now);
  });

  it('tells that the source is back when a read shows it, also while the rate holds the copy back', async () => {
    const rig = new Rig();
    await rig.partCopied();
    const device = await rig.open({ hydrate: { rateBytesPerSecond: 1 } });
    rig.answer = away();
    await expect(bytesOf(device, 15 * BLOCK, 1)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
    await rig.clock.advance(600_000);
    expect(device.status().state).toBe('waiting');
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    for (let block = 10; block < 13; block++) {
      await bytesOf(device, block * BLOCK, 1);
      await rig.clock.advance(10_000);
    }
    expect(device.status().state).toBe('hydrating');
    expect(rig.told('recovered')).toHaveLength(1);
  });

  it('without a background copy tells at once that a source which retries has answered', async () => {
    const rig = new Rig();
    await rig.partCopied();
    const inner = bytesSource(IMAGE, { identity: 'v1' });
    const source: InlineSource = {
      size: SIZE,
      identity: 'v1',
      onRetry: undefined,
      read: async (into, offset) => {
        source.onRetry?.({ code: 'COD_SOURCE_IO', message: 'reset', attempt: 1, delayMs: 100.5 });
        await rig.clock.sleep(100.5);
        await inner.read(into, offset);
      },
      close: async () => undefined,
    };
    const device = await rig.open({ source, hydrate: false });
    await rig.clock.run(bytesOf(device, 10 * BLOCK, 1));
    expect(rig.told('retry')).toHaveLength(1);
    expect(rig.told('recovered')).toHaveLength(1);
  });

  it('rejects `hydrated` when it is closed, or poisoned, while it waits', async () => {
    for (const end of ['close', 'poison'] as const) {
      const rig = new Rig();
      await rig.partCopied();
      rig.answer = away();
      const device = await rig.open();
      await rig.clock.advance(100_000);
      if (end === 'close') await device.close();
      else {
        await device.write(new Uint8Array(BLOCK), 0);
        rig.fileSystem.failWhen(({ kind }) => kind === 'sync');
        await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
      }
      const code = end === 'close' ? 'COD_CLOSED' : 'COD_POISONED';
      await expect(device.hydrated).rejects.toMatchObject({ code });
      const attempts = rig.opens.length;
      await rig.clock.advance(600_000);
      expect(rig.opens.length).toBe(attempts);
      rig.fileSystem.clearFaults();
    }
  });

  it('closes the sources that the function returned, also one that comes too late', async () => {
    const rig = new Rig();
    const device = await rig.open();
    await device.hydrated;
    expect(rig.closes).toBe(0);
    await device.close();
    expect(rig.closes).toBe(1);
    const late = new Rig();
    await late.partCopied();
    let come: (source: Source) => void = () => undefined;
    const waiting = await late.open({ source: () => new Promise<Source>((resolve) => (come = resolve)) });
    await waiting.close();
    const before = late.closes;
    come(await late.source());
    await immediate();
    expect(late.closes).toBe(before + 1);
  });

  it('without a source waits and asks for nothing', async () => {
    const rig = new Rig();
    await rig.partCopied();
    const device = await rig.open({ source: undefined });
    await rig.clock.advance(600_000);
    expect(rig.told('retry')).toEqual([]);
    expect(device.status().state).toBe('waiting');
    await expect(bytesOf(device, 10 * BLOCK, 1)).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringContaining('opened without its source'),
    });
  });
});

describe('a read that waits for the source', () => {
  /** A read of block 10 of a device whose source has not answered, and the bytes that were written there since. */
  async function overtaken(size: number, patienceMs = 0) {
    const rig = new Rig();
    const source = new ControlledSource(IMAGE.slice(0, size), { streams: false });
    const device = await rig.open({ source, hydrate: false }, { patienceMs });
    const bytes = new Uint8Array(BLOCK);
    const reading = device.read(bytes, 0);
    const answer = await source.next();
    const written = seededRandom(3).fill(new Uint8Array(BLOCK));
    await device.write(written, 0);
    return { rig, device, answer, reading, bytes, written };
  }

  it('reads what was written meanwhile if the source fails, also a patient one', async () => {
    for (const patienceMs of [0, 600_000]) {
      const { answer, reading, bytes, written } = await overtaken(SIZE, patienceMs);
      answer.fail();
      await reading;
      expectBytes(bytes, written);
    }
  });

  it('does not wait for the source once the copy is complete', async () => {
    const { device, reading, bytes, written } = await overtaken(BLOCK);
    await reading;
    expectBytes(bytes, written);
    await device.hydrated;
  });
});

describe('a patient reader', () => {
  const PATIENCE_MS = 600_000;

  async function started(): Promise<{ rig: Rig; device: Device; outcome: Promise<unknown>; bytes: Uint8Array }> {
    const rig = new Rig();
    await rig.partCopied();
    rig.answer = away();
    const device = await rig.open({ hydrate: false }, { patienceMs: PATIENCE_MS });
    const bytes = new Uint8Array(BLOCK);
    const outcome = device.read(bytes, 10 * BLOCK).then(
      () => 'read',
      (error: unknown) => error,
    );
    return { rig, device, outcome, bytes };
  }

  it('waits for a source that is away, and reads when it is back', async () => {
    const { rig, outcome, bytes } = await started();
    await rig.clock.advance(PATIENCE_MS - 6000);
    expect(await Promise.race([outcome, immediate('pending')])).toBe('pending');
    const retries = rig.told('retry');
    expect(retries.slice(0, 2)).toMatchObject([
      { code: 'COD_SOURCE_IO', message: 'the source is not available: no answer', attempt: 1, delayMs: 1000 },
      { attempt: 2, delayMs: 2000 },
    ]);
    expect(retries.at(-1)!.delayMs).toBe(5000);
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    await rig.clock.advance(5000);
    expect(await Promise.race([outcome, immediate('pending')])).toBe('read');
    expect(rig.told('recovered')).toHaveLength(1);
    expectBytes(bytes, IMAGE.slice(10 * BLOCK, 11 * BLOCK));
  });

  it('rejects when its time is over', async () => {
    const { rig, outcome } = await started();
    await rig.clock.advance(PATIENCE_MS);
    expect(await Promise.race([outcome, immediate('pending')])).toMatchObject({ code: 'COD_SOURCE_IO' });
  });

  it('rejects in time when the source is gone, and the next one does not open', async () => {
    const rig = new Rig();
    await rig.partCopied();
    let opens = 0;
    const source = (): Promise<Source> => (opens++ === 0 ? rig.source() : new Promise(() => undefined));
    const device = await rig.open({ source, hydrate: false }, { patienceMs: 20_000 });
    await bytesOf(device, 6 * BLOCK, BLOCK);
    rig.answer = away();
    const outcome = bytesOf(device, 10 * BLOCK, BLOCK).catch((error: unknown) => error);
    await rig.clock.advance(19_999);
    expect(await Promise.race([outcome, immediate('pending')])).toBe('pending');
    await rig.clock.advance(1);
    expect(await Promise.race([outcome, immediate('pending')])).toMatchObject({ code: 'COD_SOURCE_IO' });
    expect(opens).toBe(2);
  });

  it('rejects at once when its signal is aborted, or the device is closed or poisoned', async () => {
    const { rig, device, outcome } = await started();
    const abort = new AbortController();
    const aborted = device.read(new Uint8Array(1), 11 * BLOCK, { signal: abort.signal });
    aborted.catch(() => undefined);
    await rig.clock.advance(60_000);
    abort.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    await device.close();
    expect(await outcome).toMatchObject({ code: 'COD_CLOSED' });
    const other = await started();
    await other.rig.clock.advance(60_000);
    await other.device.write(new Uint8Array(BLOCK), 0);
    other.rig.fileSystem.failWhen(({ kind }) => kind === 'sync');
    await expect(other.device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    expect(await Promise.race([other.outcome, immediate('pending')])).toMatchObject({ code: 'COD_POISONED' });
    other.rig.fileSystem.clearFaults();
  });

  it('does not wait where there is no source', async () => {
    const rig = new Rig();
    await rig.partCopied();
    const device = await rig.open({ source: undefined }, { patienceMs: PATIENCE_MS });
    await expect(bytesOf(device, 10 * BLOCK, 1)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
  });
});

describe('a new copy', () => {
  it('passes on the error of its source, and makes nothing', async () => {
    const rig = new Rig();
    rig.answer = away('COD_NOT_FOUND');
    await expect(rig.open()).rejects.toBe(rig.answer);
    for (const name of ['disk', 'disk.bak', 'disk.wil'])
      await expect(rig.fileSystem.open(name)).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    await (await rig.open()).hydrated;
  });

  it('needs a source', async () => {
    const rig = new Rig();
    await expect(rig.open({ source: undefined })).rejects.toMatchObject({
      code: 'COD_NOT_FOUND',
      details: { target: 'disk', isImage: false },
    });
    await (await rig.fileSystem.open('disk', { create: true })).write(IMAGE, 0);
    await expect(rig.open({ source: undefined })).rejects.toMatchObject({
      code: 'COD_NOT_FOUND',
      message: expect.stringContaining('an ordinary image'),
      details: { target: 'disk', isImage: true },
    });
  });
});

describe('another image', () => {
  it('is not used, and reported when it has proved it for a minute; the old image is taken up again', async () => {
    const rig = new Rig();
    await rig.partCopied();
    rig.answer = { bytes: OTHER, identity: 'v2' };
    const device = await rig.open();
    await rig.clock.advance(59_000);
    expect(rig.told('retry').length).toBeGreaterThan(3);
    expect(rig.told('source-changed')).toEqual([]);
    await rig.clock.advance(600_000);
    expect(rig.told('source-changed')).toEqual([
      {
        type: 'source-changed',
        code: 'COD_SOURCE_CHANGED',
        message: expect.stringContaining('made from v1, but the source is v2'),
      },
    ]);
    expect(device.status()).toMatchObject({ state: 'waiting', sourceBytes: 0 });
    await device.write(new Uint8Array(10), 0);
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    await rig.clock.advance(30_000);
    await device.hydrated;
    expectBytes(await bytesOf(device), IMAGE.slice().fill(0, 0, 10));
  });

  it('that comes and goes within a minute is not reported', async () => {
    const rig = new Rig();
    await rig.partCopied();
    const device = await rig.open({ hydrate: { rateBytesPerSecond: 1 } });
    for (let round = 0; round < 10; round++) {
      rig.answer = { bytes: round % 2 ? OTHER.subarray(1) : OTHER, identity: 'v2' };
      await rig.clock.advance(45_000);
    }
    expect(rig.told('source-changed')).toEqual([]);
    expect(device.status().state).toBe('waiting');
  });

  it('that takes the place of the image in the middle leaves no byte in the copy', async () => {
    const rig = new Rig();
    const device = await rig.open({ hydrate: { concurrency: 1, extentBytes: BLOCK, rateBytesPerSecond: 4 * BLOCK } });
    await rig.clock.advance(1000);
    const { syncedBlocks } = device.status();
    expect(syncedBlocks).toBeGreaterThan(0);
    expect(syncedBlocks).toBeLessThan(20);
    rig.answer = { bytes: OTHER, identity: 'v2' };
    await rig.clock.advance(120_000);
    expect(device.status()).toMatchObject({ state: 'waiting' });
    expect(device.status().syncedBlocks).toBeLessThan(20);
    expect(rig.told('source-changed')).toHaveLength(1);
    await expect(bytesOf(device, 19 * BLOCK, 1)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    await rig.clock.run(device.hydrated);
    expectBytes(await bytesOf(device), IMAGE);
  });

  it('of a source object that keeps saying so is reported after a minute', async () => {
    const rig = new Rig();
    const { read, ...inner } = await rig.source();
    let changed = true;
    const source: Source = {
      ...inner,
      read: async (into, offset) => {
        if (changed) throw new CodError('COD_SOURCE_CHANGED', `changed at ${offset}`);
        await read(into, offset);
      },
    };
    const device = await rig.open({ source });
    await rig.clock.advance(59_000);
    expect(rig.told('source-changed')).toEqual([]);
    await rig.clock.advance(60_000);
    expect(rig.told('source-changed')).toHaveLength(1);
    changed = false;
    await rig.clock.run(device.hydrated);
  });

  it('is accepted with `sameSource`, if it has the same size, and its identity is stored', async () => {
    const rig = new Rig();
    await rig.partCopied();
    const long = `v2 ${'x'.repeat(5000)}`;
    rig.answer = { bytes: IMAGE, identity: long };
    for (const source of [bytesSource(IMAGE.subarray(1), { identity: 'v3' }), rig.source]) {
      const device = await rig.open({ source, sameSource: true });
      if (source === rig.source) await rig.clock.run(device.hydrated);
      else expect(device.status()).toMatchObject({ state: 'waiting', size: SIZE });
      await device.close();
    }
    const again = await rig.open({ source: undefined });
    expect((again as Device & { identity: string }).identity).toBe(long);
    expectBytes(await bytesOf(again), IMAGE);
  });

  it('is not what a file is that was mounted again, with another number of its device', async () => {
    const rig = new Rig();
    for (const identity of ['file:66:12:81920:17', 'file:12:81920:17', 'file:12:81920:17']) {
      rig.answer = { bytes: IMAGE, identity };
      const device = await rig.open({ hydrate: false });
      await bytesOf(device, 3 * BLOCK, 1);
      await device.close();
    }
    rig.answer = { bytes: IMAGE, identity: 'file:13:81920:17' };
    const device = await rig.open({ hydrate: false });
    await expect(bytesOf(device, 9 * BLOCK, 1)).rejects.toMatchObject({ cause: { code: 'COD_SOURCE_CHANGED' } });
  });
});

describe('a full disk', () => {
  it('makes the copy wait, also its last checkpoint, until there is room', async () => {
    for (const part of ['disk', '.bak']) {
      const rig = new Rig();
      const device = await rig.open({ hydrate: { rateBytesPerSecond: SIZE } });
      rig.fileSystem.failWhen(({ kind, name }) => kind === 'write' && name.includes(part), {
        code: 'COD_NO_SPACE',
        stays: true,
      });
      await rig.clock.advance(300_000);
      const retries = rig.told('retry');
      expect(retries.length).toBeGreaterThan(10);
      expect(new Set(retries.map(({ code }) => code))).toEqual(new Set(['COD_NO_SPACE']));
      expect(device.status().state).toBe('waiting');
      rig.fileSystem.clearFaults();
      await rig.clock.advance(30_000);
      await device.hydrated;
      expectBytes(await bytesOf(device), IMAGE);
    }
  });

  it('is left room for writes, if the copy does not fit, and is filled if it does', async () => {
    for (const { free, volume, allocated = 0, fits } of [
      { free: SIZE, volume: MIB, fits: true },
      { free: SIZE - 1, volume: MIB, fits: false },
      { free: 64 * MIB, volume: MIB, fits: true },
      // A target that is allocated needs only what it lacks.
      { free: 0, volume: MIB, allocated: SIZE, fits: true },
      { free: BLOCK, volume: MIB, allocated: SIZE - BLOCK, fits: true },
      { free: BLOCK, volume: MIB, allocated: SIZE - BLOCK - 1, fits: false },
    ]) {
      const rig = new Rig();
      const room = { free };
      Object.assign(rig.fileSystem, {
        freeBytes: async () => room.free,
        volumeBytes: async () => volume,
        allocatedBytes: async () => allocated,
      });
      const device = await rig.open();
      await rig.clock.advance(0);
      if (!fits) {
        expect(rig.told('retry')).toMatchObject([
          { code: 'COD_NO_SPACE', message: expect.stringContaining('67108864') },
        ]);
        expect(device.status()).toMatchObject({ state: 'waiting', syncedBlocks: 0 });
        room.free = SIZE;
        await rig.clock.advance(30_000);
      }
      await device.hydrated;
    }
  });

  it('keeps 64 MiB or 1 % free, whichever is more', async () => {
    const size = 300 * MIB;
    for (const { volume, heldBack } of [
      { volume: 1000 * MIB, heldBack: 64 * MIB },
      { volume: 10_000 * MIB, heldBack: 100 * MIB },
    ]) {
      const rig = new Rig();
      const source: Source = { size, read: async (into) => void into.fill(1), close: async () => undefined };
      let device: Device | undefined;
      const free = (): number => heldBack + 20 * MIB - (device?.status().syncedBlocks ?? 0) * BLOCK;
      Object.assign(rig.fileSystem, { freeBytes: async () => free(), volumeBytes: async () => volume });
      device = await rig.open({ source });
      await nextEvent(device, 'retry');
      expect(free()).toBeGreaterThan(heldBack - 4 * MIB);
      expect(free()).toBeLessThan(heldBack + 4 * MIB);
      await device.close();
    }
  });
});

describe('a pause', () => {
  it('ends the requests in flight, keeps their bytes, and lasts until `resume`', async () => {
    const rig = new Rig();
    const source = new ControlledSource(IMAGE, { pieceBytes: () => BLOCK });
    const device = await rig.open({ source });
    for (let count = 0; count < 3; count++) (await source.next()).release();
    await source.next(({ offset }) => offset === 3 * BLOCK);
    device.pause();
    await rig.clock.advance(60_000);
    expect(source.pending).toEqual([]);
    expect(device.status()).toMatchObject({ state: 'paused', syncedBlocks: 3 });
    expect(rig.told('retry')).toEqual([]);
    expectBytes(await source.serve(bytesOf(device, 9 * BLOCK, 5)), IMAGE.slice(9 * BLOCK, 9 * BLOCK + 5));
    device.resume();
    expect(device.status().state).toBe('hydrating');
    await source.serve(device.hydrated);
    expectBytes(await bytesOf(device), IMAGE);
  });

  it('during a wait for the source ends the attempts until `resume`', async () => {
    const rig = new Rig();
    await rig.partCopied();
    rig.answer = away();
    const device = await rig.open();
    await rig.clock.advance(10_000);
    device.pause();
    await rig.clock.advance(0);
    const attempts = rig.opens.length;
    await rig.clock.advance(600_000);
    expect(rig.opens.length).toBe(attempts);
    rig.answer = { bytes: IMAGE, identity: 'v1' };
    device.resume();
    await rig.clock.advance(0);
    await device.hydrated;
    const states = rig.told('state').map(({ state }) => state);
    expect(states).toEqual(['paused', 'waiting', 'hydrating', 'hydrated']);
  });
});

describe('a source that tries requests again by itself', () => {
  it.each(['object', 'function'] as const)('is heard, and the end of its trouble, too (an %s)', async (how) => {
    const rig = new Rig();
    let retry: ((report: object) => void) | undefined;
    const report = { code: 'COD_SOURCE_IO', message: 'HTTP status 503', attempt: 1, delayMs: 200 };
    const inner = bytesSource(IMAGE);
    const source: Source & { onRetry: typeof retry } = {
      size: SIZE,
      set onRetry(listener: typeof retry) {
        retry = listener;
      },
      read: async (into, offset, options) => {
        retry?.(report);
        await inner.read(into, offset, options);
      },
      close: () => inner.close(),
    };
    const device = await rig.open({ source: how === 'object' ? source : async () => source });
    await device.hydrated;
    await device.close();
    await immediate();
    expect(rig.told('retry')[0]).toEqual({ type: 'retry', ...report });
    expect(rig.told('recovered').length).toBeGreaterThan(0);
    // The device itself did not fail, so it did not wait.
    expect(rig.told('state').map(({ state }) => state)).not.toContain('waiting');
  });
});
