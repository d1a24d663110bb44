/** Manifests: their bytes (docs/MANIFEST.md), and what a reader refuses. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  bytesSource,
  createManifest,
  type Manifest,
  readManifest,
  type Source,
  type SourceExtent,
} from '../../src/index.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { dumpsIn, undump } from '../log/hex-dump.ts';
import { ControlledSource } from '../support/controlled-source.ts';

const sha256 = (...parts: Uint8Array[]): Buffer =>
  parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();

/** The bytes of a manifest, by a plain reading of the document. */
function plainManifest(image: Uint8Array, extentBytes: number): Buffer {
  const header = Buffer.alloc(32);
  header.write('COD MAN\0', 'latin1');
  header.writeUInt32LE(1, 8);
  header.writeUInt32LE(1, 12);
  header.writeBigUInt64LE(BigInt(image.length), 16);
  header.writeUInt32LE(extentBytes, 24);
  const leaves: Buffer[] = [];
  for (let at = 0; at < image.length; at += extentBytes)
    leaves.push(sha256(Uint8Array.of(0), image.subarray(at, at + extentBytes)));
  let level = leaves;
  while (level.length > 1) {
    const parents: Buffer[] = [];
    for (let at = 0; at < level.length; at += 1024)
      parents.push(sha256(Uint8Array.of(1), ...level.slice(at, at + 1024)));
    level = parents;
  }
  return Buffer.concat([header, sha256(Uint8Array.of(2), header, level[0]!), ...leaves]);
}

function imageOf(size: number): Uint8Array {
  return seededRandom(size).fill(new Uint8Array(size));
}

describe('a manifest has the bytes that the document specifies', () => {
  test.each([
    { size: 1, extentBytes: 65_536 },
    { size: 65_536, extentBytes: 65_536 },
    { size: 65_537, extentBytes: 65_536 },
    { size: 3_000_001, extentBytes: 65_536 },
    { size: 4096 * 1024, extentBytes: 4096 },
    { size: 4096 * 1024 + 1, extentBytes: 4096 },
    { size: 4096 * 2500 - 7, extentBytes: 4096 },
  ])('of $size bytes in extents of $extentBytes', async ({ size, extentBytes }) => {
    const image = imageOf(size);
    const manifest = await createManifest(bytesSource(image), { extentBytes });
    const expected = plainManifest(image, extentBytes);
    expect(Buffer.from(manifest.bytes).equals(expected)).toBe(true);
    expect(manifest).toMatchObject({ size, extentBytes, root: expected.toString('hex', 32, 64) });
    expect(await readManifest(bytesSource(manifest.bytes))).toEqual(manifest);
  });

  test('as its example', async () => {
    const text = readFileSync(new URL('../../docs/MANIFEST.md', import.meta.url), 'utf8');
    const example = undump(dumpsIn(text).get('image.manifest')!);
    const image = new Uint8Array(21_180).fill(0xab, 0, 8192);
    const { bytes } = await createManifest(bytesSource(image), { extentBytes: 16_384 });
    expect(bytes).toEqual(example);
    await expect(readManifest(bytesSource(example), { size: 21_180 })).resolves.toMatchObject({ size: 21_180 });
  });

  test.each([{ streams: true }, { streams: false }])('however the source cuts its pieces ($streams)', async (how) => {
    const image = imageOf(700_001);
    const random = seededRandom(3);
    const source = new ControlledSource(image, { ...how, pieceBytes: () => 1 + random.below(200_000) });
    const manifest = await source.serve(createManifest(source));
    expect(Buffer.from(manifest.bytes).equals(plainManifest(image, 65_536))).toBe(true);
  });
});

test('what the source knows as zeros is not read, except in extents that are zero in part', async () => {
  const size = 20 * 65_536 + 5;
  const image = imageOf(size);
  const zeros = [
    [65_536, 3 * 65_536],
    [5 * 65_536 + 1, 7 * 65_536 - 1],
    [8 * 65_536, 8 * 65_536 + 9],
    [18 * 65_536 + 9, size],
  ] as const;
  for (const [start, end] of zeros) image.fill(0, start, end);
  const extents = (offset: number, length: number): SourceExtent[] => {
    const found: SourceExtent[] = [];
    let at = offset;
    for (const [start, end] of zeros) {
      if (start > at) found.push({ length: start - at, zero: false });
      found.push({ length: end - start, zero: true });
      at = end;
    }
    if (at < offset + length) found.push({ length: offset + length - at, zero: false });
    return found;
  };
  const source = new ControlledSource(image, { extents });
  const manifest = await source.serve(createManifest(source));
  expect(Buffer.from(manifest.bytes).equals(plainManifest(image, 65_536))).toBe(true);
  expect(source.asked()).toEqual([
    [0, 65_536],
    [3 * 65_536, 16 * 65_536],
  ]);
});

describe('a reader refuses', () => {
  const image = imageOf(200_000);
  /** Sets bytes of a valid manifest. */
  const changed = (at: number, ...bytes: number[]): Buffer => {
    const manifest = plainManifest(image, 65_536);
    manifest.set(bytes, at);
    return manifest;
  };
  test.each([
    { name: 'an empty file', bytes: new Uint8Array(0), code: 'COD_CORRUPT' },
    { name: 'half a header', bytes: changed(0).subarray(0, 63), code: 'COD_CORRUPT' },
    { name: 'another magic', bytes: changed(4, 0x42), code: 'COD_CORRUPT' },
    { name: 'a later version', bytes: changed(8, 2), code: 'COD_VERSION' },
    { name: 'another digest', bytes: changed(12, 2), code: 'COD_VERSION' },
    { name: 'an image of 0 bytes', bytes: changed(16, 0, 0, 0), code: 'COD_CORRUPT' },
    { name: 'an image of 2^63 bytes', bytes: changed(23, 0x80), code: 'COD_CORRUPT' },
    { name: 'an image that is larger than its digests', bytes: changed(18, 0xff), code: 'COD_CORRUPT' },
    { name: 'extents of 0 bytes', bytes: changed(24, 0, 0, 0, 0), code: 'COD_CORRUPT' },
    { name: 'extents of 128 KiB', bytes: changed(24, 0, 0, 2, 0), code: 'COD_CORRUPT' },
    { name: 'extents of 65,535 bytes', bytes: changed(24, 0xff, 0xff, 0, 0), code: 'COD_CORRUPT' },
    { name: 'reserved bytes', bytes: changed(31, 1), code: 'COD_CORRUPT' },
    { name: 'another size of the image', bytes: changed(16, 0x41), code: 'COD_CORRUPT' },
    { name: 'a wrong root', bytes: changed(40, 1, 2, 3), code: 'COD_CORRUPT' },
    { name: 'a wrong digest', bytes: changed(64 + 3 * 32 + 30, 1, 2), code: 'COD_CORRUPT' },
    { name: 'a missing digest', bytes: changed(0).subarray(0, 64 + 3 * 32), code: 'COD_CORRUPT' },
    { name: 'a digest too many', bytes: Buffer.concat([changed(0), Buffer.alloc(32)]), code: 'COD_CORRUPT' },
  ])('$name', async ({ bytes, code }) => {
    await expect(readManifest(bytesSource(bytes))).rejects.toMatchObject({ name: 'CodError', code });
  });

  test('a manifest of another size or with another root', async () => {
    const { bytes, root } = await createManifest(bytesSource(image));
    const read = (options: Parameters<typeof readManifest>[1]): Promise<Manifest> =>
      readManifest(bytesSource(bytes), options);
    await expect(read({ size: 200_001 })).rejects.toMatchObject({ code: 'COD_SIZE_MISMATCH' });
    await expect(read({ root: 'ab'.repeat(32) })).rejects.toMatchObject({ code: 'COD_MISMATCH' });
    await expect(read({ size: 200_000, root: root.toUpperCase() })).resolves.toMatchObject({ root });
  });

  test('a huge image without reading more than the header', async () => {
    const header = changed(16, 0, 0, 0, 0, 0, 0, 0x10).subarray(0, 64);
    const reads: number[] = [];
    const source: Source = {
      size: 2 ** 50,
      read: async (into) => {
        reads.push(into.length);
        into.set(header.subarray(0, into.length));
      },
      close: async () => undefined,
    };
    await expect(readManifest(source)).rejects.toMatchObject({ code: 'COD_CORRUPT' });
    await expect(readManifest(source, { size: 4096 })).rejects.toMatchObject({ code: 'COD_SIZE_MISMATCH' });
    expect(reads).toEqual([64, 64]);
  });
});

test.each([0, 4095, 12_288, 131_072, Number.NaN])('extents of %d bytes are no extents', async (extentBytes) => {
  await expect(createManifest(bytesSource(new Uint8Array(1)), { extentBytes })).rejects.toThrow(RangeError);
});

test('an empty image has no manifest', async () => {
  const empty = bytesSource(new Uint8Array(0));
  await expect(createManifest(empty)).rejects.toMatchObject({ code: 'COD_SIZE_MISMATCH' });
});

test('a source that gives too little or too much is refused', async () => {
  const image = imageOf(100_000);
  const short = new ControlledSource(image);
  const creating = createManifest(short);
  (await short.next()).end();
  await expect(creating).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
  const long = new ControlledSource(image);
  const again = createManifest(long);
  const answer = await long.next();
  answer.bytes = new Uint8Array(100_001);
  answer.release();
  await expect(again).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
});

test('its signal ends the call', async () => {
  const ending = new AbortController();
  const source = new ControlledSource(imageOf(100_000));
  const creating = createManifest(source, { signal: ending.signal });
  await source.next();
  ending.abort(new Error('enough'));
  await expect(creating).rejects.toThrow('enough');
});
