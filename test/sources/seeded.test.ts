/** Copies that take from an older image what has not changed: only the rest is requested, and nothing is believed. */

import { Volume } from 'memfs';
import { expect, onTestFinished, test } from 'vitest';
import {
  bytesSource,
  CodError,
  createManifest,
  httpSource,
  openDevice,
  type Source,
  verifiedSource,
} from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { ControlledSource } from '../support/controlled-source.ts';
import { HostileServer } from '../support/http-server.ts';

const EXTENT = 65_536;
const SIZE = 40 * EXTENT + 999;
/** The older image is shorter. */
const OLD = seededRandom(5).fill(new Uint8Array(37 * EXTENT + 50));
/** Extents that the older image does not have: changed, and new. */
const CHANGED = [3, 4, 17, 38, 39, 40];
/** A long read requests zeros within it, too. A copy knows them, and does not. */
const ASKED = [3, 4, 17, 30, 38, 39, 40];

function newImage(): Uint8Array {
  const image = seededRandom(6).fill(new Uint8Array(SIZE));
  image.set(OLD.subarray(0, 37 * EXTENT));
  for (const extent of [3, 4, 17]) image[extent * EXTENT + 12_345]! ^= 1;
  // Extents that were moved: to another place, twice, and behind the end of the older image.
  image.copyWithin(7 * EXTENT, 8 * EXTENT, 10 * EXTENT);
  image.set(OLD.subarray(20 * EXTENT, 21 * EXTENT), 37 * EXTENT);
  image.fill(0, 30 * EXTENT, 31 * EXTENT);
  return image;
}

const IMAGE = newImage();

async function seedOf(source: Source = bytesSource(OLD)) {
  return { source, manifest: await createManifest(bytesSource(OLD)) };
}

/** The numbers of the extents of which something was requested. */
function extentsOf(asked: readonly (readonly [offset: number, length: number])[]): number[] {
  const extents = new Set<number>();
  for (const [offset, length] of asked)
    for (let at = offset; at < offset + length; at += EXTENT) extents.add(Math.floor(at / EXTENT));
  return [...extents].sort((one, other) => one - other);
}

test('a copy requests only the extents that changed from a server', async () => {
  const server = await HostileServer.start(IMAGE);
  onTestFinished(() => server.stop());
  const manifest = await createManifest(bytesSource(IMAGE));
  const source = verifiedSource(await httpSource(server.url), manifest, { seed: await seedOf() });
  onTestFinished(() => source.close());
  const volume = new Volume();
  const device = await openDevice({ source, fileSystem: memfsFileSystem(volume), target: 'disk' });
  await device.hydrated;
  await device.close();
  expectBytes(new Uint8Array(volume.readFileSync('/disk') as Buffer), IMAGE);
  // The first request opens the source.
  const asked = server.asks.slice(1).map(({ start, end }) => [start, end - start] as const);
  expect(extentsOf(asked)).toEqual(CHANGED);
  expect(asked.reduce((sum, [, length]) => sum + length, 0)).toBe(5 * EXTENT + 999);
});

test.each([{ streams: true }, { streams: false }])('reads and streams return the new image ($streams)', async (how) => {
  const manifest = await createManifest(bytesSource(IMAGE));
  const controlled = new ControlledSource(IMAGE, how);
  const source = verifiedSource(controlled, manifest, { seed: await seedOf() });
  const into = new Uint8Array(SIZE);
  await controlled.serve(source.read(into, 0));
  expectBytes(into, IMAGE);
  expect(extentsOf(controlled.asked())).toEqual(ASKED);
  const random = seededRandom(9);
  for (let round = 0; round < 40; round++) {
    const offset = random.below(SIZE);
    const length = random.below(Math.min(SIZE - offset, 4 * EXTENT)) + 1;
    const part = new Uint8Array(length);
    await controlled.serve(source.read(part, offset));
    expectBytes(part, IMAGE.subarray(offset, offset + length));
    if (source.stream === undefined) continue;
    const pieces: Uint8Array[] = [];
    const streaming = async (): Promise<void> => {
      for await (const piece of source.stream!(offset, length)) pieces.push(piece.slice());
    };
    await controlled.serve(streaming());
    expectBytes(new Uint8Array(Buffer.concat(pieces)), IMAGE.subarray(offset, offset + length));
  }
  expect(extentsOf(controlled.asked())).toEqual(ASKED);
});

test('a seed that changed after it was hashed is found, and the source is asked', async () => {
  const changed = OLD.slice();
  changed[25 * EXTENT + 1]! ^= 1;
  const manifest = await createManifest(bytesSource(IMAGE));
  const controlled = new ControlledSource(IMAGE);
  const source = verifiedSource(controlled, manifest, { seed: await seedOf(bytesSource(changed)) });
  const into = new Uint8Array(SIZE);
  await controlled.serve(source.read(into, 0));
  expectBytes(into, IMAGE);
  expect(extentsOf(controlled.asked())).toEqual([...ASKED, 25].sort((one, other) => one - other));
});

test('a seed that cannot be read is not used any more', async () => {
  let reads = 0;
  const failing: Source = {
    size: OLD.length,
    read: async () => {
      reads++;
      throw new CodError('COD_SOURCE_IO', 'a bad sector');
    },
    close: async () => undefined,
  };
  const manifest = await createManifest(bytesSource(IMAGE));
  const source = verifiedSource(bytesSource(IMAGE), manifest, { seed: await seedOf(failing) });
  const into = new Uint8Array(SIZE);
  await source.read(into.subarray(0, EXTENT), 0);
  expect(reads).toBe(1);
  await source.read(into, 0);
  let at = 0;
  for await (const piece of source.stream!(0, SIZE)) {
    expectBytes(piece, IMAGE.subarray(at, at + piece.length));
    at += piece.length;
  }
  expectBytes(into, IMAGE);
  expect(reads).toBe(1);
});

test('a seed whose manifest has other extents is refused, and closing the source leaves the seed open', async () => {
  const manifest = await createManifest(bytesSource(IMAGE));
  const old = bytesSource(OLD);
  const other = { source: old, manifest: await createManifest(old, { extentBytes: 4096 }) };
  expect(() => verifiedSource(bytesSource(IMAGE), manifest, { seed: other })).toThrow(RangeError);
  const source = verifiedSource(bytesSource(IMAGE), manifest, { seed: await seedOf(old) });
  await source.close();
  await expect(source.read(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_CLOSED' });
  await old.read(new Uint8Array(1), 0);
});
