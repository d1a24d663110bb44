/** Finishing is crashed at each of its operations: the copy is complete afterwards, with or without its metadata. */

import { expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { exploreCrashes, type Life } from '../../src/testing/index.ts';

const BLOCK = 4096;
const SIZE = 3 * BLOCK + 100;
const SOURCE = Uint8Array.from({ length: SIZE }, (_, index) => (index % 255) + 1);

function open({ fileSystem, clock, random }: Life): Promise<InlineDevice> {
  return openDeviceIn(
    { clock, randomBytes: (into) => random.fill(into) },
    { source: bytesSource(SOURCE), fileSystem, target: 't' },
  );
}

it('finishing leaves a complete target at any crash', async () => {
  let finished = 0;
  const { crashes } = await exploreCrashes(
    () => {
      let isComplete = false;
      return {
        work: async (life) => {
          const device = await open(life);
          await device.hydrated;
          isComplete = true;
          await device.finish();
        },
        recover: async (life) => {
          const { fileSystem } = life;
          const device = await open(life).catch((error: unknown) => {
            // Without metadata the target is an ordinary file, which must be the complete copy.
            expect(error).toMatchObject({ code: 'COD_EXISTS' });
            return undefined;
          });
          const found = new Uint8Array(SIZE);
          if (device === undefined) {
            expect(isComplete).toBe(true);
            finished++;
            await (await fileSystem.open('t')).read(found, 0);
          } else {
            expect(device.status().syncedBlocks).toBeGreaterThanOrEqual(isComplete ? 4 : 0);
            await device.read(found, 0);
            await device.close();
          }
          expect(found).toEqual(SOURCE);
        },
      };
    },
    { seed: 3, crashes: 3, settle: () => new Promise(process.nextTick) },
  );
  expect(crashes).toBeGreaterThan(50);
  expect(finished).toBeGreaterThan(0);
});
