/** The page's reader of NTFS, against images that ntfs-3g wrote, and against planted damage. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { VolumeError } from '../../src/web/volumes/bytes.ts';
import { unpackLznt1 } from '../../src/web/volumes/ntfs-compressed.ts';
import { readPart, type Volume } from '../../src/web/volumes/volume.ts';
import { expectBytes } from '../support/bytes.ts';
import { contentsAt, factsOf, imageOf, piecesAt, readAll, volumeOf } from '../support/volume-fixtures.ts';
import { arrayBytes, find, visitDamaged } from '../support/volumes.ts';

const images = new Map(['ntfs', 'ntfs-small-clusters', 'ntfs-4k-sectors'].map((name) => [name, imageOf(name)]));
const DATA = 0x80;
/** `FILE`, the mark of a record. */
const FILE_MARK = 0x454c4946;

/** A copy of an image, to plant damage in. */
class Copy {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly mftAt: number;
  readonly recordBytes: number;

  constructor(name: string) {
    this.bytes = images.get(name)!.slice();
    this.view = new DataView(this.bytes.buffer);
    const clusterBytes = this.view.getUint16(11, true) * this.bytes[13]!;
    this.mftAt = Number(this.view.getBigUint64(48, true)) * clusterBytes;
    const perRecord = this.view.getInt8(64);
    this.recordBytes = perRecord < 0 ? 2 ** -perRecord : perRecord * clusterBytes;
  }

  open(): Promise<Volume> {
    return volumeOf(arrayBytes(this.bytes));
  }

  /** Offset of a file's record. */
  async record(path: string): Promise<number> {
    const { id } = await find(await this.open(), path);
    for (let at = this.mftAt; at < this.bytes.length; at += 512)
      if (this.view.getUint32(at, true) === FILE_MARK && this.view.getUint32(at + 44, true) === id) return at;
    throw new Error(`${path} has no record`);
  }

  /** Offset of the first attribute of a type in the record at `record`. */
  attribute(record: number, type: number): number {
    let at = record + this.view.getUint16(record + 20, true);
    while (this.view.getUint32(at, true) !== type) {
      expect(this.view.getUint32(at + 4, true)).toBeGreaterThan(0);
      at += this.view.getUint32(at + 4, true);
    }
    return at;
  }

  /** Offset of the runs of the attribute at `attribute`. */
  runs(attribute: number): number {
    return attribute + this.view.getUint16(attribute + 32, true);
  }

  /** Offsets of the blocks of directories. */
  blocks(): number[] {
    const all: number[] = [];
    for (let at = Buffer.from(this.bytes.buffer).indexOf('INDX'); at >= 0; ) {
      all.push(at);
      at = Buffer.from(this.bytes.buffer).indexOf('INDX', at + 512);
    }
    return all;
  }
}

async function refusal(volume: Volume, path: string): Promise<unknown> {
  const file = await volume.look(await find(volume, path));
  return readPart(volume, file, { from: 0, to: 10 });
}

test.each(['ntfs', 'ntfs-small-clusters', 'ntfs-large-clusters', 'ntfs-4k-sectors'])(
  'reads each file of %s as ntfs-3g',
  async (name) => {
    const volume = await volumeOf(arrayBytes(images.get(name) ?? imageOf(name)));
    expect([volume.kind, volume.remark]).toEqual(['NTFS', undefined]);
    const facts = await readAll(volume, ({ path }) => path !== 'reparse');
    expect(facts).toEqual(factsOf(name));
  },
);

test('reads the label, tables in pieces, and files with several records', async () => {
  expect((await new Copy('ntfs').open()).label).toBe('PEBBLES ü');
  const copy = new Copy('ntfs-small-clusters');
  const volume = await copy.open();
  expect((await piecesAt(volume, 'in many pieces')).pieces).toBe(400);
  const mft = copy.attribute(copy.mftAt, DATA);
  expect(copy.view.getUint32(mft + 4, true)).toBeGreaterThan(150);
  expect(copy.blocks().length).toBeGreaterThan(5);
});

test('shows holes as such', async () => {
  const volume = await new Copy('ntfs').open();
  // The first cluster, and what was written of another one. The rest was never written.
  expect(await piecesAt(volume, 'sparse')).toEqual({ pieces: 2, holeBytes: 7_000_000 - 4096 - (3_000_006 % 4096) });
});

test('reads any part of a compressed file', async () => {
  const volume = await new Copy('ntfs').open();
  for (const path of ['packed/mixed', 'packed/text', 'packed/short']) {
    const whole = await contentsAt(volume, path);
    const file = await volume.look(await find(volume, path));
    for (const [from, to] of [
      [0, 1],
      [4095, 4097],
      [65_535, 131_073],
      [whole.length - 1, whole.length + 5],
    ] as const)
      expectBytes(await readPart(volume, file, { from, to }), whole.slice(from, to));
  }
  const { pieces, holeBytes } = await piecesAt(volume, 'packed/mixed');
  expect([pieces > 1, holeBytes > 200_000]).toEqual([true, true]);
});

test('shows links, and refuses other reparse points', async () => {
  const volume = await new Copy('ntfs').open();
  const { entries } = await volume.list(await find(volume, 'reparse'));
  expect(entries.map(({ name, kind }) => [name, kind])).toEqual([
    ['junction', 'link'],
    ['link', 'link'],
    ['linux link', 'link'],
    ['system file', 'file'],
  ]);
  const targets = await Promise.all(entries.slice(0, 3).map(async (entry) => (await volume.look(entry)).linkTarget));
  expect(targets).toEqual(['C:\\Users', '..\\licence.txt', '/usr/bin']);
  await expect(volume.look(entries[3]!)).rejects.toThrow('compressed by Windows (WOF): not read');
});

test('says that a volume is dirty, hibernated, or has an open log', async () => {
  const dirty = new Copy('ntfs');
  const information = dirty.attribute(dirty.mftAt + 3 * dirty.recordBytes, 0x70);
  dirty.bytes[information + dirty.view.getUint16(information + 20, true) + 10]! |= 1;
  expect((await dirty.open()).remark).toMatch(/dirty/);

  const hibernated = new Copy('ntfs-4k-sectors');
  const data = hibernated.attribute(await hibernated.record('hiberfil.sys'), DATA);
  hibernated.bytes.set(Buffer.from('hibr'), data + hibernated.view.getUint16(data + 20, true));
  expect((await hibernated.open()).remark).toMatch(/hibernated/);

  for (const [client, flags, remark] of [
    [0, 0, /log is not replayed/],
    [0xffff, 0, undefined],
    [0, 2, undefined],
  ] as const) {
    const copy = new Copy('ntfs');
    const at = await logOffset(await copy.open());
    // The second page is newer, and the first one is of a clean volume.
    for (const [page, clients] of [
      [0, 0xffff],
      [4096, client],
    ] as const)
      plantRestartPage(copy.view, at + page, { sequence: page, clients, flags });
    const found = (await copy.open()).remark;
    if (remark === undefined) expect(found).toBeUndefined();
    else expect(found).toMatch(remark);
  }
});

async function logOffset(volume: Volume): Promise<number> {
  const log = await volume.look({ name: '', kind: 'file', size: undefined, modifiedMs: undefined, id: 2 });
  for await (const { offset } of log.runs()) return offset!;
  throw new Error('the volume has no log');
}

function plantRestartPage(
  view: DataView,
  at: number,
  { sequence, clients, flags }: { sequence: number; clients: number; flags: number },
): void {
  for (let index = 0; index < 4096; index++) view.setUint8(at + index, 0);
  new Uint8Array(view.buffer).set(Buffer.from('RSTR'), at);
  view.setUint16(at + 4, 30, true);
  view.setUint16(at + 6, 9, true);
  view.setUint16(at + 24, 48, true);
  view.setBigUint64(at + 48, BigInt(sequence), true);
  view.setUint16(at + 48 + 12, clients, true);
  view.setUint16(at + 48 + 14, flags, true);
}

test('refuses records that were written in part, are not in use, or belong to another file', async () => {
  for (const [offset, value, message] of [
    [510, 0xff, /damaged: it was written in part/],
    [6, 200, /damaged/],
    [4, 255, /damaged/],
    [22, 0, /not in use/],
    [32, 7, /belongs to another file/],
    [20, 2, /damaged attribute/],
  ] as const) {
    const copy = new Copy('ntfs');
    copy.bytes[(await copy.record('licence.txt')) + offset]! = value;
    await expect(refusal(await copy.open(), 'licence.txt')).rejects.toThrow(message);
  }
});

test('refuses runs and sizes that cannot be', async () => {
  const plant = async (change: (copy: Copy, data: number) => void): Promise<unknown> => {
    const copy = new Copy('ntfs');
    change(copy, copy.attribute(await copy.record('first in pieces'), DATA));
    return refusal(await copy.open(), 'first in pieces');
  };
  const runs =
    (...pairs: number[]) =>
    (copy: Copy, data: number): void =>
      copy.bytes.set(pairs, copy.runs(data));
  await expect(plant(runs(0x31, 1, 0xff, 0xff, 0x7f, 0))).rejects.toThrow(/beyond the volume/);
  await expect(plant(runs(0x11, 1, 0x80, 0))).rejects.toThrow(/beyond the volume/);
  await expect(plant(runs(0x11, 0, 1, 0))).rejects.toThrow(/runs of this file is damaged/);
  await expect(plant(runs(0x0f, 1))).rejects.toThrow(/runs of this file is damaged/);
  await expect(plant(runs(0x08, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0))).rejects.toThrow(/runs of this file is damaged/);
  await expect(plant(runs(0))).rejects.toThrow(/ends after 0 of its 600001 bytes/);
  const huge = plant((copy, data) => copy.view.setBigUint64(data + 48, 2n ** 60n, true));
  await expect(huge).rejects.toThrow(/beyond 2\^53/);
  const encrypted = plant((copy, data) => copy.view.setUint16(data + 12, 0x4000, true));
  await expect(encrypted).rejects.toThrow('this file is encrypted');
  const unit = plant((copy, data) => {
    copy.view.setUint16(data + 12, 1, true);
    copy.bytes[data + 34] = 60;
  });
  await expect(unit).rejects.toThrow(/compressed units/);
});

test('refuses an attribute whose header is cut short', async () => {
  const copy = new Copy('ntfs');
  const data = copy.attribute(await copy.record('sparse'), DATA);
  // It has no name. A name behind the attribute would be refused too.
  copy.view.setUint16(data + 10, 0, true);
  for (const length of [24, 32, 56]) {
    copy.view.setUint32(data + 4, length, true);
    await expect(refusal(await copy.open(), 'sparse')).rejects.toThrow('an attribute of this file is damaged');
  }
});

test('refuses a list of attributes that names a missing part', async () => {
  const copy = new Copy('ntfs-small-clusters');
  const volume = await copy.open();
  const { id } = await find(volume, 'in many pieces');
  // The record that the list names after the first one no longer belongs to this file.
  for (let at = 0; at < copy.bytes.length; at += 512) {
    const isPart = copy.view.getUint32(at, true) === FILE_MARK && copy.view.getUint32(at + 32, true) === id;
    if (isPart) copy.view.setUint32(at + 32, id + 1, true);
  }
  await expect(contentsAt(await copy.open(), 'in many pieces')).rejects.toThrow(/belongs to another file/);
});

test('ends in an index that contains a cycle, and lists the rest', async () => {
  const copy = new Copy('ntfs');
  const before = (await (await copy.open()).list(await find(await copy.open(), 'many'))).entries.length;
  // Each child of a block is the block itself.
  let children = 0;
  for (const block of copy.blocks()) {
    for (let at = block + 24 + copy.view.getUint32(block + 24, true); ; ) {
      const length = copy.view.getUint16(at + 8, true);
      if (copy.bytes[at + 12]! & 1) {
        copy.view.setBigUint64(at + length - 8, copy.view.getBigUint64(block + 16, true), true);
        children++;
      }
      if (length === 0 || copy.bytes[at + 12]! & 2) break;
      at += length;
    }
  }
  expect(children).toBeGreaterThan(1);
  const volume = await copy.open();
  const { entries, cut, remark } = await volume.list(await find(volume, 'many'));
  expect(entries.length).toBeLessThan(before);
  expect([cut, remark]).toEqual([false, `left out: ${children} damaged blocks of the index`]);
});

test('lists a directory without the blocks that are damaged', async () => {
  const copy = new Copy('ntfs');
  const { entries: before } = await (await copy.open()).list(await find(await copy.open(), 'many'));
  for (const at of copy.blocks()) copy.bytes[at + 510]! ^= 0xff;
  const volume = await copy.open();
  const root = await volume.list(volume.root);
  expect(root.remark).toMatch(/left out: \d+ damaged block/);
  expect(before.length).toBeGreaterThan(400);
});

test('unpacks or refuses arbitrary chunks', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (packed, isChunk) => {
      if (isChunk && packed.length > 3) {
        packed[0] = packed.length - 3;
        packed[1] = 0xb0;
      }
      try {
        expect(unpackLznt1(packed, 65_536).length).toBe(65_536);
      } catch (error) {
        if (!(error instanceof VolumeError)) throw error;
      }
    }),
    { numRuns: 200 },
  );
});

test('reads or refuses images with arbitrary damage in bounded time', async () => {
  const { bytes: image, mftAt, recordBytes } = new Copy('ntfs-4k-sectors');
  const blocks = new Copy('ntfs-4k-sectors').blocks();
  const isMetadata = (at: number): boolean =>
    (at >= 11 && at < 72) ||
    (at >= mftAt && at < mftAt + 100 * recordBytes) ||
    blocks.some((block) => at >= block && at < block + 4096);
  const places = Array.from(image.keys()).filter((at) => image[at] !== 0 && isMetadata(at));
  expect(await visitDamaged(image, places)).toBeGreaterThan(0);
});
