/**
 * A refused recovery leaves the core as before: no memory is leaked, and the next state is read.
 * Sparse files that claim to be huge cost neither memory nor time.
 */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decodeLogHeader, encodeLogHeader } from '../../src/core/headers.ts';
import { isCodError } from '../../src/errors.ts';
import type { OpenOptions } from '../../src/index.ts';
import { recover } from '../../src/log/recovery.ts';
import { Slots } from '../../src/log/slots.ts';
import { Core } from '../../src/wasm/core.ts';
import { type Image, MemoryFiles } from './memory-files.ts';

const MIB = 2 ** 20;
const fixtures = new URL('../fixtures/', import.meta.url);

/** The metadata of a frozen state, with logs of the length in their headers. */
function load(state: string): Map<string, Image> {
  const folder = new URL(`${state}/`, fixtures);
  const images = new Map<string, Image>();
  for (const name of readdirSync(folder).filter((file) => file.startsWith('disk.raw'))) {
    const bytes = new Uint8Array(readFileSync(new URL(name, folder)));
    // A claimed file has no header yet, which would have its length.
    const isSparse = name.includes('.wil') && bytes[8] === 2 && bytes.length >= 512;
    images.set(name, {
      bytes,
      size: isSparse ? Number(new DataView(bytes.buffer).getBigUint64(56, true)) : bytes.length,
    });
  }
  return images;
}

async function outcome(core: Core, images: Map<string, Image>, size: number): Promise<string> {
  return outcomeIn(core, new MemoryFiles(images), size);
}

/** A target that reads as zeros proves no record. */
async function outcomeIn(core: Core, files: MemoryFiles, size: number): Promise<string> {
  const target = { size: async () => size, read: async (into: Uint8Array) => void into.fill(0) };
  try {
    const found = await recover(core, new Slots(files, 'disk.raw', { readOnly: true }), target);
    found?.state.dispose();
    return found === undefined ? 'nothing' : 'a state';
  } catch (error) {
    return isCodError(error) ? error.code : String(error);
  }
}

/** Damages the first frame of the last sector that has frames. */
function damageLastSector(bytes: Uint8Array): void {
  const sector = bytes.length - 1 - ((bytes.length - 1) % 512);
  bytes[sector + 4]! ^= 1;
}

it.each([
  // Its last log ends in a record of unknown type, after tens of thousands of parts.
  {
    state: 'golden/dirty-heavy',
    file: 'disk.raw.wil',
    damage: (bytes: Uint8Array) => bytes.fill(7, bytes.length - 32),
  },
  // A frame in the log's last sector has a wrong epoch, after a checkpoint with both maps. The last frame proves it.
  { state: 'format2/mid-copy', file: 'disk.raw.wil', damage: damageLastSector },
])(
  'a thousand refusals of $state, damaged at the end of a log, need no additional memory',
  async ({ state, file, damage }) => {
    const expected = new URL(`${state}/expected.json`, fixtures);
    expect(existsSync(expected)).toBe(true);
    const { deviceSize, size = deviceSize } = JSON.parse(readFileSync(expected, 'utf8')) as {
      deviceSize: number;
      size?: number;
    };
    const images = load(state);
    const bytes = images.get(file)!.bytes.slice();
    damage(bytes);
    const damaged = new Map(images).set(file, { bytes, size: images.get(file)!.size });
    const core = Core.create();
    expect(await outcome(core, images, size)).toBe('a state');
    expect(await outcome(core, damaged, size)).toBe('COD_CORRUPT');
    const { memoryBytes } = core;
    expect(memoryBytes).toBeLessThan(16 * MIB);
    for (let times = 0; times < 1000; times++) expect(await outcome(core, damaged, size)).toBe('COD_CORRUPT');
    expect(core.memoryBytes).toBe(memoryBytes);
    expect(await outcome(core, images, size)).toBe('a state');
  },
);

it('a file whose session differs in a single bit is refused', async () => {
  const { deviceSize } = JSON.parse(readFileSync(new URL('format2/mid-copy/expected.json', fixtures), 'utf8'));
  const images = load('format2/mid-copy');
  const core = Core.create();
  expect(await outcome(core, images, deviceSize)).toBe('a state');
  const log = images.get('disk.raw.wil')!;
  const decoded = decodeLogHeader(core, log.bytes.subarray(0, 512));
  if (decoded.state !== 'valid') throw new Error('the fixture has a valid log');
  const { header } = decoded;
  for (let bit = 0; bit < 8 * header.session.length; bit++) {
    const session = header.session.slice();
    session[bit >> 3]! ^= 1 << (bit & 7);
    const bytes = log.bytes.slice();
    bytes.set(encodeLogHeader(core, { ...header, session }));
    const other = new Map(images).set('disk.raw.wil', { bytes, size: log.size });
    expect(await outcome(core, other, deviceSize), `bit ${bit}`).toBe('COD_CORRUPT');
  }
});

/** Files whose reads are counted. */
class CountedFiles extends MemoryFiles {
  readBytes = 0;

  override async open(name: string, options?: OpenOptions): ReturnType<MemoryFiles['open']> {
    const file = await super.open(name, options);
    return {
      ...file,
      read: (into, offset) => {
        this.readBytes += into.length;
        return file.read(into, offset);
      },
    };
  }
}

/** A header of format 2 with another number at `at` and a matching checksum. */
function withNumber(image: Image, at: number, value: bigint, size = image.size): Image {
  const bytes = image.bytes.slice();
  const view = new DataView(bytes.buffer);
  view.setBigUint64(at, value, true);
  view.setUint32(500, Core.create().crc32c(bytes.subarray(0, 500)), true);
  return { bytes, size };
}

const HUGE = 2 ** 40;
const AT = { epoch: 32, bytes: 56, directoryChecksum: 64, identityBytes: 68 } as const;
const ENTRY = { dirtyBytes: 8, bitmapBytes: 12 } as const;

/** Where the directory of a checkpoint begins. */
function directoryOf({ bytes }: Image): number {
  const identityBytes = new DataView(bytes.buffer, bytes.byteOffset).getUint32(AT.identityBytes, true);
  return 512 + Math.ceil(identityBytes / 8) * 8;
}

describe('a sparse file of a tebibyte', () => {
  const outcomes: readonly {
    name: string;
    state: string;
    size?: number;
    change: (images: Map<string, Image>) => void;
    outcome: string;
  }[] = [
    {
      name: 'log of format 1 that ends with a record of zeros',
      state: 'golden/log-zero-tail',
      change: (images) => {
        const name = [...images.keys()].find((file) => file.includes('.wil'))!;
        images.set(name, { bytes: images.get(name)!.bytes, size: HUGE });
      },
      outcome: 'a state',
    },
    {
      name: 'checkpoint of format 1 with bytes after its end',
      state: 'golden/map-only',
      change: (images) => images.set('disk.raw.bak', { bytes: images.get('disk.raw.bak')!.bytes, size: HUGE }),
      outcome: 'a state',
    },
    {
      name: 'checkpoint of format 1 that claims a bitmap of the whole file',
      state: 'golden/map-only',
      change: (images) => {
        const bytes = images.get('disk.raw.bak')!.bytes.slice();
        new DataView(bytes.buffer).setBigUint64(16, BigInt(HUGE - 100), true);
        images.set('disk.raw.bak', { bytes, size: HUGE });
      },
      outcome: 'COD_CORRUPT',
    },
    {
      name: 'log of format 2 whose header has this length',
      state: 'format2/mid-copy',
      change: (images) =>
        images.set('disk.raw.wil', withNumber(images.get('disk.raw.wil')!, AT.bytes, BigInt(HUGE), HUGE)),
      outcome: 'COD_CORRUPT',
    },
    {
      name: 'checkpoint of format 2 whose header has this length',
      state: 'format2/mid-copy',
      change: (images) =>
        images.set('disk.raw.bak', withNumber(images.get('disk.raw.bak')!, AT.bytes, BigInt(HUGE), HUGE)),
      outcome: 'COD_CORRUPT',
    },
    ...[
      { what: 'dirty parts', at: ENTRY.dirtyBytes },
      { what: 'synced blocks', at: ENTRY.bitmapBytes },
    ].map(({ what, at }) => ({
      name: `checkpoint of format 2 with a slice that claims 4 GiB of ${what}`,
      state: 'format2/mid-copy',
      change: (images: Map<string, Image>) => {
        const image = images.get('disk.raw.bak')!;
        const entry = directoryOf(image);
        const bytes = image.bytes.slice();
        const view = new DataView(bytes.buffer);
        const had = view.getUint32(entry + at, true);
        view.setUint32(entry + at, 2 ** 32 - 8, true);
        view.setUint32(AT.directoryChecksum, Core.create().crc32c(bytes.subarray(512, entry + 40)), true);
        const end = view.getBigUint64(AT.bytes, true) + BigInt(2 ** 32 - 8 - Math.ceil(had / 8) * 8);
        images.set('disk.raw.bak', withNumber({ bytes, size: HUGE }, AT.bytes, end));
      },
      outcome: 'COD_CORRUPT',
    })),
  ];

  it.each(outcomes)('is read or refused quickly: a $name', async ({ state, change, outcome: expected }) => {
    const { deviceSize = 0 } = JSON.parse(readFileSync(new URL(`${state}/expected.json`, fixtures), 'utf8')) as {
      deviceSize?: number;
    };
    const images = load(state);
    change(images);
    const files = new CountedFiles(images);
    expect(await outcomeIn(Core.create(), files, deviceSize)).toBe(expected);
    expect(files.readBytes).toBeLessThan(8 * MIB);
  });
});

it('refuses the largest epoch, which has no successor', async () => {
  const images = load('format2/standalone');
  const name = 'disk.raw.bak.1';
  for (const epoch of [2n ** 53n - 1n, 2n ** 63n + 1n]) {
    const changed = new Map(images).set(name, withNumber(images.get(name)!, AT.epoch, epoch));
    expect(await outcome(Core.create(), changed, 0)).toBe('COD_CORRUPT');
  }
});
