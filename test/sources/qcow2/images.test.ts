/** Every kind of image reads as QEMU reads it. */

import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fileSource } from '../../../src/sources/file.ts';
import { type Qcow2SourceOptions, qcow2Source } from '../../../src/sources/qcow2/source.ts';
import type { Source } from '../../../src/sources/source.ts';
import { seededRandom } from '../../../src/testing/random.ts';
import { expectBytes } from '../../support/bytes.ts';
import { effort, some } from '../../support/effort.ts';
import { describeWith } from '../../support/tools.ts';
import { kinds, qemu, qemuTools, TOP } from './images.ts';

/** Random parts of each image that are read, and that are streamed. */
const READS = effort('COD_QCOW2_READS', { short: 6, long: 150 });
const STREAMS = effort('COD_QCOW2_STREAMS', { short: 1, long: 12 });

/** Opens the files that images in `folder` name. */
function filesIn(folder: string): Required<Pick<Qcow2SourceOptions, 'openFile'>> {
  return { openFile: ({ name }) => fileSource(isAbsolute(name) ? name : join(folder, name)) };
}

async function streamed(source: Source, offset: number, length: number, pieceBytes?: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of source.stream!(offset, length, { pieceBytes } as object)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** The runs of zeros that qemu-img reports. */
function zerosOf(path: string): { start: number; end: number }[] {
  const runs: { start: number; end: number }[] = [];
  const map = JSON.parse(qemu('qemu-img', 'map', '--output=json', path)) as {
    start: number;
    length: number;
    zero: boolean;
  }[];
  for (const { start, length, zero } of map) {
    if (!zero) continue;
    const last = runs.at(-1);
    if (last?.end === start) last.end += length;
    else runs.push({ start, end: start + length });
  }
  return runs;
}

describeWith(qemuTools, 'qcow2 images', () => {
  let all: string;
  beforeAll(() => {
    all = mkdtempSync(join(tmpdir(), 'cod-qcow2-'));
  });
  afterAll(() => rmSync(all, { recursive: true, force: true }));

  const numbered = kinds.map((kind, index) => ({ kind, index, name: kind.name }));
  describe.each(some(numbered, 'COD_QCOW2_EVERY', 3))('$name', ({ kind, index }) => {
    let path: string;
    let expected: Buffer;
    let source: Source;
    beforeAll(async () => {
      const folder = join(all, String(index));
      mkdirSync(folder);
      kind.make(folder);
      path = join(folder, TOP);
      qemu('qemu-img', 'convert', '-t', 'unsafe', '-f', 'qcow2', '-O', 'raw', path, `${path}.expected`);
      expected = readFileSync(`${path}.expected`);
      source = await qcow2Source(await fileSource(path), filesIn(dirname(path)));
    });
    afterAll(() => source.close());

    it('has the size and an identity', () => {
      expect(source.size).toBe(expected.length);
      expect(source.identity).toMatch(/^qcow2\(file:/);
    });

    it('reads as a whole', async () => {
      const into = new Uint8Array(source.size);
      await source.read(into, 0);
      expectBytes(into, expected);
    });

    it.each([undefined, 2 ** 21])('streams as a whole in pieces of %s', async (pieceBytes) => {
      expectBytes(await streamed(source, 0, source.size, pieceBytes), expected);
    });

    it('reads and streams in parts', async () => {
      const random = seededRandom(index + 100);
      const reads = Array.from({ length: READS }, async () => {
        const offset = random.below(source.size);
        const length = Math.min(source.size - offset, random.below(random.oneIn(4) ? 700_000 : 9000));
        const into = new Uint8Array(length + 2).fill(0xee);
        await source.read(into.subarray(1, length + 1), offset);
        expectBytes(into.subarray(1, length + 1), expected.subarray(offset, offset + length));
        expect([into[0], into[length + 1]]).toEqual([0xee, 0xee]);
      });
      await Promise.all(reads);
      for (let round = 0; round < STREAMS; round++) {
        const offset = random.below(source.size);
        const length = random.below(source.size - offset);
        expectBytes(await streamed(source, offset, length), expected.subarray(offset, offset + length));
      }
    });

    it('knows of the zeros that QEMU knows of', async () => {
      const zeros = zerosOf(path);
      const extents = await source.extents!(0, source.size);
      let at = 0;
      for (const { length, zero } of extents) {
        const [start, end] = [at, (at += length)];
        if (zero)
          expect(
            zeros.some((run) => run.start <= start && end <= run.end),
            `${start} to ${end}`,
          ).toBe(true);
        else if (kind.hasExactZeros) {
          const missed = zeros.filter((run) => Math.min(run.end, end) - Math.max(run.start, start) >= 2 ** 20);
          expect(missed).toEqual([]);
        }
      }
      expect(at).toBe(source.size);
    });
  });
});
