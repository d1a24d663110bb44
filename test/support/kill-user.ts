/**
 * A process that uses a device until it is killed.
 *
 * It prints each event as a line before its next step: `opening`, `ready`, `begin USER INDEX`, `done USER INDEX`, and
 * `failed USER INDEX` where the file system may fail.
 */

import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Device, type FileSystem, isCodError, openDevice } from '../../src/index.ts';
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

async function use(device: Device, user: number): Promise<void> {
  for (let index = 0; ; index++) {
    say(`begin ${user} ${index}`);
    try {
      await perform(device, user, index);
      say(`done ${user} ${index}`);
    } catch (error) {
      if (!order.mayFail) throw error;
      say(`failed ${user} ${index}`);
      if (!isCodError(error, 'COD_NO_SPACE')) return;
      await sleep(5);
    }
    // Yields, so that neither the background copy nor another user starves.
    if (index % 4 === 3) await new Promise(setImmediate);
  }
}

/** Plants a bug: a flush that is acknowledged and does nothing. */
function withoutSync(fileSystem: FileSystem): FileSystem {
  return changed(fileSystem, {
    open: async (...args) => changed(await fileSystem.open(...args), { sync: async () => undefined }),
  });
}

/** Returns `object` with other methods. */
function changed<T extends object>(object: T, methods: Partial<T>): T {
  return new Proxy(object, {
    get: (_, name) => {
      const value: unknown = Reflect.get(name in methods ? methods : object, name);
      return typeof value === 'function' ? value.bind(object) : value;
    },
  });
}

say('opening');
const device = await openDevice({
  source: await fileSource(order.source),
  fileSystem: order.syncsNothing ? withoutSync(nodeFileSystem()) : nodeFileSystem(),
  target: order.target,
  checkpointIntervalMs: 40,
  hydrate: { rateBytesPerSecond: order.rateBytesPerSecond },
});
say('ready');
await Promise.all(Array.from({ length: order.users }, (_, user) => use(device, user)));
// All users have failed: waits to be killed.
await sleep(600_000);
