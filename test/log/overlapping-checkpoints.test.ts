/** A call that promises durability covers what settled before it, also while an earlier checkpoint is in progress. */

import { expect, it } from 'vitest';
import { CELL_BYTES } from '../../src/core/layout.ts';
import { openDevice } from '../../src/index.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import { type IntentLog, openIntentLog } from '../../src/log.ts';
import { type Image, MemoryFiles } from './memory-files.ts';

const SIZE = 4 * CELL_BYTES;
const NAMES = ['log.bak', 'log.bak.1', 'log.wil', 'log.wil.1'];
const CELL = new Uint8Array(CELL_BYTES).fill(7);

const storage = { read: async (into: Uint8Array) => void into.fill(7), sync: async () => undefined };

/** Holds the next sync of a checkpoint, when its slices are written. */
function holdCheckpoint(files: MemoryFiles): { held: Promise<void>; release: () => void } {
  let release!: () => void;
  const released = new Promise<void>((resolve) => (release = resolve));
  const held = new Promise<void>((resolve) => {
    files.before = async ({ kind, name }) => {
      if (kind !== 'sync' || !name.startsWith('log.bak')) return;
      files.before = undefined;
      resolve();
      await released;
    };
  });
  return { held, release };
}

/** The synced blocks that a power cut leaves. */
async function durable(files: MemoryFiles): Promise<unknown> {
  const images = new Map<string, Image>();
  for (const name of NAMES) {
    const image = files.syncedImage(name);
    if (image !== undefined) images.set(name, image);
  }
  return (await inspectMetadata(new MemoryFiles(images), 'log')).synced;
}

async function write(log: IntentLog, cell: number): Promise<void> {
  const transaction = log.begin();
  await transaction.intend(cell * CELL_BYTES, CELL);
  await log.commit(transaction);
}

it.each(['checkpoint', 'close'] as const)('%s covers what was committed during an earlier checkpoint', async (end) => {
  const files = new MemoryFiles();
  const log = await openIntentLog({ fileSystem: files, name: 'log', size: SIZE, storage });
  await write(log, 0);
  const { held, release } = holdCheckpoint(files);
  const earlier = log.checkpoint();
  await held;
  await write(log, 1);
  const later = log[end]();
  release();
  await later;
  expect(await durable(files)).toEqual([[0, 1]]);
  await earlier;
  await log.close();
});

it('hydrated covers what was copied during an earlier checkpoint', async () => {
  const files = new MemoryFiles();
  let deliver!: () => void;
  const delivered = new Promise<void>((resolve) => (deliver = resolve));
  const source = {
    size: SIZE,
    read: async (into: Uint8Array, offset: number) => {
      if (offset > 0) await delivered;
      into.fill(7);
    },
    close: async () => undefined,
  };
  const device = await openDevice({
    source,
    fileSystem: files,
    target: 'log',
    hydrate: { concurrency: 1, extentBytes: 2 * CELL_BYTES },
  });
  await device.write(CELL, 0);
  const { held, release } = holdCheckpoint(files);
  const earlier = device.checkpoint();
  await held;
  deliver();
  while (device.status().syncedBlocks < 4) await new Promise(setImmediate);
  release();
  await device.hydrated;
  expect(await durable(files)).toEqual([[0, 3]]);
  await earlier;
  await device.close();
});
