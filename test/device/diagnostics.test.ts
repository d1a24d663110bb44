/** What a device publishes on diagnostics channels. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { expect, onTestFinished, test } from 'vitest';
import {
  bytesSource,
  CodError,
  type DeviceMessage,
  type DurabilityMessage,
  type FileSystem,
  openDevice,
  type Source,
  type SourceMessage,
} from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';

const SIZE = 2 ** 20;

/** Collects the messages of a channel that are about `target`, until the test ends. */
function collect<Message extends { readonly target: string }>(channel: string, target: string): Message[] {
  const messages: Message[] = [];
  const onMessage = (message: unknown): void => {
    if ((message as Message).target === target) messages.push(message as Message);
  };
  subscribe(channel, onMessage);
  onTestFinished(() => void unsubscribe(channel, onMessage));
  return messages;
}

/** A source whose reads complete later, or fail with `error`. */
function laterSource(error?: unknown): Source {
  return {
    size: SIZE,
    identity: 'later',
    read: async (into) => {
      await Promise.resolve();
      if (error !== undefined) throw error;
      into.fill(7);
    },
    close: async () => undefined,
  };
}

test('a device publishes its opening, its events and its end', async () => {
  const messages = collect<DeviceMessage>('copyondemand:device', 'events');
  const device = await openDevice({
    source: bytesSource(new Uint8Array(SIZE)),
    fileSystem: memfsFileSystem(),
    target: 'events',
  });
  await device.hydrated;
  await device.close();
  const opened = messages.filter((message) => message.type === 'opened');
  expect(opened).toHaveLength(1);
  expect(opened[0]!.device).toBe(device);
  expect(messages).toContainEqual({ target: 'events', type: 'state', state: 'hydrated' });
  expect(messages.some(({ type }) => type === 'checkpoint')).toBe(true);
  expect(messages.at(-1)).toEqual({ target: 'events', type: 'state', state: 'closed' });
});

test.each([
  ['reads later', laterSource()],
  ['completes synchronously', bytesSource(new Uint8Array(SIZE).fill(7))],
])('a request for a reader is published, from a source that %s', async (_, source) => {
  const target = `demand ${_}`;
  const messages = collect<SourceMessage>('copyondemand:source', target);
  const device = await openDevice({ source, fileSystem: memfsFileSystem(), target, hydrate: false });
  await device.read(new Uint8Array(10), 8190);
  await device.close();
  expect(messages).toEqual([
    {
      target,
      kind: 'demand',
      offset: 4096,
      length: 8192,
      bytes: 8192,
      responseMs: expect.any(Number),
      durationMs: expect.any(Number),
      error: undefined,
    },
  ]);
  expect(messages[0]!.responseMs).toBe(messages[0]!.durationMs);
});

test('requests of the background copy are published, with all bytes that came', async () => {
  const messages = collect<SourceMessage>('copyondemand:source', 'background');
  const device = await openDevice({ source: laterSource(), fileSystem: memfsFileSystem(), target: 'background' });
  await device.hydrated;
  await device.close();
  expect(new Set(messages.map(({ kind }) => kind))).toEqual(new Set(['background']));
  expect(messages.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(SIZE);
  expect(messages.every(({ bytes, length }) => bytes === length)).toBe(true);
  expect(messages.every(({ responseMs, durationMs }) => responseMs > 0 && responseMs <= durationMs)).toBe(true);
});

test.each([
  ['later', (error: unknown) => laterSource(error)],
  [
    'synchronously',
    (error: unknown) => ({
      ...laterSource(),
      submitRead: () => {
        throw error;
      },
    }),
  ],
])('a request that fails %s is published with its error, and the reader gets it', async (_, failing) => {
  const target = `failing ${_}`;
  const messages = collect<SourceMessage>('copyondemand:source', target);
  const error = new CodError('COD_SOURCE_IO', 'the cable is cut');
  const device = await openDevice({
    source: failing(error),
    fileSystem: memfsFileSystem(),
    target,
    hydrate: false,
  });
  await expect(device.read(new Uint8Array(10), 0)).rejects.toBe(error);
  await device.close();
  expect(messages).toMatchObject([{ kind: 'demand', offset: 0, length: 4096, bytes: 0, error }]);
});

test('a flush and a checkpoint are published, also those that fail', async () => {
  const flushes = collect<DurabilityMessage>('copyondemand:flush', 'durable');
  const checkpoints = collect<DurabilityMessage>('copyondemand:checkpoint', 'durable');
  const volume = memfsFileSystem();
  let failure: unknown;
  const fileSystem: FileSystem = {
    ...volume,
    open: async (path, options) => {
      const file = await volume.open(path, options);
      const sync = file.sync.bind(file);
      return Object.assign(file, {
        sync: async () => {
          if (failure !== undefined) throw failure;
          await sync();
        },
      });
    },
  };
  const source = bytesSource(new Uint8Array(SIZE));
  const device = await openDevice({ source, fileSystem, target: 'durable', hydrate: false });
  await device.write(new Uint8Array(4096), 0);
  await device.flush();
  expect(flushes.at(-1)).toEqual({ target: 'durable', durationMs: expect.any(Number), error: undefined });
  await device.write(new Uint8Array(4096), 4096);
  await device.checkpoint();
  expect(checkpoints.at(-1)).toEqual({ target: 'durable', durationMs: expect.any(Number), error: undefined });
  await device.write(new Uint8Array(4096), 8192);
  failure = new CodError('COD_TARGET_IO', 'the disk is broken');
  await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
  expect(flushes.at(-1)!.error).toMatchObject({ code: 'COD_POISONED' });
  await device.close().catch(() => undefined);
});
