/** Uncompressing clusters: the ways of Node and of browsers give the same. */

import zlib from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { inflateRaw } from '../../../src/sources/qcow2/inflate.ts';
import * as node from '../../../src/sources/qcow2/node-unpacker.ts';
import * as web from '../../../src/sources/qcow2/web-unpacker.ts';
import { zstdFrame } from '../../../src/sources/qcow2/zstd-frame.ts';
import { seededRandom } from '../../../src/testing/random.ts';
import { expectBytes } from '../../support/bytes.ts';

const { constants, deflateRawSync, inflateRawSync } = zlib;
const CLUSTER = 65_536;

/** A cluster whose entropy depends on the seed. */
function clusterOf(seed: number): Uint8Array {
  const random = seededRandom(seed);
  const bytes = new Uint8Array(CLUSTER);
  const spread = 1 + random.below(256);
  for (let at = 0; at < CLUSTER; ) {
    const length = 1 + random.below(600);
    if (random.oneIn(3) && at > 0) bytes.copyWithin(at, random.below(at), at + length);
    else for (let index = at; index < Math.min(CLUSTER, at + length); index++) bytes[index] = random.below(spread);
    at += length;
  }
  return bytes;
}

const ways: [string, zlib.ZlibOptions][] = [
  ['level 1', { level: 1 }],
  ['level 9, a window of 4 KiB', { level: 9, windowBits: 12 }],
  ['no compression', { level: 0 }],
  ['fixed codes', { strategy: constants.Z_FIXED }],
  ['Huffman codes only', { strategy: constants.Z_HUFFMAN_ONLY }],
  ['short blocks', { memLevel: 1 }],
];

describe.each([
  ['Node', node.platformUnpacker],
  ['browsers', web.platformUnpacker],
])('zlib of %s', (_, platformUnpacker) => {
  it.each(ways)('uncompresses clusters with foreign bytes behind them (%s)', async (_, options) => {
    const unpack = await platformUnpacker('zlib');
    for (let seed = 0; seed < 12; seed++) {
      const cluster = clusterOf(seed);
      const packed = deflateRawSync(cluster, options);
      const foreign = seededRandom(seed).fill(new Uint8Array(seededRandom(seed).below(511)));
      expectBytes(unpack(Buffer.concat([packed, foreign]), CLUSTER), cluster);
    }
  });

  it('refuses a cluster that is too short, cut short, or empty', async () => {
    const unpack = await platformUnpacker('zlib');
    const packed = deflateRawSync(clusterOf(1).subarray(1));
    expect(() => unpack(packed, CLUSTER)).toThrow();
    expect(() => unpack(deflateRawSync(clusterOf(1)).subarray(0, 9000), CLUSTER)).toThrow();
    expect(() => unpack(new Uint8Array(0), CLUSTER)).toThrow();
  });
});

it('inflateRaw agrees with zlib about damaged streams', () => {
  const random = seededRandom(5);
  let same = 0;
  for (let round = 0; round < 1500; round++) {
    const packed = deflateRawSync(clusterOf(round % 20).subarray(0, 4096), ways[round % ways.length]![1]);
    for (let count = 1 + random.below(3); count > 0; count--)
      packed[random.below(Math.min(packed.length, 200))] = random.below(256);
    let expected: Uint8Array | undefined;
    try {
      expected = inflateRawSync(packed, { finishFlush: constants.Z_SYNC_FLUSH });
    } catch {
      // Refused.
    }
    try {
      const found = inflateRaw(packed, 4096);
      // Zlib refuses codes that are never used, and damage behind the cluster, which does no harm.
      if (expected !== undefined && expected.length >= 4096) {
        expectBytes(found, expected.subarray(0, 4096));
        same++;
      }
    } catch (error) {
      if (error instanceof RangeError || error instanceof TypeError) throw error;
      expect(expected === undefined || expected.length < 4096, `round ${round}: ${error}`).toBe(true);
    }
  }
  expect(same).toBeGreaterThan(100);
});

/** Node has zstd since 22.15. */
const { zstdCompressSync } = zlib as { zstdCompressSync?: (bytes: Uint8Array) => Buffer };

describe.skipIf(zstdCompressSync === undefined)('zstd', () => {
  it.each([
    ['Node', node.platformUnpacker],
    ['browsers', web.platformUnpacker],
  ])('of %s uncompresses clusters with foreign bytes behind them', async (_, platformUnpacker) => {
    const unpack = await platformUnpacker('zstd');
    for (let seed = 0; seed < 12; seed++) {
      const cluster = clusterOf(seed);
      const packed = Buffer.concat([zstdCompressSync!(cluster), Buffer.alloc(300, 0x28)]);
      expectBytes(unpack(packed, CLUSTER), cluster);
      expect(() => unpack(packed, CLUSTER - 512)).toThrow();
      expect(() => unpack(packed, CLUSTER + 512)).toThrow();
    }
  });
});

describe('a zstd frame', () => {
  /** Magic, descriptor of a single segment of 4 bytes, one raw block. */
  const frame = Buffer.from('28b52ffd20042100006162636499', 'hex');

  it('ends where its last block ends', () => {
    expect(zstdFrame(frame).length).toBe(13);
  });

  it.each([
    ['another magic', '29b52ffd200421000061626364'],
    ['no block', '28b52ffd2004'],
    ['a block cut short', '28b52ffd2004210000616263'],
    ['no last block', '28b52ffd200420000061626364'],
    ['a window of 2 GiB', '28b52ffd00a821000061626364'],
    ['a segment of 2^64 bytes', '28b52ffde0ffffffffffffffff21000061626364'],
  ])('is refused with %s', (_, hex) => {
    expect(() => zstdFrame(Buffer.from(hex, 'hex'))).toThrow();
  });
});
