/** Bugs of the reader of qcow2 images and of the recognition that a unit test must find. */

import type { PlantedBug } from '../../crash/planted-bugs.ts';

const LAYER = 'src/sources/qcow2/layer.ts';
const RUNS = 'src/sources/qcow2/runs.ts';
const CLUSTERS = 'src/sources/qcow2/cluster-cache.ts';
const TABLES = 'src/sources/qcow2/table-cache.ts';
const HEADER = 'src/sources/qcow2/header.ts';
const FORMAT = 'src/sources/format.ts';

type UnitTest = NonNullable<PlantedBug['test']>;

/** The comparison of a kind of image with QEMU, which reads or streams it. */
function differential(kind: string, how = 'reads as a whole'): UnitTest {
  return { file: 'test/sources/qcow2/images.test.ts', name: `qcow2 images '${kind}' ${how}` };
}

function damage(name: string): UnitTest {
  return { file: 'test/sources/qcow2/damage.test.ts', name };
}

function caches(name: string): UnitTest {
  return { file: 'test/sources/qcow2/caches.test.ts', name };
}

function format(name: string): UnitTest {
  return { file: 'test/sources/format.test.ts', name };
}

export const QCOW2_BUGS: readonly PlantedBug[] = [
  {
    name: 'an offset whose flags are not masked',
    test: damage('a small image ({}) reads as its disk'),
    patches: [{ file: LAYER, find: '(high & 0x00ff_ffff) * 2 ** 32', replace: '(high >>> 0) * 2 ** 32' }],
  },
  {
    name: 'a compressed cluster without its last sector',
    test: differential('zlib'),
    patches: [{ file: LAYER, find: '>>> offsetBits) + 1;', replace: '>>> offsetBits) || 1;' }],
  },
  {
    name: 'a compressed cluster of large clusters whose count of sectors has too few bits',
    test: differential('zlib, clusters of 2 MiB'),
    patches: [{ file: LAYER, find: '62 - (this.#header.clusterBits - 8) - 32', replace: '62 - (16 - 8) - 32' }],
  },
  {
    name: 'the sector that two compressed clusters share is taken from one of them',
    test: differential('zlib', 'streams as a whole in pieces of undefined'),
    patches: [{ file: RUNS, find: 'packedBytes: last.packedBytes - bytes', replace: 'packedBytes: last.packedBytes' }],
  },
  {
    name: 'a read beyond the end of a shorter backing file',
    test: differential('a backing file that is shorter, raw'),
    patches: [
      {
        file: LAYER,
        find: 'below.map(offset, Math.min(end, below.size), segments',
        replace: 'below.map(offset, end, segments',
      },
    ],
  },
  {
    name: 'stale bytes for a cluster of zeros that has room',
    test: differential('clusters of zeros with and without ro…'),
    patches: [
      {
        file: LAYER,
        find: 'else if ((low & 1) === 0) this.#addData(',
        replace: 'else if (hostOffset(high, low) > 0) this.#addData(',
      },
    ],
  },
  {
    name: 'the halves of the bitmap of subclusters swapped',
    test: differential('subclusters of 512 B, written in parts'),
    patches: [
      {
        file: LAYER,
        find: '[page.getUint32(place + 8), page.getUint32(place + 12)]',
        replace: '[page.getUint32(place + 12), page.getUint32(place + 8)]',
      },
    ],
  },
  {
    name: 'a cluster at offset 0 of a data file taken for none',
    test: differential('an external data file that is a disk'),
    patches: [{ file: LAYER, find: 'this.#header.hasDataFile && (high & COPIED) !== 0', replace: 'high < 0' }],
  },
  {
    name: 'the tables of one layer taken for those of another',
    test: differential('four layers of other clusters'),
    patches: [{ file: TABLES, find: 'return this.#layers++;', replace: 'return this.#layers;' }],
  },
  {
    name: 'a table behind the end of the file',
    test: damage('an image is refused with an L1 behind the end'),
    patches: [{ file: HEADER, find: 'l1Offset + needed * 8 > fileBytes', replace: 'needed * 8 > fileBytes' }],
  },
  {
    name: 'a cache of clusters without bound',
    test: caches('the cache of clusters keeps 8 MiB, and drops the cluster that was used longest ago'),
    patches: [{ file: CLUSTERS, find: 'if (this.#keptBytes > LIMIT_BYTES)', replace: 'if (this.#keptBytes < 0)' }],
  },
  {
    name: 'a cache of tables without bound',
    test: caches('the cache of tables keeps 16 MiB, and drops the page that was used longest ago'),
    patches: [{ file: TABLES, find: 'if (this.#pages.size > LIMIT_PAGES)', replace: 'if (this.#pages.size < 0)' }],
  },
  {
    name: 'a failed read that is kept as a cluster',
    test: caches('the cache of clusters keeps no failure'),
    patches: [
      { file: CLUSTERS, find: 'entry.bytes.catch(() => this.#drop(key));', replace: 'entry.bytes.catch(() => 0);' },
    ],
  },
  {
    name: 'a disk taken for a tar archive by a word',
    test: format('a disk is not refused: the word ustar without its sum'),
    patches: [
      {
        file: FORMAT,
        find: 'if (isTar(head, text)) return TAR;',
        replace: "if (text.startsWith('ustar', 257)) return TAR;",
      },
    ],
  },
  {
    name: 'a disk refused for the type that a server names',
    test: format('the type that a server names application/x-tar is wrong about a disk'),
    patches: [
      {
        file: FORMAT,
        find: 'return isDisk ? undefined : TYPES',
        replace: 'return isDisk && type === "" ? undefined : TYPES',
      },
    ],
  },
];
