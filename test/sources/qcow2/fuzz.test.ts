/**
 * Damaged images: whatever a header or a table says, reading ends with bytes or with COD_CORRUPT or COD_UNSUPPORTED, in
 * time and memory that the length of the file bounds.
 *
 * `npm run test:fuzz -- --only qcow2 --for 10m --seed N` runs for longer. COD_QCOW2_ROUNDS sets the least number of
 * images, and COD_QCOW2_SEED the first one.
 */

import { expect, it } from 'vitest';
import { isCodError } from '../../../src/errors.ts';
import { bytesSource } from '../../../src/sources/bytes.ts';
import { qcow2Source } from '../../../src/sources/qcow2/source.ts';
import type { Source } from '../../../src/sources/source.ts';
import { type Random, seededRandom } from '../../../src/testing/random.ts';
import { countingMemory } from '../../support/counting-memory.ts';
import { effort } from '../../support/effort.ts';
import { type TinyOptions, tinyImage } from './tiny-image.ts';

const rounds: number = effort('COD_QCOW2_ROUNDS', { short: 1500, long: 1500 });
/** More images follow until this time has passed. */
const FOR_MS = effort('COD_QCOW2_MS', { short: 0, long: 60_000 });
const first: number = Number(process.env['COD_QCOW2_SEED'] ?? 0);

const bases: readonly TinyOptions[] = [
  {},
  { version: 2 },
  { clusterBits: 9 },
  { clusterBits: 16 },
  { clusterBits: 14, extendedL2: true },
  { backing: 'base', backingFormat: 'raw' },
  { backing: 'base' },
  { dataFile: 'data' },
  { dataFile: 'data', extendedL2: true, clusterBits: 14 },
];

/** Values at which readers go wrong. */
const NUMBERS = [0n, 1n, 2n, 511n, 512n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n];

function damage(bytes: Buffer, places: readonly number[], random: Random): Buffer {
  for (let count = 1 + random.below(4); count > 0; count--) {
    const start = places[random.below(places.length)]!;
    const at = Math.min(bytes.length - 8, start + random.below(random.oneIn(2) ? 128 : 16));
    const kind = random.below(5);
    if (kind === 0) bytes[at] = random.below(256);
    else if (kind === 1) bytes[at] = bytes[at]! ^ (1 << random.below(8));
    else if (kind === 2) bytes.writeBigUInt64BE(NUMBERS[random.below(NUMBERS.length)]!, at);
    else if (kind === 3) bytes.writeUInt32BE(Number(NUMBERS[random.below(7)]!), at - (at % 4));
    else
      bytes.writeBigUInt64BE(
        ((BigInt(random.below(16)) << 62n) % 2n ** 64n) | BigInt(random.below(20) * 512),
        at - (at % 8),
      );
  }
  return random.oneIn(8) ? bytes.subarray(0, 1 + random.below(bytes.length)) : bytes;
}

/** Counts the bytes that are read. */
class Metered implements Source {
  readonly size: number;
  readonly #source: Source;
  bytes = 0;

  constructor(bytes: Uint8Array) {
    this.#source = bytesSource(bytes);
    this.size = bytes.length;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    this.bytes += into.length;
    await this.#source.read(into, offset);
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}

const READ = 8192;

/** Uses an image in all ways. Returns how it ended. */
async function use(file: Metered, random: Random): Promise<string> {
  const into = new Uint8Array(READ);
  const opened: Metered[] = [];
  const disk = await qcow2Source(file, {
    openFile: async () => {
      const { bytes, l1, l2 } = tinyImage();
      opened.push(new Metered(random.oneIn(2) ? bytes : damage(bytes, [0, 72, l1, l2], random)));
      return opened.at(-1)!;
    },
  });
  const outcomes = new Set<string>();
  const attempt = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
      outcomes.add('read');
    } catch (error) {
      if (!isCodError(error)) throw error;
      outcomes.add(error.code);
    }
  };
  for (let round = 0; round < 6; round++) {
    const offset = Math.floor((disk.size * random.below(1000)) / 1000);
    const length = Math.min(round === 0 ? disk.size : READ, disk.size - offset, READ);
    await attempt(() => disk.read(into.subarray(0, length), offset));
  }
  await attempt(async () => {
    let left = 2 ** 18;
    for await (const piece of disk.stream!(0, disk.size)) if ((left -= piece.length) < 0) break;
  });
  await attempt(async () => {
    const extents = await disk.extents!(0, disk.size);
    expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(disk.size);
  });
  await disk.close();
  return [...outcomes].sort().join(', ');
}

it('a damaged image ends with bytes or with an error that says so', { timeout: FOR_MS + 600_000 }, async () => {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  const ends = new Map<string, number>();
  const endMs = performance.now() + FOR_MS;
  try {
    for (let seed = first; seed < first + rounds || performance.now() < endMs; seed++) {
      const random = seededRandom(seed);
      const image = tinyImage(bases[seed % bases.length]);
      const { l1, l2, packed } = image;
      const file = new Metered(damage(image.bytes, [0, 0, 72, l1, l2, l2, l2 + 4096, packed], random));
      let end: string;
      try {
        const { result, bytes } = await countingMemory(() => use(file, random));
        // Pages of tables, clusters, and the stream's buffers: none of it grows with what the image says.
        expect(bytes, 'bytes of memory').toBeLessThan(2 ** 26);
        expect(file.bytes, 'bytes read').toBeLessThan(2 ** 24 + 64 * file.size);
        end = result;
      } catch (error) {
        if (!isCodError(error))
          throw new Error(`COD_QCOW2_SEED=${seed} COD_QCOW2_ROUNDS=1: ${error}`, { cause: error });
        end = `refused: ${error.code}`;
      }
      for (const code of end.match(/COD_\w+/g) ?? []) expect(['COD_CORRUPT', 'COD_UNSUPPORTED']).toContain(code);
      ends.set(end, (ends.get(end) ?? 0) + 1);
    }
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
  const images = [...ends.values()].reduce((sum, count) => sum + count, 0);
  if (FOR_MS > 0) console.log(`${images} images from seed ${first} on, with ${ends.size} outcomes`);
  // Each way to end is reached, so the damage is neither too small nor too great.
  for (const end of ['read', 'refused: COD_CORRUPT', 'refused: COD_UNSUPPORTED', 'COD_CORRUPT, read'])
    expect(ends.get(end) ?? 0, `${end} of ${JSON.stringify([...ends])}`).toBeGreaterThan(rounds > 100 ? 5 : -1);
});
