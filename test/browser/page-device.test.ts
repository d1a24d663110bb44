/** A device in a page: its worker does the work, and may be terminated at any moment. */

import { afterEach, describe, expect, inject, test } from 'vitest';
import {
  type BrowserDevice,
  CodError,
  copyAsFile,
  type DeviceEvent,
  inspectSource,
  isCodError,
  type OpenBrowserDeviceOptions,
  openDevice,
  removeCopy,
} from '../../src/browser.ts';
import { blobOf, readable } from '../../src/streams.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { IMAGE_BYTES, imageBytes } from './image.ts';
import { qcow2Disk, qcow2Image } from './qcow2-image.ts';
import { bundledWorker } from './workers.ts';

const BLOCK = 4096;
const image = imageBytes();
const blob = new Blob([image]);
const opened: BrowserDevice[] = [];
const workers: Worker[] = [];

function startWorker(): Worker {
  const worker = bundledWorker('browser-worker');
  workers.push(worker);
  return worker;
}

let count = 0;
const newTarget = (): string => `disk-${Date.now()}-${count++}`;

async function open(options: Partial<OpenBrowserDeviceOptions> = {}): Promise<BrowserDevice> {
  const device = await openDevice({
    source: blob,
    target: newTarget(),
    hydrate: false,
    worker: startWorker,
    ...options,
  });
  opened.push(device);
  return device;
}

afterEach(async () => {
  for (const device of opened.splice(0)) await device.close().catch(() => undefined);
  workers.length = 0;
});

async function bytesAt(device: BrowserDevice, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await device.read(bytes, offset);
  return bytes;
}

function expectBytes(found: Uint8Array, expected: Uint8Array): void {
  expect(found.length).toBe(expected.length);
  expect(found.findIndex((byte, index) => byte !== expected[index])).toBe(-1);
}

/** Reads events until `isLast` matches one, which is the last of the result. */
async function eventsUntil(
  events: AsyncIterable<DeviceEvent>,
  isLast: (event: DeviceEvent) => boolean,
): Promise<DeviceEvent[]> {
  const found: DeviceEvent[] = [];
  const iterator = events[Symbol.asyncIterator]();
  for (;;) {
    const { done, value } = await iterator.next();
    if (done) throw new Error(`the events ended after ${JSON.stringify(found)}`);
    found.push(value);
    if (isLast(value)) return found;
  }
}

const isState =
  (state: string) =>
  (event: DeviceEvent): boolean =>
    event.type === 'state' && event.state === state;
const isCheckpoint = ({ type }: DeviceEvent): boolean => type === 'checkpoint';
const never = (): boolean => false;

let checkpoints = 0;

/** Takes a checkpoint that has new data to make durable. */
async function changeAndCheckpoint(device: BrowserDevice): Promise<void> {
  await device.write(random(10, ++checkpoints), 0);
  await device.checkpoint();
}

const random = (length: number, seed: number): Uint8Array => seededRandom(seed).fill(new Uint8Array(length));

describe('the interface is that of a device', () => {
  test('reads the source, and keeps writes, also after a new open', async () => {
    const target = newTarget();
    const device = await open({ target, directory: 'some/folder' });
    expect([device.size, device.blockSize, device.role]).toEqual([IMAGE_BYTES, BLOCK, 'owner']);
    const model = image.slice();
    const write = async (offset: number, bytes: Uint8Array, options?: { fua?: boolean }) => {
      const given = bytes.slice();
      await device.write(given, offset, options);
      expectBytes(given, bytes);
      model.set(bytes, offset);
    };
    await write(10, random(100, 1));
    await write(BLOCK - 1, random(3 * BLOCK, 2), { fua: true });
    await write(IMAGE_BYTES - 1, random(1, 3));
    await device.writeZeroes(50_000, 5000);
    model.fill(0, 50_000, 55_000);
    await device.discard(100_000, 3 * BLOCK);
    model.fill(0, 25 * BLOCK, 27 * BLOCK);
    expectBytes(await bytesAt(device, 0, IMAGE_BYTES), model);
    expectBytes(await bytesAt(device, 777, 12_345), model.subarray(777, 777 + 12_345));
    await device.flush();
    await device.checkpoint();
    await device.close();
    const again = await open({ target, directory: '/some/folder/' });
    expectBytes(await bytesAt(again, 0, IMAGE_BYTES), model);
  });

  test('is read as a byte stream and like a Blob', async () => {
    const device = await open();
    const body = await new Response(readable(device, { start: 7 })).arrayBuffer();
    expectBytes(new Uint8Array(body), image.subarray(7));
    const reader = readable(device, { end: 50_000 }).getReader({ mode: 'byob' });
    const { value } = await reader.read(new Uint8Array(BLOCK));
    expectBytes(value!, image.subarray(0, BLOCK));
    await reader.cancel();
    expectBytes(await blobOf(device).slice(-BLOCK).bytes(), image.subarray(-BLOCK));
  });

  test('takes a snapshot, which opens as another copy', async () => {
    const target = newTarget();
    const device = await open({ target, hydrate: false });
    const model = image.slice();
    model.set(random(BLOCK, 1), 3 * BLOCK);
    await device.write(model.slice(3 * BLOCK, 4 * BLOCK), 3 * BLOCK);
    await device.snapshot(`${target}.copy`);
    await device.write(random(BLOCK, 2), 3 * BLOCK);
    await expect(device.snapshot(`${target}.copy`)).rejects.toMatchObject({ code: 'COD_EXISTS' });
    await expect(device.snapshot('')).rejects.toThrow(TypeError);
    await device.close();
    const snapshot = await open({ target: `${target}.copy`, hydrate: false });
    expectBytes(await bytesAt(snapshot, 0, IMAGE_BYTES), model);
    await snapshot.close();
  });

  test('answers each of many concurrent requests with its own bytes', async () => {
    const device = await open();
    const reads = Array.from({ length: 200 }, async (_, index) =>
      expectBytes(await bytesAt(device, index * 1000, 999), image.subarray(index * 1000, index * 1000 + 999)),
    );
    await Promise.all(reads);
  });

  test('completes requests larger than the maximum of a message', async () => {
    const large = new Blob([image, image, image, image, image, image, image]);
    const device = await open({ source: large });
    const bytes = random(18 * 2 ** 20, 9);
    await device.write(bytes, 1);
    const found = await bytesAt(device, 0, bytes.length + 2);
    expectBytes(found.subarray(1, -1), bytes);
    expect([found[0], found.at(-1)]).toEqual([image[0], image[(bytes.length + 1) % IMAGE_BYTES]]);
  });

  test('hydrated and status report a complete copy, and finish leaves a plain file', async () => {
    const target = newTarget();
    const device = await open({ target, hydrate: {} });
    await device.hydrated;
    const { state, syncedBlocks, totalBlocks } = await device.refreshStatus();
    expect([state, syncedBlocks]).toEqual(['hydrated', totalBlocks]);
    expect(device.status().syncedBlocks).toBe(totalBlocks);
    const parts = await device.countSynced(10);
    expect(parts.reduce((sum, blocks) => sum + blocks)).toBe(totalBlocks);
    await device.finish();
    expect(device.status().state).toBe('closed');
    const root = await navigator.storage.getDirectory();
    const names: string[] = [];
    for await (const name of (root as unknown as { keys(): AsyncIterable<string> }).keys())
      if (name.startsWith(target)) names.push(name);
    expect(names).toEqual([target]);
    expectBytes(new Uint8Array(await (await (await root.getFileHandle(target)).getFile()).arrayBuffer()), image);
  });

  test('counts the synced blocks of equal parts', async () => {
    const device = await open();
    await device.write(random(3 * BLOCK, 1), 2 * BLOCK);
    await device.write(random(BLOCK, 1), 100 * BLOCK);
    expect([...(await device.countSynced(4, { start: 0, end: 8 }))]).toEqual([0, 2, 1, 0]);
    expect([...(await device.countSynced(3, { start: 99, end: 102 }))]).toEqual([0, 1, 0]);
    expect([...(await device.countSynced(5, { start: 100, end: 101 }))]).toEqual([0, 0, 0, 0, 1]);
    await expect(device.countSynced(0)).rejects.toBeInstanceOf(RangeError);
  });

  test('counts the partly written blocks of equal parts', async () => {
    const device = await open();
    await device.write(random(10, 1), 2 * BLOCK + 5);
    await device.write(random(10, 1), 3 * BLOCK);
    await device.write(random(10, 1), 100 * BLOCK);
    expect([...(await device.countDirty(4, { start: 0, end: 8 }))]).toEqual([0, 2, 0, 0]);
    expect([...(await device.countDirty(3, { start: 99, end: 102 }))]).toEqual([0, 1, 0]);
    expect([...(await device.countDirty(5, { start: 100, end: 101 }))]).toEqual([0, 0, 0, 0, 1]);
  });

  test('hydrateRange fetches exactly the blocks of a range', async () => {
    const device = await open();
    await device.hydrateRange(5 * BLOCK + 1, 3 * BLOCK);
    // The blocks may be stored after their bytes have arrived.
    await expect
      .poll(async () => [...(await device.countSynced(12, { start: 0, end: 12 }))])
      .toEqual([0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0]);
    await device.hydrateRange(0, 0);
    await expect(device.hydrateRange(0, IMAGE_BYTES + 1)).rejects.toBeInstanceOf(RangeError);
  });

  test('extents returns the states of a range, at most `limit` of them', async () => {
    const device = await open();
    await device.write(random(2 * BLOCK, 1), 2 * BLOCK);
    await device.write(random(10, 1), 6 * BLOCK + 5);
    const expected = [
      { length: BLOCK, state: 'unsynced', zero: false },
      { length: 2 * BLOCK, state: 'synced', zero: false },
      { length: 2 * BLOCK, state: 'unsynced', zero: false },
      { length: 7, state: 'dirty', zero: false },
    ];
    const [offset, length] = [BLOCK, 5 * BLOCK + 7];
    expect(await device.extents(offset, length, 100)).toEqual(expected);
    expect(await device.extents(offset, length, 2)).toEqual(expected.slice(0, 2));
    await expect(device.extents(IMAGE_BYTES, 1, 1)).rejects.toBeInstanceOf(RangeError);
  });

  test('a copy is a file while it is open, and can be removed once it is closed', async () => {
    const target = newTarget();
    const device = await open({ target });
    await device.write(random(2 * BLOCK, 1), 0);
    const file = await copyAsFile({ target });
    expect(file.size).toBe(image.length);
    expectBytes(new Uint8Array(await file.slice(0, 2 * BLOCK).arrayBuffer()), random(2 * BLOCK, 1));
    await expect(removeCopy({ target })).rejects.toMatchObject({ code: 'COD_LOCKED' });
    await device.close();
    await removeCopy({ target });
    await removeCopy({ target });
    await expect(copyAsFile({ target })).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
    const again = await open({ target });
    expect(again.status().syncedBlocks).toBe(0);
  });

  test('a source has its size before it is copied', async () => {
    expect(await inspectSource(new Blob([new Uint8Array(700)]), { worker: startWorker })).toEqual({
      size: 700,
      identity: undefined,
    });
    await expect(inspectSource('/missing.raw', { worker: startWorker })).rejects.toMatchObject({
      code: 'COD_NOT_FOUND',
    });
  });

  describe('a qcow2 image', () => {
    const packed = new Blob([qcow2Image()]);
    const disk = qcow2Disk();

    test('is copied as its disk, with the disk’s size', async () => {
      expect(await inspectSource(packed, { worker: startWorker })).toEqual({ size: disk.length, identity: undefined });
      const device = await open({ source: packed, hydrate: {} });
      await device.hydrated;
      expectBytes(await bytesAt(device, 0, disk.length), disk);
    });

    test('is copied as it is if the caller says so', async () => {
      const raw = { format: 'raw', worker: startWorker } as const;
      expect((await inspectSource(packed, raw)).size).toBe(packed.size);
      const device = await open({ source: packed, format: 'raw' });
      expectBytes(await bytesAt(device, 0, 8), qcow2Image().subarray(0, 8));
    });

    test('is required by its format', async () => {
      const options = { format: 'qcow2', worker: startWorker } as const;
      await expect(inspectSource(blob, options)).rejects.toMatchObject({ code: 'COD_UNSUPPORTED' });
      await expect(open({ format: 'qcow2' })).rejects.toMatchObject({ code: 'COD_UNSUPPORTED' });
    });
  });

  test('a container that is not read is refused before anything is copied', async () => {
    const source = new Blob(['conectix', new Uint8Array(BLOCK)]);
    const refused = { code: 'COD_UNSUPPORTED', message: expect.stringContaining('qemu-img convert -f vpc') };
    await expect(inspectSource(source, { worker: startWorker })).rejects.toMatchObject(refused);
    const target = newTarget();
    await expect(open({ source, target })).rejects.toMatchObject(refused);
    await expect(copyAsFile({ target })).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
  });

  test('a rate limit delays the background copy until it is removed', async () => {
    const device = await open({ hydrate: { rateBytesPerSecond: 1000 } });
    expect((await device.refreshStatus()).rateBytesPerSecond).toBe(1000);
    expect(() => device.setRate(0)).toThrow(RangeError);
    device.setRate(undefined);
    await device.hydrated;
    expect((await device.refreshStatus()).rateBytesPerSecond).toBeUndefined();
  });

  test('after close every call and hydrated reject with COD_CLOSED', async () => {
    const device = await open({ hydrate: { rateBytesPerSecond: 1000 } });
    await Promise.all([device.close(), device.close()]);
    await device.close();
    expect(device.status().state).toBe('closed');
    const closed = { code: 'COD_CLOSED' };
    await expect(device.hydrated).rejects.toMatchObject(closed);
    await expect(device.read(new Uint8Array(1), 0)).rejects.toMatchObject(closed);
    await expect(device.write(new Uint8Array(1), 0)).rejects.toMatchObject(closed);
    await expect(device.flush()).rejects.toMatchObject(closed);
    await expect(device.refreshStatus()).rejects.toMatchObject(closed);
  });
});

describe('events', () => {
  test('report each state, equal to the status, and end with the device', async () => {
    const device = await open({ hydrate: { rateBytesPerSecond: 1000 } });
    const events = device.events();
    device.setRate(undefined);
    await eventsUntil(events, isState('hydrated'));
    expect(device.status()).toMatchObject({ state: 'hydrated', syncedBlocks: device.status().totalBlocks });
    const rest = eventsUntil(events, isState('closed'));
    await device.close();
    expect((await rest).filter(({ type }) => type === 'state').length).toBe(1);
    await expect(eventsUntil(events, never)).rejects.toThrow('the events ended after []');
    await expect(eventsUntil(device.events(), never)).rejects.toThrow('the events ended after []');
  });

  test('report each checkpoint and its size', async () => {
    const device = await open();
    const events = device.events();
    await changeAndCheckpoint(device);
    const checkpoint = (await eventsUntil(events, isCheckpoint)).at(-1)!;
    expect(checkpoint.type === 'checkpoint' && checkpoint.bytes).toBeGreaterThan(0);
  });

  test('end when their signal is aborted, only for that consumer', async () => {
    const device = await open();
    const controller = new AbortController();
    const [aborted, other] = [device.events({ signal: controller.signal }), device.events()];
    const ended = eventsUntil(aborted, never);
    controller.abort();
    await expect(ended).rejects.toThrow('the events ended');
    await changeAndCheckpoint(device);
    await eventsUntil(other, isCheckpoint);
  });

  test('missed by a slow consumer are counted, and delay neither the device nor other consumers', async () => {
    const device = await open();
    const [slow, fast] = [device.events(), device.events()];
    let fastCount = 0;
    const all = eventsUntil(fast, () => ++fastCount === 300);
    for (let count = 0; count < 300; count++) await changeAndCheckpoint(device);
    expect((await all).filter(({ type }) => type === 'lost')).toEqual([]);
    const read = await eventsUntil(slow, ({ type }) => type === 'lost');
    expect(read.length).toBe(257);
    expect(read.at(-1)).toMatchObject({ type: 'lost', count: expect.any(Number) });
    await changeAndCheckpoint(device);
    await eventsUntil(slow, isCheckpoint);
  });
});

describe('errors keep class and code', () => {
  test('of the device', async () => {
    const device = await open();
    const error = await device.finish().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(CodError);
    const { syncedBlocks, totalBlocks } = await device.refreshStatus();
    expect(isCodError(error, 'COD_INCOMPLETE') && error.details).toEqual({ syncedBlocks, totalBlocks });
    await device.write(random(10, 1), 0);
  });

  test('of wrong arguments', async () => {
    await expect(open({ target: '' })).rejects.toBeInstanceOf(TypeError);
    await expect(open({ target: 'a/b' })).rejects.toBeInstanceOf(TypeError);
    await expect(open({ source: {} as Blob })).rejects.toBeInstanceOf(TypeError);
    await expect(open({ blockSize: 5 })).rejects.toBeInstanceOf(RangeError);
    const device = await open();
    await expect(device.read(new Uint8Array(2), IMAGE_BYTES - 1)).rejects.toBeInstanceOf(RangeError);
    await expect(device.write(new Uint8Array(1), -1)).rejects.toBeInstanceOf(RangeError);
    await expect(device.discard(0, IMAGE_BYTES + 1)).rejects.toBeInstanceOf(RangeError);
    await device.read(new Uint8Array(0), IMAGE_BYTES);
  });

  test('of the folder', async () => {
    const name = newTarget();
    await (await navigator.storage.getDirectory()).getFileHandle(name, { create: true });
    await expect(open({ directory: `${name}/below` })).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
    await expect(open({ directory: 'a/../b' })).rejects.toBeInstanceOf(TypeError);
  });

  test('a worker that cannot be loaded is COD_UNSUPPORTED, and named', async () => {
    const worker = () => new Worker(new URL('/nowhere.js', location.href), { type: 'module' });
    await expect(open({ worker })).rejects.toMatchObject({
      code: 'COD_UNSUPPORTED',
      message: expect.stringContaining('/nowhere.js'),
    });
  });

  test('rejects the open of an image without room with COD_NO_SPACE', async () => {
    // A Blob of Blobs needs no memory: 16 TiB.
    let huge = new Blob([new Uint8Array(2 ** 24)]);
    while (huge.size < 2 ** 43) huge = new Blob([huge, huge]);
    await expect(open({ source: huge })).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
  });
});

describe('a source on another origin', () => {
  const url = (path: string): string => new URL(path, inject('serverUrl')).href;

  test('is copied, with headers if required', async () => {
    const device = await open({ source: url('/image'), hydrate: {} });
    await device.hydrated;
    expectBytes(await bytesAt(device, 0, IMAGE_BYTES), image);
    const second = await open({ source: { url: new URL(url('/credentials')), headers: { 'x-key': 'secret' } } });
    expectBytes(await bytesAt(second, 5, 1000), image.subarray(5, 1005));
  });

  test('without CORS is COD_SOURCE_IO, and the error names the missing header', async () => {
    const refused = {
      code: 'COD_SOURCE_IO',
      message: expect.stringContaining(`"Access-Control-Allow-Origin: ${location.origin}"`),
    };
    await expect(open({ source: url('/no-cors') })).rejects.toMatchObject(refused);
    await expect(open({ source: { url: url('/image'), headers: { 'x-other': 'y' } } })).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringContaining('"Access-Control-Allow-Headers: x-other"'),
    });
    await expect(open({ source: url('/hidden') })).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringContaining('"Access-Control-Expose-Headers: Content-Range, ETag"'),
    });
  });

  test('an aborted read rejects immediately with the reason, and the device still works', async () => {
    const device = await open({ source: url('/stuck') });
    const controller = new AbortController();
    const read = device.read(new Uint8Array(10), 2 * BLOCK, { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('enough')), 50);
    await expect(read).rejects.toThrow('enough');
    await expect(
      device.read(new Uint8Array(10), 0, { signal: AbortSignal.abort(new Error('before')) }),
    ).rejects.toThrow('before');
    await device.write(new Uint8Array(BLOCK), 0);
  });

  test('an aborted hydrateRange rejects immediately with the reason', async () => {
    const device = await open({ source: url('/stuck') });
    const controller = new AbortController();
    const hydrating = device.hydrateRange(2 * BLOCK, BLOCK, { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('enough')), 50);
    await expect(hydrating).rejects.toThrow('enough');
  });

  test('an aborted open rejects with the reason', async () => {
    const controller = new AbortController();
    const opening = open({ source: url('/slow'), signal: controller.signal });
    setTimeout(() => controller.abort(new Error('enough')), 20);
    await expect(opening).rejects.toThrow('enough');
    await expect(open({ signal: AbortSignal.abort(new Error('before')) })).rejects.toThrow('before');
  });
});

describe('a worker that is terminated', () => {
  test('is replaced: no acknowledged write is lost, and pending calls are answered', async () => {
    const device = await open();
    const model = image.slice();
    for (let round = 0; round < 5; round++) {
      const bytes = random(5000, round);
      await device.write(bytes, round * 7000);
      model.set(bytes, round * 7000);
      const later = random(3000, 100 + round);
      const pending = [device.write(later, 100_000 + round * 5000), device.read(new Uint8Array(9), 0), device.flush()];
      model.set(later, 100_000 + round * 5000);
      workers.at(-1)!.terminate();
      await Promise.all(pending);
      expectBytes(await bytesAt(device, 0, 200_000), model.subarray(0, 200_000));
    }
    expect(workers.length).toBe(6);
  });

  test.each(['before', 'after'])(
    '%s close is called, is replaced for the close, so that no write is lost',
    async (moment) => {
      const target = newTarget();
      const device = await open({ target });
      await device.write(random(100, 1), 7);
      if (moment === 'before') workers.at(-1)!.terminate();
      const closing = device.close();
      if (moment === 'after') workers.at(-1)!.terminate();
      await closing;
      const again = await open({ target });
      expectBytes(await bytesAt(again, 7, 100), random(100, 1));
    },
  );

  test('is replaced, and events continue without a repeated state', async () => {
    const device = await open();
    const events = device.events();
    workers.at(-1)!.terminate();
    await changeAndCheckpoint(device);
    expect((await eventsUntil(events, isCheckpoint)).map(({ type }) => type)).toEqual(['checkpoint']);
  });

  test('while a guest closes, loses no write of the guest', async () => {
    const target = newTarget();
    const owner = await open({ target });
    const guest = await open({ target });
    await guest.write(random(100, 1), 7);
    workers[0]!.terminate();
    await Promise.all([guest.close(), owner.close()]);
    const again = await open({ target });
    expectBytes(await bytesAt(again, 7, 100), random(100, 1));
  });

  test('does not restart the background copy from the beginning', async () => {
    const device = await open({ hydrate: { rateBytesPerSecond: 2 ** 20 } });
    await device.write(random(10_000, 5), 3000);
    workers.at(-1)!.terminate();
    expect((await device.refreshStatus()).syncedBlocks).toBeGreaterThan(0);
    device.setRate(undefined);
    await device.hydrated;
    const model = image.slice();
    model.set(random(10_000, 5), 3000);
    expectBytes(await bytesAt(device, 0, IMAGE_BYTES), model);
  });
});

describe('two devices on one target', () => {
  test('the second uses the device of the first, and takes over when the first is closed', async () => {
    const target = newTarget();
    const first = await open({ target });
    const second = await open({ target });
    expect([first.role, second.role]).toEqual(['owner', 'guest']);
    expect(second.owner).toEqual(first.owner);
    await first.write(random(5000, 1), 100);
    expectBytes(await bytesAt(second, 100, 5000), random(5000, 1));
    await second.write(random(5000, 2), 200_000);
    expectBytes(await bytesAt(first, 200_000, 5000), random(5000, 2));
    await expect(second.read(new Uint8Array(1), IMAGE_BYTES)).rejects.toBeInstanceOf(RangeError);

    const changed = new Promise<void>((resolve) => (second.onRoleChange = resolve));
    await first.close();
    const found = await bytesAt(second, 200_000, 5000);
    await changed;
    expect(second.role).toBe('owner');
    expectBytes(found, random(5000, 2));
    expectBytes(await bytesAt(second, 100, 5000), random(5000, 1));
  });

  test('both see the same extents, and hydrateRange of one serves both', async () => {
    const target = newTarget();
    const [owner, guest] = [await open({ target }), await open({ target })];
    await guest.hydrateRange(0, 2 * BLOCK);
    await expect.poll(async () => (await owner.countSynced(1))[0]).toBe(2);
    await owner.write(random(10, 1), 2 * BLOCK);
    const extents = await guest.extents(0, 4 * BLOCK, 10);
    expect(extents.map(({ state, length }) => [state, length / BLOCK])).toEqual([
      ['synced', 2],
      ['dirty', 1],
      ['unsynced', 1],
    ]);
    expect(await owner.extents(0, 4 * BLOCK, 10)).toEqual(extents);
  });

  test('both get the events that either causes', async () => {
    const target = newTarget();
    const hydrate = { rateBytesPerSecond: 1000 };
    const [owner, guest] = [await open({ target, hydrate }), await open({ target, hydrate })];
    const events = [owner.events(), guest.events()];
    for (const device of [guest, owner]) {
      await changeAndCheckpoint(device);
      for (const each of events) await eventsUntil(each, isCheckpoint);
    }
    guest.setRate(undefined);
    await Promise.all(events.map((each) => eventsUntil(each, isState('hydrated'))));
    await guest.finish();
    for (const each of events) {
      await eventsUntil(each, isState('closed'));
      await expect(eventsUntil(each, never)).rejects.toThrow('the events ended after []');
    }
  });

  test('the second continues with the events of its own device when the first is closed', async () => {
    const target = newTarget();
    const [owner, guest] = [await open({ target }), await open({ target, hydrate: {} })];
    const [ownersEvents, guestsEvents] = [owner.events(), guest.events()];
    await owner.close();
    const events = await eventsUntil(guestsEvents, isState('hydrated'));
    // The first did not copy in the background, the second does, once its source is open.
    expect(events.filter((event) => event.type === 'state' && event.state !== 'waiting')).toEqual([
      { type: 'state', state: 'hydrating' },
      { type: 'state', state: 'hydrated' },
    ]);
    await eventsUntil(ownersEvents, isState('closed'));
  });

  test('the other device takes over from a terminated worker, with every acknowledged write', async () => {
    const target = newTarget();
    await open({ target });
    const devices = [opened[0]!, await open({ target }), await open({ target })];
    await Promise.all(devices.map((device, index) => device.write(random(3000, index), index * 10_000)));
    const pending = devices.map((device, index) => device.write(random(3000, 10 + index), 50_000 + index * 10_000));
    workers[0]!.terminate();
    await Promise.all(pending);
    for (const device of devices) {
      for (const index of [0, 1, 2]) {
        expectBytes(await bytesAt(device, index * 10_000, 3000), random(3000, index));
        expectBytes(await bytesAt(device, 50_000 + index * 10_000, 3000), random(3000, 10 + index));
      }
    }
    expect(devices.filter(({ role }) => role === 'owner').length).toBe(1);
  });

  test('the second is refused if it demands exclusive use, and the error names the owner', async () => {
    const target = newTarget();
    const first = await open({ target });
    await expect(open({ target, tabs: 'refuse' })).rejects.toMatchObject({
      code: 'COD_LOCKED',
      details: { ...first.owner },
    });
    await first.close();
    expect((await open({ target, tabs: 'refuse' })).role).toBe('owner');
  });

  test('the second is refused if it has another source', async () => {
    const target = newTarget();
    await open({ target });
    await expect(open({ target, source: new Blob(['x']) })).rejects.toMatchObject({ code: 'COD_SIZE_MISMATCH' });
    const named = new File([image], 'image.raw', { lastModified: 1 });
    await expect(open({ target, source: named })).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
  });

  test('both learn that the copy is complete, and finish closes both', async () => {
    const target = newTarget();
    const first = await open({ target, hydrate: {} });
    const second = await open({ target });
    await Promise.all([first.hydrated, second.hydrated]);
    await second.finish();
    await expect(second.flush()).rejects.toMatchObject({ code: 'COD_CLOSED' });
    await expect(first.flush()).rejects.toMatchObject({ code: 'COD_CLOSED' });
  });
});
