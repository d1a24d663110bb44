/** All places of the server are taken: which client gets one. */

import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { bytesSource, openDevice } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import { Listener, type NbdAddress } from '../../src/nbd/server/listener.ts';
import { type NbdServer, serveAt } from '../../src/nbd/server/server.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { bytesOf, CLIENT_FLAGS, infoData, option, request } from './client-bytes.ts';

const PLACES = 64;
const GREETING_BYTES = 18;
const GO: Uint8Array = bytesOf(CLIENT_FLAGS, option(7, infoData('')));
const LIST: Uint8Array = option(3);
/** Replies to GO: the export, and the acknowledgement. */
const GO_BYTES = 20 + 12 + 20;

interface Place {
  readonly listener: Listener;
  readonly connect: () => Client;
}

/** Listens at a unix socket or on TCP. */
async function listen(kind: 'unix' | 'tcp'): Promise<Place> {
  const address: NbdAddress = kind === 'unix' ? { socket: join(temporaryDirectory(), 's') } : { port: 0 };
  const listener = await Listener.open(address);
  const port = Number(new URL(listener.uri('', false)).port);
  const to = address.socket === undefined ? { host: '127.0.0.1', port } : { path: address.socket };
  return { listener, connect: () => new Client(connect(to)) };
}

/** Serves a device there. `refused` counts the clients that are refused. */
async function serve(
  { listener }: Place,
  secure?: Parameters<typeof serveAt>[2],
): Promise<{ server: NbdServer; refused: () => number }> {
  const source = bytesSource(new Uint8Array(2 ** 20).fill(7));
  const device = await openDevice({ source, fileSystem: memfsFileSystem(), target: 'disk', hydrate: false });
  let refused = 0;
  const server = serveAt(listener, new Map([['', { device }]]), secure, { onRefused: () => refused++ });
  onTestFinished(async () => {
    await server.close();
    await device.close();
  });
  return { server, refused: () => refused };
}

class Client {
  readonly closed: Promise<boolean>;
  readonly #socket: Socket;
  #received = 0;
  #wake = (): void => undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', () => resolve(true)));
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      this.#received += chunk.length;
      this.#wake();
    });
    onTestFinished(() => void socket.destroy());
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Resolves to true when `bytes` more have arrived, or to false when the server has closed the connection. */
  async receives(bytes: number): Promise<boolean> {
    const arrived = new Promise<true>((resolve) => {
      this.#wake = () => {
        if (this.#received < bytes) return;
        this.#received -= bytes;
        resolve(true);
      };
      this.#wake();
    });
    return Promise.race([arrived, this.closed.then(() => false)]);
  }

  /** Begins the transmission phase. Resolves to false if the server has closed the connection. */
  async transmits(): Promise<boolean> {
    this.send(GO);
    return this.receives(GREETING_BYTES + GO_BYTES);
  }

  /** Reads some bytes. Resolves to false if the server has closed the connection. */
  async reads(): Promise<boolean> {
    this.send(request({ type: 0, length: 100 }));
    return this.receives(16 + 100);
  }
}

async function connectMany(place: Place, count: number): Promise<Client[]> {
  const clients: Client[] = [];
  for (let index = 0; index < count; index++) {
    const client = place.connect();
    expect(await client.receives(GREETING_BYTES)).toBe(true);
    clients.push(client);
  }
  return clients;
}

/** What clients do that never end their handshake. */
const IDLERS: readonly (readonly [name: string, act: (client: Client) => void])[] = [
  ['say nothing', () => undefined],
  ['send a part of their flags', (client) => client.send(CLIENT_FLAGS.subarray(0, 1))],
  ['list the exports again and again', (client) => client.send(bytesOf(CLIENT_FLAGS, LIST, LIST, LIST))],
  ['have aborted and do not close', (client) => client.send(bytesOf(CLIENT_FLAGS, option(2)))],
];

test.each(IDLERS)('clients that %s give their places to new ones, the oldest first', async (_, act) => {
  const place = await listen('unix');
  const { server, refused } = await serve(place);
  const idle = await connectMany(place, PLACES);
  for (const client of idle) act(client);
  for (const client of idle.slice(0, 3)) {
    expect(await place.connect().transmits()).toBe(true);
    await client.closed;
  }
  expect(refused()).toBe(0);
  expect(server.connectionCount).toBeLessThanOrEqual(PLACES);
});

test('also on TCP', async () => {
  const place = await listen('tcp');
  await serve(place);
  await connectMany(place, PLACES);
  expect(await place.connect().transmits()).toBe(true);
});

test('a TLS handshake that does not end gives its place to a new client', async () => {
  const place = await listen('unix');
  await serve(place, () => new Promise(() => undefined));
  const idle = await connectMany(place, PLACES);
  for (const client of idle) client.send(bytesOf(CLIENT_FLAGS, option(5)));
  for (const client of idle) expect(await client.receives(20)).toBe(true);
  const last = place.connect();
  expect(await last.receives(GREETING_BYTES)).toBe(true);
  await idle[0]!.closed;
});

test.each(['unix', 'tcp'] as const)('a client in transmission keeps its place: %s', async (kind) => {
  const place = await listen(kind);
  const { server, refused } = await serve(place);
  const clients: Client[] = [];
  for (let index = 0; index < PLACES; index++) {
    const client = place.connect();
    expect(await client.transmits()).toBe(true);
    clients.push(client);
  }
  // It does not wait for a place.
  expect(await place.connect().receives(1)).toBe(false);
  expect(await place.connect().receives(1)).toBe(false);
  expect([refused(), server.refusedCount]).toEqual([2, 2]);
  for (const client of clients) expect(await client.reads()).toBe(true);
});

test('the latest clients that connect before the device is open are served', async () => {
  const place = await listen('unix');
  const early = Array.from({ length: PLACES + 2 }, () => place.connect());
  await Promise.all(early.slice(0, 2).map((client) => client.closed));
  await serve(place);
  for (const client of early.slice(2)) expect(await client.transmits()).toBe(true);
});
