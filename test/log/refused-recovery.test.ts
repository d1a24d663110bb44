/** A recovery that is refused leaves the core as it was: nothing of its memory is lost, and the next state is read. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { isCodError } from '../../src/core/errors.ts';
import { recover } from '../../src/log/recovery.ts';
import { Slots } from '../../src/log/slots.ts';
import { Core } from '../../src/wasm/core.ts';
import { type Image, MemoryFiles } from './memory-files.ts';

const MIB = 2 ** 20;
const fixtures = new URL('../fixtures/', import.meta.url);

/** The metadata of a frozen state, its logs as long as their headers say. */
function load(state: string): Map<string, Image> {
  const folder = new URL(`${state}/`, fixtures);
  const images = new Map<string, Image>();
  for (const name of readdirSync(folder).filter((file) => file.startsWith('disk.raw'))) {
    const bytes = new Uint8Array(readFileSync(new URL(name, folder)));
    const isSparse = name.includes('.wil') && bytes[8] === 2;
    images.set(name, { bytes, size: isSparse ? Number(new DataView(bytes.buffer).getBigUint64(56, true)) : bytes.length });
  }
  return images;
}

async function outcome(core: Core, images: Map<string, Image>, size: number): Promise<string> {
  try {
    const state = await recover(core, new Slots(new MemoryFiles(images), 'disk.raw'), async () => size);
    state?.map.dispose();
    state?.dirty.dispose();
    return state === undefined ? 'nothing' : `${state.map.constructor.name}`;
  } catch (error) {
    return isCodError(error) ? error.code : String(error);
  }
}

it.each([
  // Its last log ends in a record of no known type; tens of thousands of parts were taken in before.
  { state: 'golden/dirty-heavy', file: 'disk.raw.wil', damage: (bytes: Uint8Array) => bytes.fill(7, bytes.length - 32) },
  // The log's last frame has a wrong checksum, behind a checkpoint with both maps.
  { state: 'format2/mid-copy', file: 'disk.raw.wil', damage: (bytes: Uint8Array) => (bytes[bytes.length - 8]! ^= 1) },
])('$state, damaged at the end of a log, a thousand times: the core needs no more memory for it', async ({ state, file, damage }) => {
  const expected = new URL(`${state}/expected.json`, fixtures);
  expect(existsSync(expected)).toBe(true);
  const { deviceSize, size = deviceSize } = JSON.parse(readFileSync(expected, 'utf8')) as { deviceSize: number; size?: number };
  const images = load(state);
  const bytes = images.get(file)!.bytes.slice();
  damage(bytes);
  const damaged = new Map(images).set(file, { bytes, size: images.get(file)!.size });
  const core = Core.create();
  expect(await outcome(core, images, size)).toBe('BlockMap');
  expect(await outcome(core, damaged, size)).toBe('COD_CORRUPT');
  const { memoryBytes } = core;
  expect(memoryBytes).toBeLessThan(16 * MIB);
  for (let times = 0; times < 1000; times++) expect(await outcome(core, damaged, size)).toBe('COD_CORRUPT');
  expect(core.memoryBytes).toBe(memoryBytes);
  expect(await outcome(core, images, size)).toBe('BlockMap');
});
