/**
 * Metadata files that were put back to an older moment, one by one and together, as a partial restore does. The log
 * refuses them, or each byte reads as something that was written there, or as the source's.
 */

import { expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { isCodError } from '../../src/index.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { CrashingFileSystem, SimulatedClock, seededRandom } from '../../src/testing/index.ts';

const BLOCK = 4096;
const BLOCKS = 6;
const SOURCE = 200;
const FILES = ['t.bak', 't.bak.1', 't.wil', 't.wil.1'];
const SUBSETS = Array.from({ length: 2 ** FILES.length - 1 }, (_, bits) =>
  FILES.filter((_, index) => (bits + 1) & (1 << index)),
);

async function open(fileSystem: CrashingFileSystem): Promise<InlineDevice> {
  let seed = 0;
  return openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.fill(++seed) },
    {
      source: bytesSource(new Uint8Array(BLOCKS * BLOCK).fill(SOURCE)),
      fileSystem,
      target: 't',
      hydrate: false,
      checkpointIntervalMs: 2 ** 30,
    },
  );
}

async function contentOf(device: InlineDevice): Promise<Uint8Array> {
  const bytes = new Uint8Array(BLOCKS * BLOCK);
  await device.read(bytes, 0);
  return bytes.filter((_, index) => index % BLOCK === 0);
}

/** Epoch of a log, or undefined if the file holds none. */
async function epochOf(fileSystem: CrashingFileSystem, name: string): Promise<bigint | undefined> {
  try {
    const file = await fileSystem.open(name);
    const header = new Uint8Array(512);
    await file.read(header, 0);
    return header[504] === 0 ? undefined : new DataView(header.buffer).getBigUint64(32, true);
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND') || isCodError(error, 'COD_SHORT_READ')) return undefined;
    throw error;
  }
}

interface Moment {
  readonly files: CrashingFileSystem;
  readonly epochs: readonly (bigint | undefined)[];
}

it('is refused, or reads as what was written there; only an older state of the same log loses a flush', async () => {
  const fileSystem = new CrashingFileSystem();
  const device = await open(fileSystem);
  const random = seededRandom(5);
  const written = Array.from({ length: BLOCKS }, () => new Set([SOURCE]));
  const last = new Uint8Array(BLOCKS).fill(SOURCE);
  const moments: Moment[] = [];
  const note = async (): Promise<void> => {
    const files = fileSystem.duplicate();
    moments.push({ files, epochs: await Promise.all(FILES.map((name) => epochOf(files, name))) });
  };
  await note();
  for (let value = 1; value <= 30; value++) {
    const block = random.below(BLOCKS);
    await device.write(new Uint8Array(BLOCK).fill(value), block * BLOCK);
    written[block]!.add(value);
    last[block] = value;
    await (random.oneIn(4) ? device.checkpoint() : device.flush());
    await note();
  }
  const now = moments.at(-1)!;
  const seen = { refused: 0, newest: 0, older: 0 };
  for (const moment of moments.slice(0, -1)) {
    for (const names of SUBSETS) {
      const files = now.files.duplicate();
      files.putBack(moment.files, names);
      let opened: InlineDevice;
      try {
        opened = await open(files);
      } catch (error) {
        expect(error).toMatchObject({ code: expect.stringMatching(/^COD_(CORRUPT|EXISTS)$/) });
        seen.refused++;
        continue;
      }
      const content = await contentOf(opened);
      await opened.close();
      for (const [block, value] of content.entries()) expect(written[block]).toContain(value);
      if (Buffer.compare(content, last) === 0) seen.newest++;
      else {
        seen.older++;
        const isSameLog = names.some((name) => {
          const index = FILES.indexOf(name);
          return name.includes('.wil') && now.epochs[index] === moment.epochs[index];
        });
        const isWhole = FILES.every(
          (name, index) => names.includes(name) || now.epochs[index] === moment.epochs[index],
        );
        if (!isSameLog && !isWhole)
          throw new Error(`${names} of moment ${moments.indexOf(moment)}: ${content}, not ${last}`);
      }
    }
  }
  // Each outcome occurs, else the test shows nothing.
  expect(Object.values(seen).every((count) => count > 0)).toBe(true);
  await device.close();
});
