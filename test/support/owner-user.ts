/**
 * A process for owners.test.ts, on a machine whose clocks run faster. It opens the copy, says so, reads the blocks of
 * the owners before it, and flushes a write to its own block. Then it reports what it has read, writes growing numbers
 * to its block, reports each that is flushed, and closes.
 *
 * It pauses now and then right before a system call that changes a name, for longer than a take-over needs.
 *
 * Arguments: directory, name of the machine, how much faster its clocks run, and of how many such calls one is late.
 */

import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { localFileSystem } from '../../src/fs/node.ts';
import type { Machine } from '../../src/fs/node-process.ts';
import { type CodError, openDevice, type Source } from '../../src/index.ts';

const [directory, name, speedText, pauseText] = process.argv.slice(2) as [string, string, string, string];
const speed = Number(speedText);
const BLOCK = 4096;
const BLOCKS = 4096;
const WRITES = 10;
/** So many owners have their blocks after that of an owner. */
const SUCCESSORS = 16;
const LONGEST_PAUSE_MS = 400;

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

/** Holds up the process, as a stop does, right before one of many calls. The kernel still answers at its socket. */
function late<A extends unknown[], R>(call: (...args: A) => R, isLate: (...args: A) => boolean = () => true) {
  return (...args: A): R => {
    if (isLate(...args) && Math.random() * Number(pauseText) < 1)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Math.random() * LONGEST_PAUSE_MS);
    return call(...args);
  };
}

fs.linkSync = late(fs.linkSync);
fs.renameSync = late(fs.renameSync);
fs.unlinkSync = late(fs.unlinkSync);
fs.openSync = late(fs.openSync, (_, flags) => (Number(flags) & fs.constants.O_CREAT) !== 0);
syncBuiltinESMExports();

/** A process is often stopped while it waits for an answer, and stores it when it continues. */
const farZeros: Source = {
  size: BLOCK * BLOCKS,
  identity: 'zeros',
  read: async (into) => {
    await new Promise((resolve) => setTimeout(resolve, 10 * Math.random()));
    into.fill(0);
  },
  close: async () => undefined,
};

/** The parent gives each owner a block of its own. */
let onNumber: (block: number) => void;
process.on('message', (block: number) => onNumber(block));

function send(message: unknown): Promise<void> {
  return new Promise((resolve) => process.send!(message, () => resolve()));
}

async function own(): Promise<void> {
  const device = await openDevice({
    source: farZeros,
    fileSystem: localFileSystem(directory, {}, { machine }),
    target: 'disk',
    hydrate: false,
  });
  const block = new Promise<number>((resolve) => (onNumber = resolve));
  try {
    await send({ opened: true });
    const number = await block;
    const before = new Uint8Array(number * BLOCK);
    await device.read(before, 0);
    const found = new DataView(before.buffer);
    const values = Array.from({ length: number }, (_, index) => found.getUint32(index * BLOCK, true));
    // An owner that is replaced meanwhile must not store these over what its successors write.
    void device.hydrateRange((number + 1) * BLOCK, SUCCESSORS * BLOCK).catch(() => undefined);
    const bytes = new Uint8Array(BLOCK);
    // An owner that was replaced while it was held up may read old bytes, but it cannot flush.
    await device.write(bytes, number * BLOCK);
    await device.flush();
    await send({ number, values });
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
