/** The metadata of both formats: read by an inspection, and by a device that opens and is written. */

import { openDeviceIn } from '../../../../src/device/open.ts';
import type { Source } from '../../../../src/index.ts';
import { inspectMetadata } from '../../../../src/log/inspect.ts';
import { SimulatedClock } from '../../../../src/testing/index.ts';
import { Core } from '../../../../src/wasm/core.ts';
import { type Image, type Images, MemoryFiles } from '../../../log/memory-files.ts';
import { BASES, type Base, SUFFIXES, seal, TARGET } from '../../cases.ts';
import { checkSize, Fields, joined, onlyCodErrors, type Target, u8, u32 } from '../target.ts';

/**
 * The input: flags, which target lies beside the files, the size of the device in blocks, and the files.
 *
 * Flags: 1 checksums are repaired; 2 a device is opened too; 4 the device is written.
 */
const [SEALED, OPENED, WRITTEN] = [1, 2, 4];
const BLOCK_BYTES = 4096;
const MAX_FILES = 8;
const core = Core.create();

/** The beginnings of targets that an input can choose. */
const targets: readonly Uint8Array[] = [
  new Uint8Array(0),
  ...[...BASES.values()].flatMap(({ targets }) => [targets.kept, targets.some]),
];

function filesOf(fields: Fields, isSealed: boolean): Map<string, Image> {
  const files = new Map<string, Image>();
  for (let count = 0; count < MAX_FILES && !fields.isAtEnd; count++) {
    const name = `${TARGET}.${SUFFIXES[fields.u8() % SUFFIXES.length]!}`;
    const size = fields.u32() + fields.u8() * 2 ** 32;
    const bytes = fields.bytes(Math.min(size, fields.u32()));
    files.set(name, isSealed ? seal(core, { bytes, size }) : { bytes, size });
  }
  return files;
}

async function run(input: Uint8Array): Promise<void> {
  const fields = new Fields(input);
  const flags = fields.u8();
  const target = targets[fields.u8() % targets.length]!;
  const given = fields.u32();
  const images = filesOf(fields, (flags & SEALED) !== 0);
  const size = given % 2 === 0 ? (given / 2) * BLOCK_BYTES : (given + 1) / 2;
  const withTarget = (length: number): Images =>
    new Map(images).set(TARGET, { bytes: target.subarray(0, length), size: length });
  const found = await onlyCodErrors(() => inspectMetadata(new MemoryFiles(withTarget(size)), TARGET, { size }));
  if (found === undefined || (flags & OPENED) === 0 || found.size === 0) return;
  checkSize(found.size);
  const source: Source = {
    size: found.size,
    ...(found.identity === null ? {} : { identity: found.identity }),
    read: async (into) => void into.fill(1),
    close: async () => undefined,
  };
  await onlyCodErrors(async () => {
    const device = await openDeviceIn(
      { clock: new SimulatedClock(), randomBytes: (into) => into.fill(7) },
      {
        source,
        fileSystem: new MemoryFiles(withTarget(found.size), { keepsSynced: false }),
        target: TARGET,
        hydrate: false,
      },
    );
    try {
      const bytes = new Uint8Array(Math.min(BLOCK_BYTES, device.size));
      await device.read(bytes, 0);
      await device.read(bytes, device.size - bytes.length);
      await device.extents(0, device.size, 64);
      if ((flags & WRITTEN) !== 0) {
        await device.write(bytes, 0);
        await device.write(bytes.subarray(0, 100), 0);
        await device.discard(0, Math.min(device.size, 3 * BLOCK_BYTES));
        await device.flush();
      }
    } finally {
      await device.close();
    }
  });
}

/** The encoding of a frozen state. */
function encoded({ images, size }: Base, flags: number, target: number): Uint8Array {
  const parts = [u8(flags), u8(target), u32(size % BLOCK_BYTES === 0 ? (2 * size) / BLOCK_BYTES : 2 * size - 1)];
  for (const [name, image] of images) {
    const suffix = SUFFIXES.findIndex((suffix) => name === `${TARGET}.${suffix}`);
    if (suffix < 0) continue;
    parts.push(u8(suffix), u32(image.size), u8(0), u32(image.bytes.length), image.bytes);
  }
  return joined(...parts);
}

function* seedsOf(format: 1 | 2): Iterable<Uint8Array> {
  for (const [index, base] of [...BASES.values()].entries()) {
    if (base.format !== format) continue;
    for (const flags of format === 1
      ? [0, OPENED, OPENED | WRITTEN]
      : [0, SEALED, SEALED | OPENED, SEALED | OPENED | WRITTEN])
      for (const target of [0, 1 + 2 * index]) yield encoded(base, flags, target);
  }
}

const limits = { maxBytes: 2 ** 17, maxAllocated: 2 ** 28 };
export const format1: Target = { run, seeds: () => seedsOf(1), ...limits };
export const format2: Target = { run, seeds: () => seedsOf(2), ...limits };
