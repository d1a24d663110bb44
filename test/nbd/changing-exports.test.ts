/** Exports that are added and removed while the server runs. */

import { expect, onTestFinished, test } from 'vitest';
import { bytesSource, type Device, openDevice, type Source } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import { Listener } from '../../src/nbd/server/listener.ts';
import { type ExportServer, serveAt } from '../../src/nbd/server/server.ts';
import { nbdSource } from '../../src/nbd.ts';

const BYTES = 2 ** 16;
const ONCE = { retry: { attempts: 1 } };

async function deviceOf(byte: number): Promise<Device> {
  const source = bytesSource(new Uint8Array(BYTES).fill(byte));
  const device = await openDevice({ source, fileSystem: memfsFileSystem(), target: 'disk', hydrate: false });
  onTestFinished(() => device.close());
  return device;
}

async function serving(): Promise<ExportServer> {
  const server = serveAt(await Listener.open({ port: 0 }), new Map(), undefined);
  onTestFinished(() => server.close());
  return server;
}

async function client(server: ExportServer, name: string): Promise<Source> {
  const source = await nbdSource(server.uri(name), ONCE);
  onTestFinished(() => source.close());
  return source;
}

async function firstByte(source: Source): Promise<number> {
  const into = new Uint8Array(512);
  await source.read(into, 0);
  return into[0]!;
}

test('clients find an export once it is added, and no more once it is removed', async () => {
  const server = await serving();
  await expect(nbdSource(server.uri('a'), ONCE)).rejects.toThrow();
  server.add('a', { device: await deviceOf(1) });
  expect(server.uris).toEqual([server.uri('a')]);
  expect(await firstByte(await client(server, 'a'))).toBe(1);
  await server.remove('a');
  expect(server.uris).toEqual([]);
  await expect(nbdSource(server.uri('a'), ONCE)).rejects.toThrow();
});

test('removing an export ends its clients, answers what they asked, and leaves other clients alone', async () => {
  const server = await serving();
  for (const [name, byte] of [['a', 1] as const, ['b', 2] as const]) server.add(name, { device: await deviceOf(byte) });
  const [gone, kept] = [await client(server, 'a'), await client(server, 'b')];
  const asked = firstByte(kept);
  expect([server.clientsOf('a'), server.clientsOf('b')]).toEqual([1, 1]);
  await server.remove('a');
  expect([server.clientsOf('a'), server.clientsOf('b')]).toEqual([0, 1]);
  expect(await asked).toBe(2);
  expect(await firstByte(kept)).toBe(2);
  await expect(firstByte(gone)).rejects.toThrow();
});

test('an export that is added again is the new device for new clients', async () => {
  const server = await serving();
  server.add('a', { device: await deviceOf(1) });
  await server.remove('a');
  server.add('a', { device: await deviceOf(2) });
  expect(await firstByte(await client(server, 'a'))).toBe(2);
});

test('a name is exported once, and removing an export that does not exist does nothing', async () => {
  const server = await serving();
  server.add('a', { device: await deviceOf(1) });
  const device = await deviceOf(2);
  expect(() => server.add('a', { device })).toThrow(RangeError);
  await server.remove('b');
  expect(await firstByte(await client(server, 'a'))).toBe(1);
});
