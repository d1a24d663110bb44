/** Images that are damaged, hostile, or need what we do not have. */

import { describe, expect, it } from 'vitest';
import type { CodErrorCode } from '../../../src/errors.ts';
import { bytesSource } from '../../../src/sources/bytes.ts';
import { qcow2Source } from '../../../src/sources/qcow2/source.ts';
import type { Source } from '../../../src/sources/source.ts';
import { expectBytes } from '../../support/bytes.ts';
import { type TinyImage, type TinyOptions, tinyImage } from './tiny-image.ts';

async function readAll(source: Source): Promise<Uint8Array> {
  const into = new Uint8Array(source.size);
  await source.read(into, 0);
  return into;
}

async function openAndRead({ bytes }: { bytes: Uint8Array }): Promise<Uint8Array> {
  await using source = await qcow2Source(bytesSource(bytes));
  return await readAll(source);
}

describe.each<TinyOptions>([
  {},
  { version: 2 },
  { clusterBits: 9 },
  { clusterBits: 16 },
  { clusterBits: 14, extendedL2: true },
])('a small image (%o)', (options) => {
  it('reads as its disk', async () => {
    const image = tinyImage(options);
    expectBytes(await openAndRead(image), image.disk);
  });

  it('reads the same by its stream and in single sectors', async () => {
    const image = tinyImage(options);
    await using source = await qcow2Source(bytesSource(image.bytes));
    const pieces: Buffer[] = [];
    for await (const piece of source.stream!(0, source.size)) pieces.push(Buffer.from(piece));
    expectBytes(Buffer.concat(pieces), image.disk);
    for (let at = 0; at < source.size; at += 256) {
      const sector = new Uint8Array(256);
      await source.read(sector, at);
      expectBytes(sector, image.disk.subarray(at, at + 256));
    }
  });
});

type Edit = (image: TinyImage) => Uint8Array | undefined;

/** Places of the header. */
const AT = { version: 4, clusterBits: 20, size: 24, encryption: 32, l1Entries: 36, l1Offset: 40, high: 72, low: 76 };

const cases: readonly [name: string, code: CodErrorCode, message: RegExp, edit: Edit, options?: TinyOptions][] = [
  ['another magic', 'COD_UNSUPPORTED', /not a qcow2 image/, ({ bytes }) => void bytes.write('QFI ', 0)],
  ['version 1', 'COD_UNSUPPORTED', /not a qcow2 image/, ({ bytes }) => void bytes.writeUInt32BE(1, AT.version)],
  ['version 4', 'COD_UNSUPPORTED', /version 4/, ({ bytes }) => void bytes.writeUInt32BE(4, AT.version)],
  ['an empty file', 'COD_UNSUPPORTED', /not a qcow2 image/, () => new Uint8Array(0)],
  ['a header cut short', 'COD_CORRUPT', /cut short at 80/, ({ bytes }) => bytes.subarray(0, 80)],
  ['clusters of 2^63', 'COD_CORRUPT', /2\^63/, ({ bytes }) => void bytes.writeUInt32BE(63, AT.clusterBits)],
  ['clusters of 2^8', 'COD_CORRUPT', /2\^8/, ({ bytes }) => void bytes.writeUInt32BE(8, AT.clusterBits)],
  ['encryption', 'COD_UNSUPPORTED', /encrypted/, ({ bytes }) => void bytes.writeUInt32BE(2, AT.encryption)],
  ['an unknown feature', 'COD_UNSUPPORTED', /bits 33/, ({ bytes }) => void bytes.writeUInt32BE(2, AT.high)],
  ['another unknown feature', 'COD_UNSUPPORTED', /bits 31/, ({ bytes }) => void bytes.writeInt32BE(-(2 ** 31), AT.low)],
  ['the mark of corruption', 'COD_CORRUPT', /marked as corrupt/, ({ bytes }) => void bytes.writeUInt32BE(2, AT.low)],
  ['compression without its bit', 'COD_CORRUPT', /compression type/, ({ bytes }) => void bytes.writeUInt8(1, 104)],
  ['unknown compression', 'COD_UNSUPPORTED', /compression type 9/, ({ bytes }) => void bytes.writeUInt8(9, 104)],
  ['a header of 2^32 bytes', 'COD_CORRUPT', /4294967288/, ({ bytes }) => void bytes.writeUInt32BE(0xffff_fff8, 100)],
  ['small subclusters', 'COD_CORRUPT', /subclusters/, ({ bytes }) => void bytes.writeUInt32BE(16, AT.low)],
  ['a disk of 2^63 bytes', 'COD_UNSUPPORTED', /too large/, ({ bytes }) => void bytes.writeUInt32BE(2 ** 31, AT.size)],
  [
    'a disk of 2^50 bytes',
    'COD_UNSUPPORTED',
    /larger clusters/,
    ({ bytes }) => {
      bytes.writeUInt32BE(2 ** 18, AT.size);
      bytes.writeUInt32BE(0xffff_ffff, AT.l1Entries);
    },
  ],
  [
    'an L1 of 2^32 - 1',
    'COD_CORRUPT',
    /4294967295/,
    ({ bytes }) => void bytes.writeUInt32BE(0xffff_ffff, AT.l1Entries),
  ],
  ['an L1 of nothing', 'COD_CORRUPT', /needs 1/, ({ bytes }) => void bytes.writeUInt32BE(0, AT.l1Entries)],
  ['an L1 behind the end', 'COD_CORRUPT', /L1 table/, ({ bytes }) => void bytes.writeUInt32BE(1, AT.l1Offset)],
  ['an L1 that is not aligned', 'COD_CORRUPT', /L1 table/, ({ bytes }) => void bytes.writeUInt32BE(4104, 44)],
  ['a name of 2^32 bytes', 'COD_CORRUPT', /4294967295 bytes/, ({ bytes }) => void bytes.fill(0xff, 8, 20)],
  ['an extension of 2^32 bytes', 'COD_CORRUPT', /extension/, ({ bytes }) => void bytes.fill(0xff, 112, 120)],
  ['an L2 behind the end', 'COD_CORRUPT', /L2 table/, ({ bytes, l1 }) => void bytes.writeUInt8(9, l1 + 2)],
  ['an L2 that is not aligned', 'COD_CORRUPT', /L2 table/, ({ bytes, l1 }) => void bytes.writeUInt16BE(0x2200, l1 + 6)],
  [
    'an L2 in the last, partial cluster',
    'COD_CORRUPT',
    /L2 table/,
    ({ bytes, l1 }) => void bytes.writeUInt16BE(0x6000, l1 + 6),
  ],
  ['data behind the end', 'COD_CORRUPT', /behind the file's end/, ({ bytes, l2 }) => void bytes.writeUInt8(9, l2 + 2)],
  [
    'data that is not aligned',
    'COD_CORRUPT',
    /not aligned/,
    ({ bytes, l2 }) => void bytes.writeUInt16BE(0x3200, l2 + 6),
  ],
  ['a file cut short', 'COD_CORRUPT', /behind the file's end/, ({ bytes }) => bytes.subarray(0, 0x6000)],
  [
    'packed data behind the end',
    'COD_CORRUPT',
    /behind the file's end/,
    ({ bytes, l2 }) => void bytes.writeUInt8(9, l2 + 8 + 3),
  ],
  ['packed data that is damaged', 'COD_CORRUPT', /is damaged/, ({ bytes }) => void bytes.fill(0xff, 0x4000, 0x5000)],
  [
    'packed data that is short',
    'COD_CORRUPT',
    /is damaged/,
    ({ bytes }) => void bytes.write('\x03\x00', 0x4000 + 100, 'latin1'),
  ],
  [
    'zeros in version 2',
    'COD_CORRUPT',
    /version 2/,
    ({ bytes, l2 }) => void bytes.writeUInt8(1, l2 + 16 + 7),
    { version: 2 },
  ],
  [
    'subclusters that are zeros and data',
    'COD_CORRUPT',
    /contradict/,
    ({ bytes, l2 }) => void bytes.writeUInt8(1, l2 + 8),
    { clusterBits: 14, extendedL2: true },
  ],
  [
    'subclusters without a cluster',
    'COD_CORRUPT',
    /contradict/,
    ({ bytes, l2 }) => void bytes.writeUInt8(1, l2 + 3 * 16 + 15),
    { clusterBits: 14, extendedL2: true },
  ],
];

describe('an image is refused with', () => {
  it.each(cases)('%s', async (_, code, message, edit, options) => {
    const image = tinyImage(options);
    const bytes = edit(image) ?? image.bytes;
    await expect(openAndRead({ bytes })).rejects.toMatchObject({
      name: 'CodError',
      code,
      message: expect.stringMatching(message),
    });
  });
});

it('ignores the mark of counts that are not up to date', async () => {
  const image = tinyImage();
  image.bytes.writeUInt32BE(1, AT.low);
  expectBytes(await openAndRead(image), image.disk);
});

it('reads what is not damaged', async () => {
  const image = tinyImage();
  image.bytes.fill(0xff, 0x4000, 0x5000);
  await using source = await qcow2Source(bytesSource(image.bytes));
  const sector = new Uint8Array(512);
  await source.read(sector, 0);
  expectBytes(sector, image.disk.subarray(0, 512));
  await expect(source.read(sector, 4096)).rejects.toMatchObject({ code: 'COD_CORRUPT' });
  await source.read(sector, 512);
  expectBytes(sector, image.disk.subarray(512, 1024));
});

describe('a file that the image names', () => {
  const base = tinyImage();

  it.each<TinyOptions>([{ backing: '/etc/passwd', backingFormat: 'raw' }, { dataFile: '/etc/passwd' }])(
    'is not opened without permission (%o)',
    async (options) => {
      await expect(openAndRead(tinyImage(options))).rejects.toMatchObject({
        code: 'COD_UNSUPPORTED',
        message: expect.stringContaining('/etc/passwd'),
      });
    },
  );

  it('is opened by the function, and closed with the disk', async () => {
    const image = tinyImage({ backing: 'base.qcow2' });
    const asked: unknown[] = [];
    const own = bytesSource(image.bytes, { identity: 'top' });
    const named = bytesSource(base.bytes, { identity: 'base' });
    const source = await qcow2Source(own, {
      openFile: async ({ kind, name, namedBy }) => {
        asked.push([kind, name, namedBy === own]);
        return named;
      },
    });
    expect(asked).toEqual([['backing', 'base.qcow2', true]]);
    expect(source.identity).toBe('qcow2(top base)');
    await source.close();
    await expect(source.read(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_CLOSED' });
    for (const file of [own, named])
      await expect(file.read(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_CLOSED' });
  });

  it('leaves the identity open if it has none', async () => {
    const image = tinyImage({ backing: 'base' });
    await using source = await qcow2Source(bytesSource(image.bytes, { identity: 'top' }), {
      openFile: async () => bytesSource(base.bytes),
    });
    expect(source.identity).toBeUndefined();
  });

  it('is closed if opening fails', async () => {
    const image = tinyImage({ backing: 'base' });
    const own = bytesSource(image.bytes);
    const named = bytesSource(tinyImage({ backing: 'no more' }).bytes);
    let calls = 0;
    const opening = qcow2Source(own, {
      openFile: async () => {
        if (calls++ > 0) throw new Error('refused');
        return named;
      },
    });
    await expect(opening).rejects.toThrow('refused');
    await expect(named.read(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_CLOSED' });
    await own.read(new Uint8Array(1), 0);
  });

  it('may not lead back to the image', async () => {
    const image = tinyImage({ backing: 'itself' });
    let calls = 0;
    const opening = qcow2Source(bytesSource(image.bytes), {
      openFile: async () => {
        calls++;
        return bytesSource(image.bytes);
      },
    });
    await expect(opening).rejects.toMatchObject({ code: 'COD_UNSUPPORTED', message: expect.stringMatching(/chain/) });
    expect(calls).toBeLessThan(100);
  });

  it('of another format is refused', async () => {
    const image = tinyImage({ backing: 'base.vmdk', backingFormat: 'vmdk' });
    const opening = qcow2Source(bytesSource(image.bytes), { openFile: async () => bytesSource(base.bytes) });
    await expect(opening).rejects.toMatchObject({ code: 'COD_UNSUPPORTED', message: expect.stringMatching(/vmdk/) });
  });
});
