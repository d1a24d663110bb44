/** One connection over a socket in memory: when the next request is polled for, and which replies share a write. */

import { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import type { InlineFile } from '../../src/fs/inline-file.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { CodError, type FileSystem, type Source } from '../../src/index.ts';
import { COMMAND, COMMAND_FLAG, OPTION, TRANSMISSION_FLAG } from '../../src/nbd/constants.ts';
import { Connection } from '../../src/nbd/server/connection.ts';
import { Exports, exportInfo, type InlineNbdDevice } from '../../src/nbd/server/export.ts';
import { ServerMemory } from '../../src/nbd/server/memory.ts';
import { systemEnvironment } from '../../src/platform/environment.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { CLIENT_FLAGS, chunks, infoData, option, request } from './client-bytes.ts';

const polled = vi.hoisted((): string[] => []);

vi.mock('../../src/nbd/server/busy-poll.ts', () => ({
  BusyPoll: class {
    answered(): void {
      polled.push('answered');
    }

    received(): void {
      polled.push('received');
    }
  },
}));

const BLOCK = 4096;
const SECTOR = 512;
const SIZE = 2 ** 20;
const IMAGE: Uint8Array = seededRandom(1).fill(new Uint8Array(SIZE));
const EPERM = 1;
const EIO = 5;

/** A decoded reply. */
interface Reply {
  readonly cookie: number;
  readonly error: number;
  readonly data: Uint8Array;
}

/** The client's end of a connection in transmission. */
interface Client {
  /** Sends requests in one piece, and lets the event loop turn. */
  send(...requests: Uint8Array[]): Promise<void>;
  /** The writes to the socket since the last call, each with its replies. */
  received(): Reply[][];
}

/**
 * Connects to a device. `lengths` has the length of the read of each cookie.
 * The socket accepts each write after `takes`, and only then copies its bytes: the server must not change them before.
 */
async function connect(
  device: InlineNbdDevice,
  {
    structured = false,
    lengths = () => 0,
    takes = async () => undefined,
  }: { structured?: boolean; lengths?: (cookie: number) => number; takes?: () => Promise<unknown> } = {},
): Promise<Client> {
  let writes: Buffer[] = [];
  const socket = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      void takes().then(() => {
        writes.push(Buffer.from(chunk));
        done();
      });
    },
    // As with a real socket, the corked writes leave as one write.
    writev: (parts, done) => {
      void takes().then(() => {
        writes.push(Buffer.concat(parts.map(({ chunk }) => chunk as Buffer)));
        done();
      });
    },
  });
  new Connection(socket, { exports: new Exports(new Map([['', { device }]])), memory: new ServerMemory() });
  const send = async (...requests: Uint8Array[]): Promise<void> => {
    socket.push(Buffer.concat(requests));
    await turn();
  };
  if (structured) await send(CLIENT_FLAGS, option(OPTION.structuredReply), option(OPTION.go, infoData('')));
  else await send(CLIENT_FLAGS, option(OPTION.exportName));
  for (let turns = 0; turns < 5; turns++) await turn();
  writes = [];
  polled.length = 0;
  return {
    send,
    received: () => {
      const taken = writes;
      writes = [];
      return taken.map((bytes) => (structured ? structuredReplies(bytes) : simpleReplies(bytes, lengths)));
    },
  };
}

function simpleReplies(bytes: Buffer, lengths: (cookie: number) => number): Reply[] {
  const replies: Reply[] = [];
  for (let at = 0; at < bytes.length; ) {
    expect(bytes.readUInt32BE(at)).toBe(0x67446698);
    const error = bytes.readUInt32BE(at + 4);
    const cookie = Number(bytes.readBigUInt64BE(at + 8));
    const length = error === 0 ? lengths(cookie) : 0;
    const data = new Uint8Array(bytes.subarray(at + 16, at + 16 + length));
    expect(data.length, 'a reply is whole').toBe(length);
    replies.push({ cookie, error, data });
    at += 16 + length;
  }
  return replies;
}

function structuredReplies(bytes: Buffer): Reply[] {
  return chunks(bytes).map(({ cookie, error, data, done, type }) => {
    expect(done).toBe(true);
    // Data comes after its offset.
    return { cookie: Number(cookie), error, data: new Uint8Array(type === 1 ? data.subarray(8) : []) };
  });
}

function cookies(writes: Reply[][]): number[][] {
  return writes.map((replies) => replies.map(({ cookie }) => cookie));
}

function read(cookie: number, offset: number, length: number): Uint8Array {
  return request({ type: COMMAND.read, cookie: BigInt(cookie), offset, length });
}

function write(cookie: number, offset: number, payload: Uint8Array, fua = false): Uint8Array {
  const flags = fua ? COMMAND_FLAG.fua : 0;
  return request({ type: COMMAND.write, flags, cookie: BigInt(cookie), offset, length: payload.length, payload });
}

/** An unanswered read of a test device. */
interface Pending {
  readonly into: Uint8Array;
  readonly offset: number;
  complete(): void;
  fail(error: unknown): void;
}

type Answer = 'now' | 'later' | 'fails now';

/** A device that answers reads as `answer` decides. Reads to be answered later are in `pending`. */
function readable(answer: (offset: number) => Answer): { device: InlineNbdDevice; pending: Pending[] } {
  const pending: Pending[] = [];
  const fill = (into: Uint8Array, offset: number): void => into.set(IMAGE.subarray(offset, offset + into.length));
  const submitRead = (into: Uint8Array, offset: number): Promise<void> | undefined => {
    const how = answer(offset);
    if (how === 'now') fill(into, offset);
    else into.fill(0xdb);
    if (how === 'now') return undefined;
    if (how === 'fails now') throw new CodError('COD_SOURCE_IO', 'injected failure');
    return new Promise((resolve, reject) => {
      pending.push({
        into,
        offset,
        complete: () => {
          fill(into, offset);
          resolve();
        },
        fail: reject,
      });
    });
  };
  const device = { size: SIZE, blockSize: BLOCK, read: () => Promise.reject(new Error('not inline')), submitRead };
  return { device, pending };
}

describe('the next request is polled for', () => {
  test('if the client sends one request at a time and has its answer', async () => {
    const { send } = await connect(readable(() => 'now').device);
    await send(read(1, 0, BLOCK));
    await send(read(2, 0, BLOCK));
    expect(polled).toEqual(['received', 'answered', 'received', 'answered']);
  });

  test('not before a pending read is answered', async () => {
    const { device, pending } = readable(() => 'later');
    const { send } = await connect(device);
    await send(read(1, 0, BLOCK));
    expect(polled).toEqual(['received']);
    pending[0]!.complete();
    await turn();
    expect(polled).toEqual(['received', 'answered']);
  });

  test('not if the client sends several requests at a time', async () => {
    const { send } = await connect(readable(() => 'now').device);
    await send(read(1, 0, BLOCK), read(2, 0, BLOCK));
    expect(polled).toEqual(['received']);
  });
});

describe.each([
  ['simple', false],
  ['structured', true],
])('with %s replies', (_, structured) => {
  test('synchronous reads of one turn leave as one write', async () => {
    const client = await connect(readable(() => 'now').device, { structured, lengths: () => BLOCK });
    await client.send(read(1, 0, BLOCK), read(2, 5 * BLOCK, BLOCK), read(3, 17, BLOCK));
    const [replies, ...others] = client.received();
    expect(others).toEqual([]);
    expect(replies!.map(({ cookie }) => cookie)).toEqual([1, 2, 3]);
    for (const [index, offset] of [0, 5 * BLOCK, 17].entries()) {
      expectBytes(replies![index]!.data, IMAGE.subarray(offset, offset + BLOCK));
    }
  });

  test.each([
    ['4 KiB', BLOCK],
    ['64 KiB', 64 * 1024],
    ['100 KiB', 100 * 1024],
  ])('a read of %s that completes later has its own reply, after those of later requests', async (_, length) => {
    const late = 3 * BLOCK;
    const { device, pending } = readable((offset) => (offset === late ? 'later' : 'now'));
    const lengths = (cookie: number): number => (cookie === 2 ? length : BLOCK);
    const client = await connect(device, { structured, lengths });
    await client.send(read(1, 0, BLOCK), read(2, late, length), read(3, 8 * BLOCK, BLOCK));
    const first = client.received().flat();
    expect(first.map(({ cookie }) => cookie)).toEqual([1, 3]);
    expectBytes(first[0]!.data, IMAGE.subarray(0, BLOCK));
    expectBytes(first[1]!.data, IMAGE.subarray(8 * BLOCK, 9 * BLOCK));
    // More replies than the buffer for small replies holds.
    for (let cookie = 4; cookie < 204; cookie++) {
      await client.send(read(cookie, (cookie % 50) * 1000, BLOCK));
      const [[reply]] = client.received() as [[Reply]];
      expect(reply.cookie).toBe(cookie);
      expectBytes(reply.data, IMAGE.subarray((cookie % 50) * 1000, (cookie % 50) * 1000 + BLOCK));
    }
    pending[0]!.complete();
    await turn();
    const last = client.received().flat();
    expect(last.map(({ cookie, error }) => [cookie, error])).toEqual([[2, 0]]);
    expectBytes(last[0]!.data, IMAGE.subarray(late, late + length));
  });

  test('reads that complete in one turn leave as one write', async () => {
    const { device, pending } = readable(() => 'later');
    const client = await connect(device, { structured, lengths: () => BLOCK });
    await client.send(...Array.from({ length: 20 }, (_, index) => read(index, index * BLOCK, BLOCK)));
    expect(client.received()).toEqual([]);
    for (const index of [7, 3, 19, 0]) pending[index]!.complete();
    await turn();
    const writes = client.received();
    expect(cookies(writes)).toEqual([[7, 3, 19, 0]]);
    for (const { cookie, data } of writes.flat()) {
      expectBytes(data, IMAGE.subarray(cookie * BLOCK, (cookie + 1) * BLOCK));
    }
  });

  test('a failed read, now or later, gets its error, and other reads get their bytes', async () => {
    const { device, pending } = readable((offset) =>
      offset < BLOCK ? 'now' : offset < 4 * BLOCK ? 'later' : 'fails now',
    );
    const client = await connect(device, { structured, lengths: () => BLOCK });
    await client.send(
      read(1, 0, BLOCK),
      read(2, BLOCK, BLOCK),
      read(3, 4 * BLOCK, BLOCK),
      read(4, 2 * BLOCK, BLOCK),
      read(5, 10, BLOCK),
    );
    const first = client.received().flat();
    expect(first.map(({ cookie, error }) => [cookie, error])).toEqual([
      [1, 0],
      [3, EIO],
      [5, 0],
    ]);
    expectBytes(first[0]!.data, IMAGE.subarray(0, BLOCK));
    expectBytes(first[2]!.data, IMAGE.subarray(10, 10 + BLOCK));
    pending[0]!.fail(new CodError('COD_SOURCE_IO', 'injected failure'));
    await turn();
    pending[1]!.complete();
    await turn();
    const last = client.received().flat();
    expect(last.map(({ cookie, error }) => [cookie, error])).toEqual([
      [2, EIO],
      [4, 0],
    ]);
    expectBytes(last[1]!.data, IMAGE.subarray(2 * BLOCK, 3 * BLOCK));
  });

  test('every read gets one reply with its bytes or its error, in any order of completion', async () => {
    for (let seed = 0; seed < 30; seed++) {
      const random = seededRandom(seed);
      let failed = 0;
      const answer = (): Answer => {
        const how = random.oneIn(10) ? 'fails now' : random.oneIn(3) ? 'later' : 'now';
        if (how === 'fails now') failed++;
        return how;
      };
      const { device, pending } = readable(answer);
      const asked = new Map<number, { offset: number; length: number }>();
      const client = await connect(device, {
        structured,
        lengths: (cookie) => asked.get(cookie)!.length,
        takes: async () => {
          for (let turns = random.below(4); turns > 0; turns--) await turn();
        },
      });
      const answered = new Map<number, Reply>();
      const collect = (): void => {
        for (const reply of client.received().flat()) {
          expect(answered.has(reply.cookie), `cookie ${reply.cookie} is answered once`).toBe(false);
          answered.set(reply.cookie, reply);
        }
      };
      const settle = (): void => {
        const one = pending.splice(random.below(pending.length), 1)[0]!;
        if (random.oneIn(5)) {
          failed++;
          one.fail(new CodError('COD_SOURCE_IO', 'injected failure'));
        } else {
          one.complete();
        }
      };
      for (let cookie = 0; cookie < 300; ) {
        const requests: Uint8Array[] = [];
        for (let count = random.below(30); count >= 0; count--) {
          const length = 1 + random.below(random.oneIn(10) ? 150_000 : random.oneIn(3) ? 40_000 : 5_000);
          const offset = random.below(SIZE - length);
          asked.set(cookie, { offset, length });
          requests.push(read(cookie++, offset, length));
        }
        await client.send(...requests);
        while (pending.length > 0 && !random.oneIn(4)) settle();
        collect();
      }
      for (let turns = 0; turns < 1000 && answered.size < asked.size; turns++) {
        while (pending.length > 0) settle();
        await turn();
        collect();
      }
      expect(answered.size, `seed ${seed}`).toBe(asked.size);
      for (const [cookie, { offset, length }] of asked) {
        const { error, data } = answered.get(cookie)!;
        if (error === 0) expectBytes(data, IMAGE.subarray(offset, offset + length));
        else expect(error).toBe(EIO);
      }
      expect([...answered.values()].filter(({ error }) => error !== 0)).toHaveLength(failed);
    }
  });
});

/** Records calls to files, and can block their syncs. */
class WatchedFiles implements FileSystem {
  /** `write` or `sync`, and the name of the file. */
  readonly calls: string[] = [];
  /** Awaited before each sync. */
  gate: Promise<void> = Promise.resolve();
  readonly #inner: FileSystem = memfsFileSystem();

  async open(...[name, options]: Parameters<FileSystem['open']>): ReturnType<FileSystem['open']> {
    const file = await this.#inner.open(name, options);
    const inline: InlineFile = file;
    const { sync, write } = file;
    const submitWrite = inline.submitWrite!.bind(file);
    file.write = (from, offset) => {
      this.calls.push(`write ${name}`);
      return write.call(file, from, offset);
    };
    inline.submitWrite = (from, offset) => {
      this.calls.push(`write ${name}`);
      return submitWrite(from, offset);
    };
    file.sync = async () => {
      this.calls.push(`sync ${name}`);
      await this.gate;
      await sync.call(file);
    };
    return file;
  }

  remove(name: string): Promise<void> {
    return this.#inner.remove(name);
  }
}

function isOfLog(call: string): boolean {
  return call.startsWith('write disk.wil');
}

function openOver(fileSystem: FileSystem, source: Source = bytesSource(IMAGE)): Promise<InlineDevice> {
  return openDeviceIn(systemEnvironment, { source, fileSystem, target: 'disk', hydrate: false });
}

describe('writes of one turn', () => {
  test('of whole blocks and of sectors share one append, and their replies leave as one write', async () => {
    const files = new WatchedFiles();
    const device = await openOver(files);
    const client = await connect(device);
    files.calls.length = 0;
    await client.send(
      write(1, 0, new Uint8Array(BLOCK).fill(1)),
      write(2, 3 * BLOCK + SECTOR, new Uint8Array(SECTOR).fill(2)),
      write(3, 5 * BLOCK + 10, new Uint8Array(20).fill(3)),
      write(4, 8 * BLOCK - SECTOR, new Uint8Array(2 * SECTOR).fill(4)),
    );
    expect(cookies(client.received())).toEqual([[1, 2, 3, 4]]);
    // The target first, then one append for all writes.
    const target = 'write disk';
    expect(files.calls.slice(0, 4)).toEqual([target, target, target, target]);
    expect(files.calls.slice(4)).toEqual([expect.stringMatching(/^write disk\.wil/)]);
    const found = new Uint8Array(9 * BLOCK);
    await device.read(found, 0);
    const expected = IMAGE.slice(0, 9 * BLOCK);
    expected.fill(1, 0, BLOCK).fill(2, 3 * BLOCK + SECTOR, 3 * BLOCK + 2 * SECTOR);
    expected.fill(3, 5 * BLOCK + 10, 5 * BLOCK + 30).fill(4, 8 * BLOCK - SECTOR, 8 * BLOCK + SECTOR);
    expectBytes(found, expected);
    await device.close();
  });

  test('with FUA share that append, and are answered in one turn after one flush', async () => {
    const files = new WatchedFiles();
    const device = await openOver(files);
    const client = await connect(device);
    let open = (): void => undefined;
    files.gate = new Promise((resolve) => (open = resolve));
    files.calls.length = 0;
    await client.send(
      write(1, 0, new Uint8Array(BLOCK).fill(1), true),
      write(2, 3 * BLOCK + SECTOR, new Uint8Array(SECTOR).fill(2)),
      write(3, 5 * BLOCK + SECTOR, new Uint8Array(SECTOR).fill(3), true),
      write(4, 8 * BLOCK, new Uint8Array(BLOCK).fill(4)),
      write(5, 9 * BLOCK + 100, new Uint8Array(SECTOR).fill(5), true),
    );
    for (let turns = 0; turns < 5; turns++) await turn();
    // One append for all five writes. Writes with FUA wait for the sync.
    expect(files.calls.filter(isOfLog)).toHaveLength(1);
    expect(cookies(client.received())).toEqual([[2, 4]]);
    expect(files.calls.filter((call) => call.startsWith('sync'))).toEqual(['sync disk']);
    open();
    for (let turns = 0; turns < 5; turns++) await turn();
    expect(cookies(client.received())).toEqual([[1, 3, 5]]);
    // One flush: the target, a barrier in the log, and the log.
    expect(files.calls.slice(files.calls.indexOf('sync disk'))).toEqual([
      'sync disk',
      expect.stringMatching(/^write disk\.wil/),
      expect.stringMatching(/^sync disk\.wil/),
    ]);
    const found = new Uint8Array(10 * BLOCK);
    await device.read(found, 0);
    const expected = IMAGE.slice(0, 10 * BLOCK);
    expected.fill(1, 0, BLOCK).fill(2, 3 * BLOCK + SECTOR, 3 * BLOCK + 2 * SECTOR);
    expected.fill(3, 5 * BLOCK + SECTOR, 5 * BLOCK + 2 * SECTOR).fill(4, 8 * BLOCK, 9 * BLOCK);
    expected.fill(5, 9 * BLOCK + 100, 9 * BLOCK + 100 + SECTOR);
    expectBytes(found, expected);
    await device.close();
  });

  test('are visible to later reads of the same turn', async () => {
    const device = await openOver(memfsFileSystem());
    const client = await connect(device, { lengths: (cookie) => (cookie % 2 === 1 ? BLOCK : 0) });
    const values = seededRandom(5).fill(new Uint8Array(2 * BLOCK));
    await client.send(
      write(2, 0, values.subarray(0, BLOCK)),
      read(1, 0, BLOCK),
      write(4, 2 * BLOCK + SECTOR, values.subarray(BLOCK, BLOCK + SECTOR), true),
      read(3, 2 * BLOCK, BLOCK),
      write(6, 0, values.subarray(BLOCK)),
      read(5, 0, BLOCK),
    );
    const replies = new Map<number, Reply>();
    for (let turns = 0; turns < 20; turns++) {
      await turn();
      for (const reply of client.received().flat()) replies.set(reply.cookie, reply);
    }
    expect([...replies.keys()].sort()).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...replies.values()].every(({ error }) => error === 0)).toBe(true);
    // The second write is in flight too, so this read may see it, but never a mixture.
    const seen = replies.get(1)!.data;
    expectBytes(seen, seen[0] === values[0] ? values.subarray(0, BLOCK) : values.subarray(BLOCK));
    const mixed = IMAGE.slice(2 * BLOCK, 3 * BLOCK);
    mixed.set(values.subarray(BLOCK, BLOCK + SECTOR), SECTOR);
    expectBytes(replies.get(3)!.data, mixed);
    expectBytes(replies.get(5)!.data, values.subarray(BLOCK));
    await device.close();
  });

  test('that fail get their errors, and the connection stays open', async () => {
    const device = await openOver(memfsFileSystem());
    const client = await connect({
      size: device.size,
      blockSize: device.blockSize,
      read: (into, offset, options) => device.read(into, offset, options),
      write: (from, offset, options) => device.write(from, offset, options),
      flush: () => device.flush(),
      submitWrite: (from, offset, fua, settled) => {
        if (offset < BLOCK) settled(new CodError('COD_NO_SPACE', 'no room'));
        else if (offset < 2 * BLOCK) setImmediate(settled, new CodError('COD_TARGET_IO', 'injected failure'));
        else device.submitWrite(from, offset, fua, settled);
      },
      commitWrites: () => device.commitWrites(),
    });
    const bytes = new Uint8Array(SECTOR).fill(7);
    await client.send(write(1, 0, bytes), write(2, BLOCK, bytes), write(3, 2 * BLOCK, bytes));
    for (let turns = 0; turns < 5; turns++) await turn();
    expect(client.received().flatMap((replies) => replies.map(({ cookie, error }) => [cookie, error]))).toEqual([
      [1, 28],
      [3, 0],
      [2, EIO],
    ]);
    await device.close();
  });
});

describe('a cold read', () => {
  test('is answered after the source, and later requests are answered before it', async () => {
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => (answer = resolve));
    const source: Source = {
      size: SIZE,
      read: async (into, offset) => {
        await answered;
        into.set(IMAGE.subarray(offset, offset + into.length));
      },
      close: async () => undefined,
    };
    const device = await openOver(memfsFileSystem(), source);
    await device.write(IMAGE.subarray(20 * BLOCK, 21 * BLOCK), 20 * BLOCK);
    const lengths = (cookie: number): number => [0, BLOCK, 300_000, 100, 0][cookie]!;
    const client = await connect(device, { lengths });
    await client.send(
      read(1, BLOCK, BLOCK),
      read(2, 30 * BLOCK, 300_000),
      read(3, 20 * BLOCK + 5, 100),
      write(4, BLOCK + SECTOR, new Uint8Array(SECTOR).fill(9)),
    );
    const [first, ...others] = client.received();
    expect(others).toEqual([]);
    expect(first!.map(({ cookie }) => cookie)).toEqual([3, 4]);
    expectBytes(first![0]!.data, IMAGE.subarray(20 * BLOCK + 5, 20 * BLOCK + 105));
    answer();
    for (let turns = 0; turns < 5; turns++) await turn();
    const replies = new Map(client.received().flatMap((each) => each.map((reply) => [reply.cookie, reply] as const)));
    expect([...replies.keys()].sort()).toEqual([1, 2]);
    const expected = IMAGE.slice(BLOCK, 2 * BLOCK).fill(9, SECTOR, 2 * SECTOR);
    expectBytes(replies.get(1)!.data, expected);
    expectBytes(replies.get(2)!.data, IMAGE.subarray(30 * BLOCK, 30 * BLOCK + 300_000));
    await device.close();
  });

  test('from a synchronous source is answered with the other requests of its turn', async () => {
    const device = await openOver(memfsFileSystem(), {
      size: SIZE,
      read: () => Promise.reject(new Error('not inline')),
      submitRead: (into: Uint8Array, offset: number) => {
        into.set(IMAGE.subarray(offset, offset + into.length));
        return undefined;
      },
      close: async () => undefined,
    } as Source);
    const client = await connect(device, { lengths: (cookie) => (cookie % 2 === 1 ? BLOCK : 0) });
    await client.send(
      write(2, 0, new Uint8Array(BLOCK).fill(1)),
      read(1, 4 * BLOCK, BLOCK),
      write(4, 2 * BLOCK, new Uint8Array(SECTOR).fill(1)),
      read(3, 6 * BLOCK, BLOCK),
    );
    const [replies, ...others] = client.received();
    expect(others).toEqual([]);
    expect(replies!.map(({ cookie }) => cookie).sort()).toEqual([1, 2, 3, 4]);
    for (const { cookie, data } of replies!) {
      if (cookie === 1) expectBytes(data, IMAGE.subarray(4 * BLOCK, 5 * BLOCK));
      if (cookie === 3) expectBytes(data, IMAGE.subarray(6 * BLOCK, 7 * BLOCK));
    }
    expect(device.status()).toMatchObject({ syncedBlocks: 3, dirtyBlocks: 1 });
    await device.close();
  });
});

test('a device that is only read is exported as such, and refuses writes with EPERM', async () => {
  const fileSystem = memfsFileSystem();
  const options = { source: bytesSource(IMAGE), fileSystem, target: 'disk', hydrate: false } as const;
  for (const readOnly of [false, true]) {
    const device = await openDeviceIn(systemEnvironment, { ...options, readOnly });
    if (!readOnly) await device.write(new Uint8Array(BLOCK), 0);
    const { flags } = exportInfo('', { device });
    expect((flags & TRANSMISSION_FLAG.readOnly) !== 0).toBe(readOnly);
    const client = await connect(device);
    await client.send(write(1, 0, new Uint8Array(SECTOR)));
    await vi.waitFor(() =>
      expect(client.received().flat()).toMatchObject([{ cookie: 1, error: readOnly ? EPERM : 0 }]),
    );
    await device.close();
  }
});
