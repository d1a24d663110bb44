/**
 * A process for owners.long.test.ts, on a machine whose clocks run faster. It opens the copy, says so, reports what it
 * reads, writes growing numbers to a block that no other owner has, reports each that is flushed, and closes.
 *
 * Arguments: directory, name of the machine, and how much faster its clocks run.
 */

import { join } from 'node:path';
import { lockFile } from '../../src/fs/node-lock.ts';
import type { Machine } from '../../src/fs/node-process.ts';
import { type CodError, openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { bytesSource } from '../../src/sources/bytes.ts';

const [directory, name, speedText] = process.argv.slice(2) as [string, string, string];
const speed = Number(speedText);
const BLOCK = 4096;
const BLOCKS = 2048;
const WRITES = 30;

const machine: Machine = {
  bootId: `boot-${name}`,
  machineId: name,
  host: name,
  now: () => performance.now() * speed,
  wallNow: () => Date.now() * speed,
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      setTimeout(resolve, ms / speed);
      signal?.addEventListener('abort', () => reject(signal.reason));
    }),
  repeat: (ms, task) => {
    const timer = setInterval(task, ms / speed).unref();
    return () => clearInterval(timer);
  },
};

/** The parent gives each owner a block of its own. */
let onNumber: (block: number) => void;
process.on('message', (block: number) => onNumber(block));

function send(message: unknown): Promise<void> {
  return new Promise((resolve) => process.send!(message, () => resolve()));
}

async function own(): Promise<void> {
  const files = nodeFileSystem(directory);
  const device = await openDevice({
    source: bytesSource(new Uint8Array(BLOCK * BLOCKS), { identity: 'zeros' }),
    fileSystem: { ...files, lock: (path, options) => lockFile(join(directory, path), { ...options, machine }) },
    target: 'disk',
    hydrate: false,
  });
  const block = new Promise<number>((resolve) => (onNumber = resolve));
  const all = new Uint8Array(BLOCK * BLOCKS);
  try {
    await send({ opened: true });
    const number = await block;
    await device.read(all, 0);
    const found = new DataView(all.buffer);
    const values = Array.from({ length: BLOCKS }, (_, index) => found.getUint32(index * BLOCK, true));
    await send({ number, values });
    const bytes = new Uint8Array(BLOCK);
    for (let value = 1; value <= WRITES; value++) {
      new DataView(bytes.buffer).setUint32(0, value, true);
      await device.write(bytes, number * BLOCK);
      await device.flush();
      await send({ block: number, flushed: value });
    }
  } finally {
    await device.close();
  }
}

for (;;) {
  try {
    await own();
  } catch (error) {
    const { code, message } = error as CodError;
    // COD_EXISTS: both owners of a take-over make new files. One of them, or the other, opens the copy later.
    if (!['COD_LOCKED', 'COD_POISONED', 'COD_EXISTS'].includes(code)) await send({ failed: `${code} ${message}` });
  }
  await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
}
