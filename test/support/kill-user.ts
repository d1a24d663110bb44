/**
 * A process that uses a device until it is killed.
 *
 * It prints each event as a line before its next step: `opening`, `ready`, `begin USER INDEX`, `done USER INDEX`.
 */

import { writeSync } from 'node:fs';
import { type Device, openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { type LoadOrder, loadOperation } from './kill-load.ts';

const order = JSON.parse(process.argv[2]!) as LoadOrder;

function say(line: string): void {
  const bytes = Buffer.from(`${line}\n`);
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(1, bytes, done);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}

async function perform(device: Device, user: number, index: number): Promise<void> {
  const operation = loadOperation(order, user, index);
  switch (operation.kind) {
    case 'write':
      return device.write(operation.bytes, operation.offset, { fua: operation.fua });
    case 'writeZeroes':
    case 'discard':
      return device[operation.kind](operation.offset, operation.bytes.length);
    case 'read':
      return device.read(new Uint8Array(operation.length), operation.offset);
    default:
      return device[operation.kind]();
  }
}

async function use(device: Device, user: number): Promise<never> {
  for (let index = 0; ; index++) {
    say(`begin ${user} ${index}`);
    await perform(device, user, index);
    say(`done ${user} ${index}`);
    // Yields, so that neither the background copy nor another user starves.
    if (index % 4 === 3) await new Promise(setImmediate);
  }
}

say('opening');
const device = await openDevice({
  source: await fileSource(order.source),
  fileSystem: nodeFileSystem(),
  target: order.target,
  checkpointIntervalMs: 40,
  hydrate: { rateBytesPerSecond: order.rateBytesPerSecond },
});
say('ready');
await Promise.all(Array.from({ length: order.users }, (_, user) => use(device, user)));
