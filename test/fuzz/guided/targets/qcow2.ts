/** qcow2 images: the header, tables, compressed clusters, backing files and data files. */

import { CodError } from '../../../../src/errors.ts';
import { qcow2Source } from '../../../../src/sources/qcow2/source.ts';
import type { Source } from '../../../../src/sources/source.ts';
import { type TinyOptions, tinyImage } from '../../../sources/qcow2/tiny-image.ts';
import {
  checkSize,
  encodedDisk,
  Fields,
  joined,
  onlyCodErrors,
  type SparseDisk,
  sparseDisk,
  type Target,
} from '../target.ts';

function sourceOf(disk: SparseDisk): Source {
  return {
    size: disk.size,
    read: async (into, offset) => disk.fill(into, offset),
    close: async () => undefined,
  };
}

const READ_BYTES = 8192;
const STREAM_BYTES = 2 ** 18;

/** The input: an image, and the files that it names, in the order in which they are opened. */
async function run(input: Uint8Array): Promise<void> {
  const fields = new Fields(input);
  const disks = [sparseDisk(fields)];
  const openFile = async (): Promise<Source> => {
    if (fields.isAtEnd) throw new CodError('COD_NOT_FOUND', 'there is no such file');
    disks.push(sparseDisk(fields));
    return sourceOf(disks.at(-1)!);
  };
  const disk = await onlyCodErrors(() => qcow2Source(sourceOf(disks[0]!), { openFile }));
  if (disk === undefined) return;
  checkSize(disk.size);
  const length = Math.min(disk.size, READ_BYTES);
  for (const share of [0, 0.3, 0.5, 0.8, 1]) {
    const offset = Math.floor((disk.size - length) * share);
    await onlyCodErrors(() => disk.read(new Uint8Array(length), offset));
  }
  await onlyCodErrors(async () => {
    let left = STREAM_BYTES;
    for await (const piece of disk.stream!(0, disk.size)) if ((left -= piece.length) < 0) break;
  });
  const extents = await onlyCodErrors(() => disk.extents!(0, disk.size));
  const covered = extents?.reduce((sum, extent) => sum + extent.length, 0);
  if (covered !== undefined && covered !== disk.size)
    throw new Error(`extents of ${covered} bytes, not of ${disk.size}`);
  await disk.close();
  const [read, stored] = [0, 1].map((index) =>
    disks.reduce((sum, { bytesRead, size }) => sum + (index === 0 ? bytesRead : Math.min(size, 2 ** 26)), 0),
  ) as [number, number];
  if (read > 2 ** 25 + 64 * stored) throw new Error(`${read} bytes were read of files of ${stored} bytes`);
}

/** One raw block, which zstd stores as it is. */
function zstdBlock(content: Uint8Array): Uint8Array {
  const header = (content.length << 3) | 1;
  const frame = Buffer.concat([Buffer.from('28b52ffd60', 'hex'), Buffer.alloc(2), Buffer.alloc(3), content]);
  frame.writeUInt16LE(content.length - 256, 5);
  frame.writeUIntLE(header, 7, 3);
  return frame;
}

function zstdImage(): Uint8Array {
  const clusterBits = 9;
  const { bytes, packed } = tinyImage({ clusterBits });
  // The header gets the field of the kind of compression, and its extensions move.
  bytes.writeUInt32BE(8, 76);
  bytes.writeUInt32BE(112, 100);
  bytes[104] = 1;
  bytes.set(zstdBlock(new Uint8Array(2 ** clusterBits).fill(3)), packed);
  return bytes;
}

function* seeds(): Iterable<Uint8Array> {
  const options: readonly TinyOptions[] = [
    {},
    { version: 2 },
    { clusterBits: 9 },
    { clusterBits: 9, version: 2 },
    { clusterBits: 16 },
    { clusterBits: 14, extendedL2: true },
    { clusterBits: 9, backing: 'base', backingFormat: 'raw' },
    { clusterBits: 9, backing: 'base', backingFormat: 'qcow2' },
    { clusterBits: 9, backing: 'base' },
    { clusterBits: 9, dataFile: 'data' },
    { dataFile: 'data', extendedL2: true, clusterBits: 14 },
  ];
  const base = encodedDisk(tinyImage({ clusterBits: 9 }).bytes);
  const middle = encodedDisk(tinyImage({ clusterBits: 9, backing: 'base' }).bytes);
  for (const each of options) {
    const image = encodedDisk(tinyImage(each).bytes);
    yield image;
    if (each.backing !== undefined || each.dataFile !== undefined) yield joined(image, base);
    if (each.backing !== undefined) yield joined(image, middle, base);
  }
  yield encodedDisk(zstdImage());
}

export const qcow2: Target = { run, seeds };
