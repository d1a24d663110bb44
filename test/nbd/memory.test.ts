/** What clients can make the server hold: long requests in pieces, and the limits of one client and of all. */

import { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { CodError } from '../../src/index.ts';
import { COMMAND, COMMAND_FLAG, OPTION } from '../../src/nbd/constants.ts';
import { Connection } from '../../src/nbd/server/connection.ts';
import { Exports, type InlineNbdDevice } from '../../src/nbd/server/export.ts';
import { ServerMemory } from '../../src/nbd/server/memory.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { bytesOf, CLIENT_FLAGS, chunks, infoData, metaData, option, request } from './client-bytes.ts';

const MiB = 2 ** 20;
const SIZE = 64 * MiB;
const EIO = 5;
/** Limits of docs/NBD.md. */
const PIECE = 2 * MiB;
const CLIENT_LIMIT = 16 * MiB + PIECE;
const ALL_LIMIT = 512 * MiB;

interface Client {
  readonly socket: Duplex;
  readonly connection: Connection;
  /** Sends requests in one piece. */
  send(...requests: Uint8Array[]): Promise<void>;
  /** What the server has sent since the last call. */
  received(): Buffer;
  /** Buffers of the largest write to the socket. */
  buffersOfOneWrite(): number;
}

/** Connects to a device. A client that does not read takes nothing of what is sent after the handshake. */
async function connect(
  device: InlineNbdDevice,
  { structured = false, reads = true, memory = new ServerMemory() } = {},
): Promise<Client> {
  let parts: Uint8Array[] = [];
  let most = 0;
  let takes = true;
  const socket = new Duplex({
    read: () => undefined,
    writev: (all, done) => {
      most = Math.max(most, all.length);
      if (!takes) return;
      // As a socket does, it takes the bytes before it calls back.
      parts.push(...all.map(({ chunk }) => Uint8Array.from(chunk as Buffer)));
      setImmediate(done);
    },
  });
  const connection = new Connection(socket, { exports: new Exports(new Map([['', { device }]])), memory });
  const send = async (...requests: Uint8Array[]): Promise<void> => {
    socket.push(Buffer.concat(requests));
    for (let turns = 0; turns < 4; turns++) await turn();
  };
  const contexts =
    device.extents === undefined ? [] : [option(OPTION.setMetaContext, metaData('', ['copyondemand:state']))];
  if (structured)
    await send(CLIENT_FLAGS, option(OPTION.structuredReply), ...contexts, option(OPTION.go, infoData('')));
  else await send(CLIENT_FLAGS, option(OPTION.exportName));
  parts = [];
  takes = reads;
  return {
    socket,
    connection,
    send,
    received: () => {
      const taken = Buffer.concat(parts);
      parts = [];
      return taken;
    },
    buffersOfOneWrite: () => most,
  };
}

/** Waits until the server has done what it can without the client. */
async function settle(): Promise<void> {
  for (let turns = 0; turns < 200; turns++) await turn();
}

function contentAt(offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at++) bytes[at] = (offset + at) % 251;
  return bytes;
}

interface TestDevice extends InlineNbdDevice {
  /** Bytes of all buffers that reads and writes got. */
  usedBytes: number;
}

/** A device whose reads fail from `broken` on. Reads are not filled in if `fills` is false. */
function readable({ later = false, fills = true, broken = SIZE } = {}): TestDevice {
  const device: TestDevice = {
    size: SIZE,
    blockSize: 4096,
    usedBytes: 0,
    read: () => Promise.reject(new Error('not inline')),
    submitRead: (into, offset) => {
      device.usedBytes += into.length;
      if (offset + into.length > broken) throw new CodError('COD_SOURCE_IO', 'injected failure');
      if (fills) into.set(contentAt(offset, into.length));
      return later ? turn() : undefined;
    },
  };
  return device;
}

function read(cookie: number, offset: number, length: number, flags = 0): Uint8Array {
  return request({ type: COMMAND.read, cookie: BigInt(cookie), offset, length, flags });
}

const OFFSET = PIECE - 1000;
const LENGTH = 7 * MiB;

describe('a long read', () => {
  test('with a simple reply is whole, and no other reply is within', async () => {
    const { send, received } = await connect(readable({ later: true }));
    await send(read(1, 0, 100), read(2, OFFSET, LENGTH), read(3, 5, 100), read(4, OFFSET, LENGTH));
    await settle();
    const bytes = received();
    const expected = [read(1, 0, 100), read(2, OFFSET, LENGTH), read(3, 5, 100), read(4, OFFSET, LENGTH)].map(
      (asked) => {
        const [cookie, offset] = [asked.subarray(8, 16), Number(Buffer.from(asked).readBigUInt64BE(16))];
        const length = Buffer.from(asked).readUInt32BE(24);
        return bytesOf([4, 0x67446698], [4, 0], cookie, contentAt(offset, length));
      },
    );
    expectBytes(bytes, bytesOf(...expected));
  });

  test('with structured replies has one chunk for each piece, or with DF one chunk', async () => {
    const { send, received } = await connect(readable({ later: true }), { structured: true });
    await send(read(1, OFFSET, LENGTH), read(2, 5, 100), read(3, OFFSET, LENGTH, COMMAND_FLAG.df));
    await settle();
    const found = chunks(received());
    const whole = (cookie: bigint): Uint8Array => {
      const bytes = new Uint8Array(LENGTH);
      for (const { data } of found.filter((chunk) => chunk.cookie === cookie))
        bytes.set(data.subarray(8), Number(data.readBigUInt64BE(0)) - OFFSET);
      return bytes;
    };
    expect(found.filter(({ cookie }) => cookie === 1n).map(({ done }) => done)).toEqual([
      false,
      false,
      false,
      false,
      true,
    ]);
    expect(found.filter(({ cookie }) => cookie === 3n).map(({ done }) => done)).toEqual([true]);
    expectBytes(whole(1n), contentAt(OFFSET, LENGTH));
    expectBytes(whole(3n), contentAt(OFFSET, LENGTH));
  });

  test.each([false, true])('that fails in its last piece has an error, structured: %s', async (structured) => {
    const device = readable({ broken: OFFSET + LENGTH - 1 });
    const { send, received, socket } = await connect(device, { structured });
    await send(read(1, OFFSET, LENGTH), read(2, 0, 10));
    await settle();
    const bytes = received();
    if (structured) {
      expect(
        chunks(bytes)
          .filter(({ done }) => done)
          .map(({ cookie, error }) => [cookie, error]),
      ).toEqual([
        [2n, 0],
        [1n, EIO],
      ]);
    } else {
      expectBytes(bytes, bytesOf([4, 0x67446698], [4, EIO], [8, 1], [4, 0x67446698], [4, 0], [8, 2], contentAt(0, 10)));
    }
    expect(socket.destroyed).toBe(false);
  });

  test('whose simple reply has begun ends the connection if a piece cannot be read', async () => {
    const device = readable({ broken: OFFSET + LENGTH - 1 });
    // All can be fetched, and the target loses it.
    device.hydrateRange = async () => undefined;
    const { send, socket, connection } = await connect(device);
    await send(read(1, OFFSET, LENGTH));
    await connection.closed;
    expect(socket.destroyed).toBe(true);
  });
});

/** A device that settles writes when `settle` is called. */
function writable(): { device: TestDevice; settle: (error?: CodError) => void; written: Uint8Array } {
  const pending: ((error?: unknown) => void)[] = [];
  const written = new Uint8Array(SIZE);
  const device: TestDevice = {
    ...readable(),
    usedBytes: 0,
    write: () => Promise.reject(new Error('not inline')),
    submitWrite: (from, offset, _fua, settled) => {
      device.usedBytes += from.length;
      written.set(from, offset);
      pending.push(settled);
    },
    commitWrites: () => undefined,
  };
  return { device, settle: (error) => pending.shift()!(error), written };
}

function write(cookie: number, offset: number, payload: Uint8Array, length = payload.length): Uint8Array {
  return request({ type: COMMAND.write, cookie: BigInt(cookie), offset, length, payload });
}

test('a long write has one reply when all of its pieces are settled, with the error of a piece', async () => {
  const { device, settle: next, written } = writable();
  const { send, received } = await connect(device);
  const payload = seededRandom(1).fill(new Uint8Array(LENGTH));
  await send(write(1, OFFSET, payload), write(2, 0, payload.subarray(0, 10)), write(3, OFFSET, payload));
  const replies = (): [number, number][] => {
    const bytes = received();
    return Array.from({ length: bytes.length / 16 }, (_, index) => [
      Number(bytes.readBigUInt64BE(16 * index + 8)),
      bytes.readUInt32BE(16 * index + 4),
    ]);
  };
  for (let piece = 0; piece < 4; piece++) next();
  await settle();
  expect(replies()).toEqual([]);
  next();
  next();
  next(new CodError('COD_TARGET_IO', 'injected failure'));
  for (let piece = 1; piece < 5; piece++) next();
  await settle();
  expect(replies()).toEqual([
    [1, 0],
    [2, 0],
    [3, EIO],
  ]);
  expectBytes(written.subarray(OFFSET, OFFSET + LENGTH), payload);
  expectBytes(written.subarray(0, 10), payload.subarray(0, 10));
});

describe('a client that reads no reply', () => {
  test.each([
    ['32 MiB, simple', 32 * MiB, false, false, PIECE],
    ['32 MiB, structured', 32 * MiB, true, true, CLIENT_LIMIT],
    ['256 KiB that wait', MiB / 4, false, true, CLIENT_LIMIT],
    ['64 KiB', MiB / 16, false, false, PIECE],
  ])('makes the server hold a bounded part of its reads of %s', async (_, length, structured, later, limit) => {
    const device = readable({ later, fills: false });
    const { send } = await connect(device, { structured, reads: false });
    const many = Array.from({ length: 500 }, (_, index) => read(index, 0, length));
    for (let count = 0; count < 4; count++) await send(...many);
    await settle();
    expect(device.usedBytes).toBeGreaterThan(0);
    // Long reads without `hydrateRange` are tried before a simple reply.
    expect(device.usedBytes - (length > PIECE && !structured ? length : 0)).toBeLessThanOrEqual(limit);
  });

  test('has refused requests whose replies share a few buffers', async () => {
    const { send, buffersOfOneWrite } = await connect(readable(), { structured: true });
    await send(...Array.from({ length: 2000 }, (_, index) => request({ type: 99, cookie: BigInt(index) })));
    expect(buffersOfOneWrite()).toBeLessThan(5);
  });
});

test('extents are collected for a few block status requests at a time', async () => {
  let collecting = 0;
  let most = 0;
  const device: InlineNbdDevice = {
    ...readable(),
    extents: async () => {
      most = Math.max(most, ++collecting);
      await turn();
      collecting--;
      return [{ length: SIZE, state: 'synced', zero: false }];
    },
  };
  const { send, received } = await connect(device, { structured: true });
  const many = Array.from({ length: 100 }, (_, index) =>
    request({ type: COMMAND.blockStatus, cookie: BigInt(index), length: SIZE }),
  );
  await send(...many);
  await settle();
  expect(most).toBeLessThanOrEqual(16);
  expect(chunks(received()).filter(({ type, done }) => type === 5 && done)).toHaveLength(100);
});

test('a write whose payload does not end holds a bounded part of it', async () => {
  const { device } = writable();
  const { socket } = await connect(device);
  const piece = new Uint8Array(MiB / 16);
  socket.push(write(1, 0, piece, 32 * MiB));
  for (let sent = 2; sent < 512; sent++) socket.push(piece);
  await settle();
  expect(device.usedBytes).toBeGreaterThan(0);
  expect(device.usedBytes).toBeLessThanOrEqual(CLIENT_LIMIT);
});

test('small writes count with the input that they keep in memory', async () => {
  const { device } = writable();
  const { socket } = await connect(device);
  let sent = 0;
  // Each piece of input has one write that stays in flight, and refused ones.
  const refused = bytesOf(...Array.from({ length: 2000 }, () => request({ type: 99 })));
  for (; sent < 400; sent++)
    socket.push(Buffer.from(new Uint8Array(bytesOf(write(sent, 0, new Uint8Array(1)), refused))));
  await settle();
  expect(device.usedBytes).toBeLessThanOrEqual(CLIENT_LIMIT / refused.length);
});

describe('clients that read no replies', () => {
  test('together have a limit, another client is served, and one that waits resumes when they have gone', async () => {
    const memory = new ServerMemory();
    const device = readable({ later: true, fills: false });
    const many = Array.from({ length: 64 }, (_, index) => read(index, 0, MiB / 4));
    const others: Client[] = [];
    for (let count = 0; count < 63; count++) {
      const client = await connect(device, { reads: false, memory });
      await client.send(...many);
      others.push(client);
    }
    await settle();
    expect(device.usedBytes).toBeGreaterThan(256 * MiB);
    expect(device.usedBytes).toBeLessThanOrEqual(ALL_LIMIT);

    const good = readable({ later: true });
    const client = await connect(good, { memory });
    await client.send(...Array.from({ length: 40 }, (_, index) => read(index, index, MiB)));
    await settle();
    expect(client.received()).toHaveLength(40 * (16 + MiB));

    // Its first reads do not complete, and it may hold no more beside the others.
    let complete = (): void => undefined;
    const completed = new Promise<void>((resolve) => (complete = resolve));
    const slow = readable();
    const submitRead = slow.submitRead!;
    slow.submitRead = (into, offset, signal) => {
      void submitRead(into, offset, signal);
      return offset === 0 ? completed : undefined;
    };
    const waiting = await connect(slow, { memory });
    await waiting.send(read(1, 0, MiB), read(2, 0, MiB), read(3, 1, 10));
    await settle();
    expect(waiting.received()).toHaveLength(0);
    for (const { connection } of others) connection.destroy();
    await settle();
    expect(waiting.received()).toHaveLength(16 + 10);
    complete();
    await settle();
    expect(waiting.received()).toHaveLength(2 * (16 + MiB));
  });
});
