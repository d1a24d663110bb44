/** What is here of a copy can be used without its source, and while the source holds another image. */

import { describe, expect, inject, test } from 'vitest';
import { type BrowserDevice, type BrowserSource, openDevice } from '../../src/browser.ts';
import { IMAGE_BYTES, imageBytes } from './image.ts';

const BLOCK = 4096;
const image = imageBytes();
const startWorker = (): Worker =>
  new Worker(new URL('../../src/browser-worker.ts', import.meta.url), { type: 'module' });

const open = (target: string, source: BrowserSource | undefined, hydrate: false | object): Promise<BrowserDevice> =>
  openDevice({ target, source, hydrate, worker: startWorker });

async function expectBytes(device: BrowserDevice, offset: number, expected: Uint8Array): Promise<void> {
  const found = new Uint8Array(expected.length);
  await device.read(found, offset);
  expect(found.findIndex((byte, index) => byte !== expected[index])).toBe(-1);
}

const fromUrl = (): BrowserSource => new URL('/image', inject('serverUrl'));

interface Case {
  readonly of: string;
  readonly source: () => BrowserSource;
  readonly later: string;
  readonly other: () => BrowserSource | undefined;
}

const none = { later: 'without a source', other: () => undefined };
const cases: readonly Case[] = [
  { of: 'a URL', source: fromUrl, ...none },
  { of: 'a URL', source: fromUrl, later: 'refused', other: () => new URL('/no-cors', inject('serverUrl')) },
  { of: 'a URL', source: fromUrl, later: 'with other bytes', other: () => new File([new Uint8Array(5000)], 'other') },
  { of: 'a File', source: () => new File([image], 'disk.raw', { lastModified: 1 }), ...none },
  { of: 'a Blob', source: () => new Blob([image]), ...none },
];

describe('a copy', () => {
  test.each(cases)('of $of opens $later', async ({ of, source, later, other }) => {
    const target = `without ${of} ${later} ${Date.now()}`;
    const mine = new TextEncoder().encode('MINE');
    const first = await open(target, source(), false);
    await first.hydrateRange(0, BLOCK);
    await first.write(mine, 1000);
    await first.close();

    const partial = await open(target, other(), false);
    await expectBytes(partial, 1000, mine);
    await expectBytes(partial, 1004, image.subarray(1004, BLOCK));
    await expect(partial.read(new Uint8Array(1), BLOCK)).rejects.toMatchObject({
      code: expect.stringMatching(/^COD_(SOURCE_IO|SOURCE_CHANGED|SIZE_MISMATCH)$/),
    });
    await partial.close();

    const resumed = await open(target, source(), {});
    await resumed.hydrated;
    await resumed.close();

    const complete = await open(target, other(), {});
    await complete.hydrated;
    await expectBytes(complete, 1000, mine);
    await expectBytes(complete, BLOCK, image.subarray(BLOCK, IMAGE_BYTES));
    await complete.write(mine, IMAGE_BYTES - 4);
    await complete.close();
  });
});
