/** Damage in files of format 1 that looks like the work of this package. */

import { expect, it } from 'vitest';
import { claim } from '../../src/core/headers.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import { type Image, MemoryFiles } from './memory-files.ts';
import { format1State, SIZE } from './states.ts';

function zeroed({ bytes, size }: Image, length: number): Image {
  return { bytes: bytes.slice().fill(0, 0, length), size };
}

it.each([
  { checkpoint: 'disk.bak', file: 'disk.bak' },
  { checkpoint: 'disk.bak.1', file: 'disk.bak.1' },
  { checkpoint: 'disk.bak', file: 'disk.wil' },
  { checkpoint: 'disk.bak', file: 'disk.wil.1' },
] as const)('a zeroed magic of $file is damage, since no crash leaves it in a file that counts', async (one) => {
  const { images } = format1State(one.checkpoint);
  await inspectMetadata(new MemoryFiles(images), 'disk', { size: SIZE });
  for (let length = 1; length <= 8; length++) {
    const damaged = new Map(images).set(one.file, zeroed(images.get(one.file)!, length));
    await expect(inspectMetadata(new MemoryFiles(damaged), 'disk', { size: SIZE })).rejects.toMatchObject({
      code: 'COD_CORRUPT',
      details: { file: one.file },
    });
  }
});

it('a claim of `.bak` that was cut short is what a conversion leaves if `.bak.1` counts', async () => {
  const { images } = format1State('disk.bak.1');
  const { files: _, ...before } = await inspectMetadata(new MemoryFiles(images), 'disk', { size: SIZE });
  const old = images.get('disk.bak.1')!.bytes;
  for (let length = 0; length <= 512; length++) {
    const bytes = new Uint8Array(Math.max(512, old.length));
    bytes.set(old);
    bytes[511] = 0;
    bytes.set(claim('checkpoint').subarray(0, length));
    const cut = new MemoryFiles(new Map(images).set('disk.bak', { bytes, size: bytes.length }));
    expect(await inspectMetadata(cut, 'disk', { size: SIZE })).toMatchObject(before);
  }
});

it('a checkpoint of any length is what a conversion leaves if it has a claim only', async () => {
  const { images } = format1State('disk.bak');
  const before = await inspectMetadata(new MemoryFiles(images), 'disk', { size: SIZE });
  const cut = new Map(images).set('disk.bak.1', { bytes: claim('checkpoint'), size: 2 ** 24 });
  expect(await inspectMetadata(new MemoryFiles(cut), 'disk', { size: SIZE })).toEqual(before);
});

it('a claimed log among files of format 1 is damage: the checkpoint that it follows is missing', async () => {
  const { images } = format1State('disk.bak');
  const claimed = new Map(images).set('disk.wil', { bytes: claim('log'), size: 65_536 });
  await expect(inspectMetadata(new MemoryFiles(claimed), 'disk', { size: SIZE })).rejects.toMatchObject({
    code: 'COD_CORRUPT',
    details: { file: 'disk.wil' },
  });
});

it('a zeroed magic of `.bak.1` is damage although `.bak` is there, since `.bak` may be torn then', async () => {
  const { images } = format1State('disk.bak');
  const damaged = new Map(images).set('disk.bak.1', zeroed(images.get('disk.bak')!, 3));
  await expect(inspectMetadata(new MemoryFiles(damaged), 'disk', { size: SIZE })).rejects.toMatchObject({
    code: 'COD_CORRUPT',
    details: { file: 'disk.bak.1' },
  });
});
