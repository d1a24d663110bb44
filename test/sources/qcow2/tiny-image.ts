/** A small qcow2 image, made byte by byte, to be damaged. */

import { deflateRawSync } from 'node:zlib';

export interface TinyOptions {
  readonly version?: 2 | 3;
  readonly clusterBits?: number;
  readonly extendedL2?: boolean;
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly dataFile?: string;
}

/** The image and the places of its parts. */
export interface TinyImage {
  readonly bytes: Buffer;
  readonly l1: number;
  readonly l2: number;
  /** The compressed cluster. */
  readonly packed: number;
  readonly disk: Buffer;
}

/**
 * Makes an image of a disk of five clusters: data, compressed, zeros (version 3), nothing, and half a cluster of data.
 * With subclusters, each cluster of data has all of them.
 */
export function tinyImage(options: TinyOptions = {}): TinyImage {
  const { version = 3, clusterBits = 12, extendedL2 = false, backing, backingFormat, dataFile } = options;
  const cluster = 2 ** clusterBits;
  const [l1, l2, data, packed, last] = [1, 2, 3, 4, 6].map((index) => index * cluster) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const bytes = Buffer.alloc(last + cluster / 2);
  const disk = Buffer.alloc(4 * cluster + cluster / 2);
  bytes.write('QFI\xfb', 0, 'latin1');
  bytes.writeUInt32BE(version, 4);
  bytes.writeUInt32BE(clusterBits, 20);
  bytes.writeBigUInt64BE(BigInt(disk.length), 24);
  bytes.writeUInt32BE(1, 36);
  bytes.writeBigUInt64BE(BigInt(l1), 40);
  let at = 72;
  if (version === 3) {
    bytes.writeUInt32BE((extendedL2 ? 16 : 0) | (dataFile === undefined ? 0 : 4), 76);
    bytes.writeUInt32BE(4, 96);
    bytes.writeUInt32BE((at = 112), 100);
  }
  for (const [type, text] of [
    [0xe279_2aca, backingFormat],
    [0x4441_5441, dataFile],
  ] as const) {
    if (text === undefined) continue;
    bytes.writeUInt32BE(type, at);
    bytes.writeUInt32BE(text.length, at + 4);
    bytes.write(text, at + 8);
    at += 8 + Math.ceil(text.length / 8) * 8;
  }
  at += 8;
  if (backing !== undefined) {
    bytes.writeBigUInt64BE(BigInt(at), 8);
    bytes.writeUInt32BE(backing.length, 16);
    bytes.write(backing, at);
  }

  for (let index = 0; index < cluster; index++) {
    disk[index] = (index * 7) & 0xff;
    disk[cluster + index] = index >> 5;
    if (index < cluster / 2) disk[4 * cluster + index] = (index * 13) & 0xff;
  }
  disk.copy(bytes, data, 0, cluster);
  disk.copy(bytes, last, 4 * cluster);
  const deflated = deflateRawSync(disk.subarray(cluster, 2 * cluster));
  const packedAt = packed + 100;
  deflated.copy(bytes, packedAt);
  const sectors = Math.floor((packedAt + deflated.length - 1) / 512) - Math.floor(packedAt / 512);
  bytes.writeBigUInt64BE(BigInt(l2) | (1n << 63n), l1);
  const entries = [
    BigInt(data) | (1n << 63n),
    BigInt(packedAt) | (BigInt(sectors) << BigInt(62 - (clusterBits - 8))) | (1n << 62n),
    version === 3 && !extendedL2 ? 1n : 0n,
    0n,
    BigInt(last) | (1n << 63n),
  ];
  for (const [index, entry] of entries.entries()) {
    const place = l2 + index * (extendedL2 ? 16 : 8);
    bytes.writeBigUInt64BE(entry, place);
    if (!extendedL2) continue;
    bytes.writeBigUInt64BE(entry >> 63n ? 0xffff_ffffn : index === 2 ? 0xffff_ffff_0000_0000n : 0n, place + 8);
  }
  return { bytes, l1, l2, packed: packedAt, disk };
}
