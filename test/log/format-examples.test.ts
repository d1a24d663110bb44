/** The hex dumps of docs/FORMAT.md: annotations, decoded values and written bytes must agree. */

import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { geometry } from '../../src/core/geometry.ts';
import { decodeCheckpointHeader, decodeLogHeader } from '../../src/core/headers.ts';
import { LogScan } from '../../src/core/replay.ts';
import { openDeviceIn } from '../../src/device/open.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { SimulatedClock } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { expectBytes } from '../support/bytes.ts';
import { dump, dumpsIn, undump } from './hex-dump.ts';
import { type Image, MemoryFiles } from './memory-files.ts';

const SIZE = 5 * 4096 + 700;
/** What users write, so that the target proves it. */
const USERS_BYTE = 0xab;
const text = readFileSync(new URL('../../docs/FORMAT.md', import.meta.url), 'utf8');
const dumps = dumpsIn(text);
const SESSION = Uint8Array.from({ length: 16 }, (_, index) => 0xa0 + index);

function example(name: string): Uint8Array<ArrayBuffer> {
  const found = dumps.get(name);
  if (found === undefined) throw new Error(`docs/FORMAT.md has no example ${name}`);
  return undump(found);
}

/** The given examples under these names, beside a target whose block 4 reads so. */
function volume(files: Record<string, string>, block4?: Uint8Array): MemoryFiles {
  const images = new Map<string, Image>();
  if (block4 !== undefined) {
    const target = new Uint8Array(SIZE);
    target.set(block4, 4 * 4096);
    images.set('disk', { bytes: target, size: SIZE });
  }
  for (const [name, from] of Object.entries(files))
    images.set(name, { bytes: example(from), size: example(from).length });
  return new MemoryFiles(images);
}

/** Block 4 with these bytes written, as [first, end). */
function block4(...parts: [number, number][]): Uint8Array {
  const block = new Uint8Array(4096);
  for (const [start, end] of parts) block.fill(USERS_BYTE, start, end);
  return block;
}

/** The sequence of operations that docs/FORMAT.md describes. */
async function writtenFiles(): Promise<Map<string, Uint8Array>> {
  const fileSystem = new MemoryFiles();
  const device = await openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.set(SESSION) },
    {
      source: bytesSource(new Uint8Array(SIZE), { identity: 'etag "1a2b"' }),
      fileSystem,
      target: 'disk',
      hydrate: false,
    },
  );
  const write = (offset: number, length: number): Promise<void> =>
    device.write(new Uint8Array(length).fill(USERS_BYTE), offset);
  await write(0, 8192);
  await write(3 * 4096 + 16, 8);
  await write(3 * 4096 + 512, 512);
  await write(5 * 4096, 700);
  await device.checkpoint();
  await write(0, 3 * 4096);
  await write(4 * 4096 + 50, 100);
  await device.flush();
  await write(4 * 4096, 5);
  await write(4 * 4096 + 5, 3);
  await device.read(new Uint8Array(4096), 3 * 4096);
  await device.checkpoint();
  const files = new Map<string, Uint8Array>();
  for (const [name, { bytes, size }] of fileSystem.images()) {
    const whole = new Uint8Array(size);
    whole.set(bytes);
    files.set(name, whole);
  }
  return files;
}

describe('the examples of docs/FORMAT.md', () => {
  let written: Map<string, Uint8Array>;
  beforeAll(async () => {
    written = await writtenFiles();
  });

  it('are two of each format', () => {
    expect([...dumps.keys()]).toEqual(['disk.bak', 'disk.wil', 'old.bak', 'old.wil']);
  });

  it.each(['disk.bak', 'disk.wil', 'old.bak', 'old.wil'])('annotate each field of %s correctly', (name) => {
    expect(dumps.get(name)).toBe(dump(example(name)));
  });

  it.each(['disk.bak', 'disk.wil'])('are the bytes of %s that a device writes', (name) => {
    // To update the document when the format changes.
    if (process.env['COD_PRINT_EXAMPLES'])
      process.stdout.write(`\n\`\`\`hex ${name}\n${dump(written.get(name)!)}\n\`\`\`\n`);
    expectBytes(example(name), written.get(name)!);
  });

  it('are read as a checkpoint and the log that continues it', async () => {
    const core = Core.create();
    expect(decodeCheckpointHeader(core, example('disk.bak'))).toMatchObject({
      state: 'valid',
      header: {
        session: SESSION,
        epoch: 2,
        size: SIZE,
        standalone: false,
        bytes: example('disk.bak').length,
        syncedBlocks: 3,
        dirtyBlocks: 1,
      },
    });
    expect(decodeLogHeader(core, example('disk.wil'))).toMatchObject({
      state: 'valid',
      header: { session: SESSION, epoch: 2, size: SIZE, capacity: 2 ** 20 },
    });
    const scan = new LogScan(core, geometry({ size: SIZE, blockSize: 4096 }), { epoch: 2 });
    scan.feed(example('disk.wil').subarray(512));
    expect(scan.finish()).toMatchObject({
      frames: 9,
      records: 7,
      barrierThrough: 3,
      continued: true,
      basedAnywhere: true,
      isDamaged: false,
    });
  });

  it.each([
    { text: 'is missing', content: undefined, part: [50, 100] },
    { text: 'lost what was not flushed', content: block4([50, 150]), part: [50, 100] },
    { text: 'holds the write of bytes 0 to 4', content: block4([50, 150], [0, 5]), part: [0, 5] },
    { text: 'holds the write of bytes 5 to 7 as well', content: block4([50, 150], [0, 8]), part: [0, 8] },
    { text: 'holds the last write, but not the one before', content: block4([50, 150], [5, 8]), part: [50, 100] },
    { text: 'holds none of the writes', content: block4(), part: [50, 100] },
  ])('are read as the document says if the target $text', async ({ content, part }) => {
    const files = volume({ 'disk.bak': 'disk.bak', 'disk.wil': 'disk.wil' }, content);
    expect(await inspectMetadata(files, 'disk')).toMatchObject({
      size: SIZE,
      blockSize: 4096,
      totalBlocks: 6,
      synced: [
        [0, 2],
        [5, 5],
      ],
      dirty: [
        {
          block: 3,
          ranges: [
            [16, 8],
            [512, 512],
          ],
        },
        { block: 4, ranges: part[0] === 50 ? [part] : [part, [50, 100]] },
      ],
    });
  });

  it('of format 1 are read together', async () => {
    const files = volume({ 'old.bak': 'old.bak', 'old.wil': 'old.wil' });
    expect(await inspectMetadata(files, 'old', { size: SIZE })).toMatchObject({
      synced: [
        [0, 1],
        [3, 3],
      ],
      dirty: [{ block: 4, ranges: [[50, 100]] }],
      files: [
        { name: 'old.bak', format: 1, records: 1, tornBytes: 0 },
        { name: 'old.wil', format: 1, records: 2, tornBytes: 8 },
      ],
    });
  });
});
