/** The page's reader of exFAT, against images that exfatprogs and exfat-fuse wrote, and against planted damage. */

import { expect, test } from 'vitest';
import { readPart, type Volume } from '../../src/web/volumes/volume.ts';
import { contentsAt, factsOf, imageOf, piecesAt, readAll, volumeOf } from '../support/volume-fixtures.ts';
import { arrayBytes, find, visitDamaged } from '../support/volumes.ts';

const original = imageOf('exfat');
const view = new DataView(original.buffer);
const sectorBytes = 2 ** original[108]!;
const fatAt = view.getUint32(80, true) * sectorBytes;
const heapAt = view.getUint32(88, true) * sectorBytes;
const clusterBytes = sectorBytes * 2 ** original[109]!;
const clusterAt = (cluster: number): number => heapAt + (cluster - 2) * clusterBytes;
const rootCluster = view.getUint32(96, true);

/** Opens a copy of the image that `change` has edited. */
function changed(change: (bytes: Uint8Array, view: DataView) => void): Promise<Volume> {
  const bytes = original.slice();
  change(bytes, new DataView(bytes.buffer));
  return volumeOf(arrayBytes(bytes));
}

/** Offset of the set of entries whose name begins with `name`. */
function setOf(name: string): number {
  const units = Buffer.from(name.slice(0, 15), 'utf16le');
  const at = Buffer.from(original.buffer).indexOf(Buffer.concat([Buffer.of(0xc1, 0), units]));
  expect(at).toBeGreaterThan(0);
  return at - 64;
}

/** Renews the checksum of the set at `at`. */
function seal(bytes: Uint8Array, at: number): void {
  let sum = 0;
  for (let index = 0; index < (bytes[at + 1]! + 1) * 32; index++)
    if (index !== 2 && index !== 3) sum = (((sum & 1) << 15) + (sum >> 1) + bytes[at + index]!) & 0xffff;
  new DataView(bytes.buffer).setUint16(at + 2, sum, true);
}

test.each(['exfat', 'exfat-large-clusters'])('reads each file of %s as the program that wrote it', async (name) => {
  const volume = await volumeOf(arrayBytes(imageOf(name)));
  expect([volume.kind, volume.remark]).toEqual(['exFAT', undefined]);
  expect(await readAll(volume)).toEqual(factsOf(name));
});

test('reads the label, chains of clusters, and contiguous files', async () => {
  const volume = await volumeOf(arrayBytes(original));
  expect(volume.label).toBe('PEBBLES ü');
  expect((await piecesAt(volume, 'first in pieces')).pieces).toBeGreaterThan(90);
  expect(original[setOf('note.md') + 33]).toBe(3);
  expect(await piecesAt(volume, 'docs/deeper/note.md')).toEqual({ pieces: 1, holeBytes: 0 });
});

test('reads bytes that were never written as zeros', async () => {
  const at = setOf('note.md');
  const volume = await changed((bytes, view) => {
    view.setBigUint64(at + 40, 1000n, true);
    seal(bytes, at);
  });
  const expected = await contentsAt(await volumeOf(arrayBytes(original)), 'docs/deeper/note.md');
  expect(await contentsAt(volume, 'docs/deeper/note.md')).toEqual(expected.fill(0, 1000));
  expect(await piecesAt(volume, 'docs/deeper/note.md')).toEqual({ pieces: 1, holeBytes: expected.length - 1000 });
});

test('converts times with an offset from UTC', async () => {
  const at = setOf('licence.txt');
  for (const [quarters, hours] of [
    [8, 2],
    [-22, -5.5],
  ] as const) {
    const volume = await changed((bytes) => {
      bytes[at + 23] = 0x80 | (quarters & 0x7f);
      bytes[at + 21] = 199;
      seal(bytes, at);
    });
    const { modifiedMs } = await find(volume, 'licence.txt');
    expect(modifiedMs).toBe(Date.UTC(2024, 1, 29, 12, 34, 57, 990) - hours * 3_600_000);
  }
});

test('leaves out an entry whose checksum is wrong, and says so', async () => {
  const volume = await changed((bytes) => {
    bytes[setOf('licence.txt') + 70]! ^= 1;
  });
  const { entries, remark } = await volume.list(volume.root);
  const names = factsOf('exfat').filter(({ path }) => !path.includes('/') && path !== 'licence.txt');
  expect(entries.length).toBe(names.length);
  expect(remark).toBe('left out: 1 damaged entry');
});

test('says that a volume is dirty, or that its boot sectors are damaged', async () => {
  expect((await changed((bytes) => (bytes[106]! |= 2))).remark).toMatch(/not unmounted/);
  expect((await changed((bytes) => (bytes[100]! ^= 1))).remark).toMatch(/checksum/);
  await expect(changed((bytes) => (bytes[109] = 30))).rejects.toThrow(/boot sector .* damaged/);
});

test('refuses chains and sizes that leave the volume', async () => {
  const first = setOf('first in pieces');
  const chain = fatAt + view.getUint32(first + 52, true) * 4;
  for (const [next, message] of [
    [0xffffffff, /ends after 512 of its 100001 bytes/],
    [0, /has cluster 0, beyond/],
    [0xfffffff7, /beyond the volume/],
    [1_000_000, /beyond the volume/],
  ] as const) {
    const volume = await changed((_, view) => view.setUint32(chain, next, true));
    await expect(contentsAt(volume, 'first in pieces')).rejects.toThrow(message);
  }
  const huge = await changed((bytes, view) => {
    view.setBigUint64(first + 56, 2n ** 40n, true);
    seal(bytes, first);
  });
  const file = await huge.look(await find(huge, 'first in pieces'));
  await expect(readPart(huge, file, { from: 0, to: 10 })).rejects.toThrow(/more than its volume/);
  const beyond = await changed((bytes, view) => {
    view.setBigUint64(first + 56, 2n ** 60n, true);
    seal(bytes, first);
  });
  expect((await beyond.list(beyond.root)).remark).toMatch(/1 damaged/);
});

test('refuses a directory whose chain is longer than the volume', async () => {
  // The end of the root's chain leads back to its beginning, and no entry ends the directory.
  const disk = arrayBytes(original.slice());
  const bytes = await disk.read(0, disk.size);
  const edited = new DataView(bytes.buffer);
  let cluster = rootCluster;
  for (;;) {
    for (let at = clusterAt(cluster); at < clusterAt(cluster + 1); at += 32) if (bytes[at] === 0) bytes[at] = 1;
    const next = edited.getUint32(fatAt + cluster * 4, true);
    if (next === 0xffffffff) break;
    cluster = next;
  }
  edited.setUint32(fatAt + cluster * 4, rootCluster, true);
  const hostile = arrayBytes(bytes);
  const volume = await volumeOf(hostile);
  await expect(volume.list(volume.root)).rejects.toThrow('the file allocation table contains a cycle');
  // Neither the limit of entries nor that of a directory was reached.
  expect(hostile.bytesRead).toBeLessThan(3 * disk.size);
});

test('reads or refuses images with arbitrary damage in bounded time', async () => {
  const image = imageOf('exfat-large-clusters');
  const fatOffset = 2 ** 20;
  const isEntry = (at: number): boolean => [0x83, 0x85, 0xc0].includes(image[at & ~31]!);
  // Only metadata: a change elsewhere would only change file contents.
  const places = Array.from(image.keys()).filter(
    (at) => image[at] !== 0 && ((at >= 64 && at < 112) || (at >= fatOffset && (at < fatOffset + 512 || isEntry(at)))),
  );
  const sealEntry = (bytes: Uint8Array<ArrayBuffer>, at: number): void => {
    let set = at & ~31;
    while (set > (at & ~31) - 640 && bytes[set] !== 0x85) set -= 32;
    if (at > fatOffset && bytes[set] === 0x85) seal(bytes, set);
  };
  expect(await visitDamaged(image, places, sealEntry)).toBeGreaterThan(0);
});
