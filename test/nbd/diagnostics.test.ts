/** What a server publishes on diagnostics channels. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { bytesSource, CodError, openDevice } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import { type NbdClientMessage, type NbdCommandMessage, type NbdDevice, serveNbd } from '../../src/nbd.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { bytesOf, CLIENT_FLAGS, infoData, option, type RequestFields, request } from './client-bytes.ts';

const SIZE = 2 ** 26;
const ANY = { durationMs: expect.any(Number) };

function collect<Message extends { readonly export: string }>(channel: string, name: string): Message[] {
  const messages: Message[] = [];
  const onMessage = (message: unknown): void => {
    if ((message as Message).export === name) messages.push(message as Message);
  };
  subscribe(channel, onMessage);
  onTestFinished(() => void unsubscribe(channel, onMessage));
  return messages;
}

/** Serves `device`, sends `requests` and a disconnect request. Resolves when the server has closed the connection. */
async function session(
  device: NbdDevice,
  requests: readonly RequestFields[],
  { name, tcp = false }: { name: string; tcp?: boolean },
): Promise<void> {
  const server = await serveNbd(device, {
    exportName: name,
    ...(tcp ? { port: 0 } : { socket: join(temporaryDirectory(), 's') }),
  });
  onTestFinished(() => server.close());
  const url = new URL(server.uris[0]!);
  const socket = connect(
    tcp ? { host: '127.0.0.1', port: Number(url.port) } : { path: url.searchParams.get('socket')! },
  );
  const asked = requests.map((fields, index) => request({ ...fields, cookie: BigInt(index) }));
  socket.write(bytesOf(CLIENT_FLAGS, option(7, infoData(name)), ...asked, request({ type: 2 })));
  socket.resume();
  await once(socket, 'close');
  await server.close();
}

test('each command is published when it is answered', async () => {
  const name = 'commands';
  const messages = collect<NbdCommandMessage>('copyondemand:nbd:command', name);
  const device = await openDevice({
    source: bytesSource(new Uint8Array(SIZE)),
    fileSystem: memfsFileSystem(),
    target: 'disk',
    hydrate: false,
  });
  onTestFinished(() => device.close());
  const long = 2 ** 25;
  await session(
    device,
    [
      { type: 0, offset: 512, length: 4096 },
      { type: 0, offset: 0, length: long },
      { type: 1, offset: 4096, length: 3, payload: new Uint8Array(3) },
      { type: 1, offset: 0, length: long, payload: new Uint8Array(long) },
      { type: 3 },
      { type: 4, offset: 0, length: 4096 },
      { type: 5, offset: 0, length: 4096 },
      { type: 6, offset: 0, length: 8192 },
      { type: 0, offset: SIZE, length: 1 },
    ],
    { name },
  );
  const known = messages.map(({ export: _, durationMs: __, ...rest }) => rest);
  expect(new Set(known)).toEqual(
    new Set([
      { command: 'read', offset: 512, length: 4096 },
      { command: 'read', offset: 0, length: long },
      { command: 'write', offset: 4096, length: 3 },
      { command: 'write', offset: 0, length: long },
      { command: 'flush', offset: 0, length: 0 },
      { command: 'trim', offset: 0, length: 4096 },
      { command: 'cache', offset: 0, length: 4096 },
      { command: 'write_zeroes', offset: 0, length: 8192 },
      { command: 'read', offset: SIZE, length: 1, error: 'EINVAL' },
    ]),
  );
  expect(known).toHaveLength(9);
  expect(messages.every(({ durationMs }) => durationMs >= 0)).toBe(true);
});

test.each(['at once', 'later'])('an error that comes %s is published as the client gets it', async (when) => {
  const name = `errors ${when}`;
  const messages = collect<NbdCommandMessage>('copyondemand:nbd:command', name);
  const full = new CodError('COD_NO_SPACE', 'the disk is full');
  const device: NbdDevice = {
    size: SIZE,
    blockSize: 4096,
    read: () => {
      if (when === 'at once') throw new CodError('COD_SOURCE_IO', 'the source is gone');
      return Promise.reject(new CodError('COD_SOURCE_IO', 'the source is gone'));
    },
    write: () => Promise.reject(full),
    flush: () => Promise.reject(full),
  };
  const payload = new Uint8Array(512);
  await session(device, [{ type: 0, length: 512 }, { type: 1, length: 512, payload }, { type: 3 }], { name });
  expect(new Set(messages)).toEqual(
    new Set([
      { export: name, command: 'read', offset: 0, length: 512, ...ANY, error: 'EIO' },
      { export: name, command: 'write', offset: 0, length: 512, ...ANY, error: 'ENOSPC' },
      { export: name, command: 'flush', offset: 0, length: 0, ...ANY, error: 'ENOSPC' },
    ]),
  );
  expect(messages).toHaveLength(3);
});

test.each([false, true])('a client is published when it comes and goes, with its counts (TCP: %s)', async (tcp) => {
  const name = `clients ${tcp}`;
  const came = collect<NbdClientMessage>('copyondemand:nbd:connected', name);
  const went = collect<NbdClientMessage>('copyondemand:nbd:disconnected', name);
  const device: NbdDevice = { size: SIZE, blockSize: 4096, read: async () => undefined, write: async () => undefined };
  const payload = new Uint8Array(512);
  await session(
    device,
    [
      { type: 0, length: 4096 },
      { type: 0, length: 512 },
      { type: 1, length: 512, payload },
    ],
    {
      name,
      tcp,
    },
  );
  expect(came).toHaveLength(1);
  expect(went).toEqual([
    {
      export: name,
      address: tcp ? expect.stringMatching(/^127\.0\.0\.1:\d+$/) : undefined,
      tls: false,
      reads: 2,
      readBytes: 4608,
      writes: 1,
      writtenBytes: 512,
    },
  ]);
  expect(went[0]).toBe(came[0]);
});
