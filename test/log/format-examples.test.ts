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
const BOOT = 'boot 5';
const text = readFileSync(new URL('../../docs/FORMAT.md', import.meta.url), 'utf8');
const dumps = dumpsIn(text);
const SESSION = Uint8Array.from({ length: 16 }, (_, index) => 0xa0 + index);

function example(name: string): Uint8Array<ArrayBuffer> {
  const found = dumps.get(name);
  if (found === undefined) throw new Error(`docs/FORMAT.md has no example ${name}`);
  return undump(found);
}

function volume(files: Record<string, string>, bootId: string): MemoryFiles {
  const images = new Map<string, Image>();
  for (const [name, from] of Object.entries(files))
    images.set(name, { bytes: example(from), size: example(from).length });
  return new MemoryFiles(images, { bootId });
}

/** The sequence of operations that docs/FORMAT.md describes. */
async function writtenFiles(): Promise<Map<string, Uint8Array>> {
  const fileSystem = new MemoryFiles(new Map(), { bootId: BOOT });
  const device = await openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.set(SESSION) },
    {
      source: bytesSource(new Uint8Array(SIZE), { identity: 'etag "1a2b"' }),
      fileSystem,
      target: 'disk',
      hydrate: false,
    },
  );
  await device.write(new Uint8Array(8192), 0);
  await device.write(new Uint8Array(8), 3 * 4096 + 16);
  await device.write(new Uint8Array(512), 3 * 4096 + 512);
  await device.write(new Uint8Array(700), 5 * 4096);
  await device.checkpoint();
  await Promise.all([device.write(new Uint8Array(4096), 2 * 4096), device.write(new Uint8Array(100), 4 * 4096 + 50)]);
  await device.flush();
  await device.write(new Uint8Array(5), 4 * 4096);
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
        bodyBytes: example('disk.bak').length - 512,
        syncedBlocks: 3,
        dirtyBlocks: 1,
      },
    });
    expect(decodeLogHeader(core, example('disk.wil'))).toMatchObject({
      state: 'valid',
      header: { session: SESSION, epoch: 2, size: SIZE, bootName: new TextEncoder().encode(BOOT) },
    });
    const scan = new LogScan(core, geometry({ size: SIZE, blockSize: 4096 }), { epoch: 2 });
    scan.feed(example('disk.wil').subarray(512));
    expect(scan.finish()).toMatchObject({
      frames: 5,
      records: 3,
      barrierThrough: 2,
      continued: true,
      based: true,
      missing: false,
    });
  });

  it('are read in another boot up to the barrier', async () => {
    const files = volume({ 'disk.bak': 'disk.bak', 'disk.wil': 'disk.wil' }, 'boot 6');
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
        { block: 4, ranges: [[50, 100]] },
      ],
    });
  });

  it('are refused in the same boot without the log that continues the checkpoint', async () => {
    const files = volume({ 'disk.bak': 'disk.bak', 'disk.wil': 'disk.wil' }, BOOT);
    await expect(inspectMetadata(files, 'disk')).rejects.toMatchObject({ code: 'COD_CORRUPT', details: { epoch: 3 } });
  });

  it('of format 1 are read together', async () => {
    const files = volume({ 'old.bak': 'old.bak', 'old.wil': 'old.wil' }, BOOT);
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
