/** The NBD client with a server under the test's control. */

import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Negotiation } from '../../src/nbd/client/negotiation.ts';
import { type ReadRequest, ReplyParser, type StatusRequest } from '../../src/nbd/client/replies.ts';
import { COMMAND } from '../../src/nbd/constants.ts';
import { type NbdSourceOptions, nbdSource } from '../../src/nbd.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { PassingClock, STALL_MS, TestClock } from '../sources/test-clock.ts';
import { expectBytes } from '../support/bytes.ts';
import {
  CONTEXT,
  chunk,
  GREETING,
  type NbdAsk,
  type NbdServerOptions,
  optionReply,
  simpleReply,
  TestNbdServer,
  u16,
  u32,
  u64,
} from '../support/nbd-server.ts';

const CONTENT = seededRandom(1).fill(new Uint8Array(3 * 2 ** 20 + 512));

/** A clock that tells when the client has looked at the time, as it does for received bytes. */
class DripClock extends TestClock {
  #onNow: () => void = () => {};

  override now(): number {
    this.#onNow();
    return super.now();
  }

  asked(): Promise<void> {
    return new Promise((resolve) => {
      this.#onNow = resolve;
    });
  }
}

async function serve(options: NbdServerOptions = {}, content = CONTENT): Promise<TestNbdServer> {
  const server = await TestNbdServer.start(content, options);
  onTestFinished(() => server.stop());
  return server;
}

async function open(server: TestNbdServer, options: NbdSourceOptions = {}) {
  const clock = new TestClock();
  const source = await nbdSource(server.uri, { clock, random: () => 0.5, ...options });
  onTestFinished(() => source.close());
  return { source, clock };
}

async function readOf(
  source: { read(into: Uint8Array, offset: number): Promise<void> },
  offset: number,
  length: number,
) {
  const into = new Uint8Array(length).fill(0xee);
  await source.read(into, offset);
  return into;
}

async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece.slice());
  return Buffer.concat(all);
}

describe('an export is read', () => {
  test.each([{ structured: true }, { structured: false }])(
    'at any range, in one request or many: %o',
    async ({ structured }) => {
      const server = await serve({ structured });
      const { source } = await open(server);
      expect(source.size).toBe(CONTENT.length);
      expect(source.identity).toBeUndefined();
      for (const [offset, length] of [
        [0, 1],
        [511, 4099],
        [CONTENT.length - 1, 1],
        [100, 0],
        [0, CONTENT.length],
      ] as const) {
        expectBytes(await readOf(source, offset, length), CONTENT.subarray(offset, offset + length));
      }
      for (const [offset, length] of [
        [CONTENT.length, 1],
        [-1, 1],
        [0.5, 1],
      ] as const) {
        await expect(source.read(new Uint8Array(length), offset)).rejects.toThrow(RangeError);
      }
      expect(server.connections).toBe(1);
    },
  );

  test('by concurrent reads over one connection, with replies in any order', async () => {
    const held: NbdAsk[] = [];
    const random = seededRandom(5);
    const server = await serve({
      behaviour: (ask) => {
        held.push(ask);
        if (held.length === 20) for (const one of held.splice(0).sort(() => random.below(3) - 1)) one.send();
      },
    });
    const { source } = await open(server);
    const reads = await Promise.all(Array.from({ length: 20 }, (_, index) => readOf(source, index * 1000, 1500)));
    reads.forEach((bytes, index) => {
      expectBytes(bytes, CONTENT.subarray(index * 1000, index * 1000 + 1500));
    });
    expect(server.connections).toBe(1);
  });

  test('with at most 64 requests in flight', async () => {
    const held: NbdAsk[] = [];
    const server = await serve({ behaviour: (ask) => void held.push(ask) });
    const { source } = await open(server);
    let most = 0;
    const reads = Promise.all(Array.from({ length: 200 }, (_, index) => readOf(source, index * 100, 100)));
    let done = false;
    void reads.then(() => (done = true));
    while (!done) {
      await new Promise((resolve) => setImmediate(resolve));
      most = Math.max(most, held.length);
      held.shift()?.send();
    }
    expect(most).toBe(64);
  });

  test('as a stream, in order, with a bounded number of requests ahead of its consumer', async () => {
    const server = await serve({ behaviour: (ask) => setTimeout(ask.send, (ask.index * 7) % 5) });
    const { source } = await open(server);
    expectBytes(await collect(source.stream!(100, CONTENT.length - 300)), CONTENT.subarray(100, CONTENT.length - 200));
    expect(await collect(source.stream!(5, 0))).toHaveLength(0);

    const large = await serve({}, new Uint8Array(2 ** 24));
    const opened = await open(large);
    const stream = opened.source.stream!(0, 2 ** 24);
    await stream.next();
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(large.asked(COMMAND.read)).toHaveLength(16);
    await stream.return?.();
  });

  test('within the block sizes of the server', async () => {
    const server = await serve({ blockSizes: { min: 512, max: 64 << 10 } });
    const { source } = await open(server);
    expectBytes(await readOf(source, 513, 200_000), CONTENT.subarray(513, 200_513));
    expectBytes(await readOf(source, CONTENT.length - 1, 1), CONTENT.subarray(-1));
    expectBytes(await collect(source.stream!(1, CONTENT.length - 1)), CONTENT.subarray(1));
    for (const [offset, length] of server.asked(COMMAND.read)) {
      expect([offset % 512, length % 512]).toEqual([0, 0]);
      expect(length).toBeLessThanOrEqual(64 << 10);
    }
  });

  test('from replies in pieces, data and holes in any order', async () => {
    const server = await serve({
      behaviour: ({ cookie, offset, socket }) => {
        socket.write(chunk(cookie, 2, Buffer.concat([u64(offset + 1000), u32(500)]), { done: false }));
        socket.write(
          chunk(cookie, 1, Buffer.concat([u64(offset + 1500), Buffer.from(CONTENT.subarray(1500, 2000))]), {
            done: false,
          }),
        );
        socket.write(
          chunk(cookie, 1, Buffer.concat([u64(offset), Buffer.from(CONTENT.subarray(0, 1000))]), { done: false }),
        );
        socket.write(chunk(cookie, 0, Buffer.alloc(0)));
      },
    });
    const { source } = await open(server);
    const expected = CONTENT.slice(0, 2000).fill(0, 1000, 1500);
    expectBytes(await readOf(source, 0, 2000), expected);
  });

  test('from a server without OPT_GO', async () => {
    const server = await serve({ onOption: (option) => (option === 7 ? optionReply(7, 0x80000001) : undefined) });
    const { source } = await open(server);
    expectBytes(await readOf(source, 10, 5000), CONTENT.subarray(10, 5010));
  });
});

describe('extents', () => {
  const runs = (offset: number, length: number) => {
    // 100,000 bytes of data, 100,000 of a hole, and so on; at most three runs, of which the last may be too long.
    const result = [];
    for (let at = offset; at < offset + length && result.length < 3; ) {
      const end = (Math.floor(at / 100_000) + 1) * 100_000;
      result.push({ length: end - at, flags: Math.floor(at / 100_000) % 2 === 0 ? 0 : 3 });
      at = end;
    }
    return result;
  };

  test('are requested until the range is covered', async () => {
    const server = await serve({ runs });
    const { source } = await open(server);
    const extents = await source.extents!(50_000, 500_000);
    expect(extents).toEqual(
      [50_000, 100_000, 100_000, 100_000, 100_000, 50_000].map((length, index) => ({ length, zero: index % 2 === 1 })),
    );
    expect(await source.extents!(0, 0)).toEqual([]);
  });

  test('are exact to the byte for a server with larger blocks', async () => {
    const server = await serve({ blockSizes: { min: 512, max: 2 ** 25 }, runs: (_, length) => [{ length, flags: 2 }] });
    const { source } = await open(server);
    expect(await source.extents!(700, 100)).toEqual([{ length: 100, zero: true }]);
    // The question covers what follows, too.
    const [[offset, length] = [0, 0]] = server.asked(COMMAND.blockStatus) as [number, number][];
    expect([offset, length % 512]).toEqual([512, 0]);
    expect(length).toBeGreaterThanOrEqual(512);
  });

  test('are not zero for holes without the flag for zeros', async () => {
    const server = await serve({ runs: (_, length) => [{ length, flags: 1 }] });
    const { source } = await open(server);
    expect(await source.extents!(0, 4096)).toEqual([{ length: 4096, zero: false }]);
  });

  test('are unavailable without structured replies or block status', async () => {
    expect((await open(await serve({ structured: false, runs }))).source.extents).toBeUndefined();
    expect((await open(await serve())).source.extents).toBeUndefined();
  });

  test('are all data after a reconnect to a server without block status', async () => {
    const server = await serve({ runs });
    const { source } = await open(server);
    server.options = {};
    server.hangUp();
    expect(await source.extents!(100_000, 200_000)).toEqual([{ length: 200_000, zero: false }]);
  });
});

describe('a failed read is retried', () => {
  test('over a new connection, when the server hangs up in the middle of a reply', async () => {
    const server = await serve({
      behaviour: (ask) => {
        if (ask.connection > 1) ask.send();
        else
          ask.socket.end(
            chunk(ask.cookie, 1, Buffer.concat([u64(ask.offset), Buffer.alloc(100)]), { length: 8 + ask.length }),
          );
      },
    });
    const { source, clock } = await open(server);
    expectBytes(await readOf(source, 7, 5000), CONTENT.subarray(7, 5007));
    expect(server.connections).toBe(3);
    expect(clock.delays).toHaveLength(2);
    expect(clock.delays[1]).toBe(2 * clock.delays[0]!);
  });

  test('over one new connection for all reads in flight', async () => {
    const server = await serve({
      behaviour: (ask) => (ask.connection === 0 ? ask.index === 9 && server.hangUp() : ask.send()),
    });
    const { source } = await open(server);
    const reads = await Promise.all(Array.from({ length: 10 }, (_, index) => readOf(source, index * 5000, 5000)));
    expectBytes(Buffer.concat(reads), CONTENT.subarray(0, 50_000));
    expect(server.connections).toBe(2);
  });

  test('after a stall', async () => {
    const server = await serve({ behaviour: (ask) => (ask.connection === 0 ? clock.stall() : ask.send()) });
    const { source, clock } = await open(server);
    expectBytes(await readOf(source, 0, 100), CONTENT.subarray(0, 100));
    expect(server.connections).toBe(2);
  });

  test('after a reply that drips', async () => {
    const clock = new DripClock();
    const server = await serve({
      behaviour: async (ask) => {
        if (ask.connection > 0) return ask.send();
        const reply = chunk(ask.cookie, 1, Buffer.concat([u64(ask.offset), Buffer.alloc(ask.length)]));
        for (let at = 0; at < 3; at++) {
          clock.pass(STALL_MS - 1);
          const received = clock.asked();
          ask.socket.write(reply.subarray(at, at + 1));
          await received;
        }
        return clock.wake();
      },
    });
    const { source } = await open(server, { clock });
    expectBytes(await readOf(source, 0, 100), CONTENT.subarray(0, 100));
    expect(server.connections).toBe(2);
  });

  test('but not while nothing is requested', async () => {
    const server = await serve();
    const { source, clock } = await open(server);
    await readOf(source, 0, 100);
    clock.stall();
    expectBytes(await readOf(source, 0, 100), CONTENT.subarray(0, 100));
    expect(server.connections).toBe(1);
  });

  test('but not while a server answers small requests slowly', async () => {
    const clock = new TestClock();
    const server = await serve({
      behaviour: (ask) => {
        clock.pass(STALL_MS - 1);
        ask.send();
      },
    });
    const { source } = await open(server, { clock });
    for (let round = 0; round < 5; round++) {
      expectBytes(await readOf(source, 0, 100), CONTENT.subarray(0, 100));
      clock.wake();
    }
    expect(server.connections).toBe(1);
  });

  test.each([5, 12, 108])('after error %i of the server', async (error) => {
    const server = await serve({
      behaviour: (ask) => (ask.index < 2 ? ask.socket.write(simpleReply(ask.cookie, error)) : ask.send()),
    });
    const { source } = await open(server);
    expectBytes(await readOf(source, 0, 100), CONTENT.subarray(0, 100));
    expect(server.asks).toHaveLength(3);
  });

  test('until the maximum number of attempts', async () => {
    const error = Buffer.concat([u32(5), u16(8), Buffer.from('bad\ndisk')]);
    const server = await serve({ behaviour: (ask) => void ask.socket.write(chunk(ask.cookie, 0x8001, error)) });
    const { source } = await open(server, { retry: { attempts: 3 } });
    const reading = source.read(new Uint8Array(10), 0);
    await expect(reading).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringMatching(/EIO, bad\?disk.*3 attempts/),
    });
    expect(server.asks).toHaveLength(3);
  });

  test('as long as its patience lasts, and a stream longer', async () => {
    const server = await serve({ behaviour: (ask) => void ask.socket.write(simpleReply(ask.cookie, 5)) });
    const clock = new PassingClock();
    const { source } = await open(server, { clock, retry: { attempts: 30, patienceMs: 20_000 } });
    await expect(source.read(new Uint8Array(10), 0)).rejects.toThrow(/given up after 8 attempts/);
    expect(clock.now()).toBeLessThanOrEqual(20_000);
    const stream = source.stream!(0, 10)[Symbol.asyncIterator]();
    await expect(stream.next()).rejects.toThrow(/given up after 30 attempts/);
  });

  test('but not after a permanent error', async () => {
    const server = await serve({ behaviour: (ask) => void ask.socket.write(simpleReply(ask.cookie, 22)) });
    const { source } = await open(server);
    await expect(source.read(new Uint8Array(10), 0)).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      details: { error: 22 },
    });
    expect(server.asks).toHaveLength(1);
  });

  test('but rejects if the export has another size', async () => {
    const server = await serve();
    const { source } = await open(server);
    server.content = new Uint8Array(512);
    server.hangUp();
    await expect(source.read(new Uint8Array(10), 0)).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
  });
});

describe('ends', () => {
  test('when the caller’s signal is aborted; the late reply changes no buffer', async () => {
    const held: NbdAsk[] = [];
    const server = await serve({ behaviour: (ask) => (held.length === 0 ? void held.push(ask) : ask.send()) });
    const { source } = await open(server);
    const abort = new AbortController();
    const into = new Uint8Array(1000).fill(0xee);
    const reading = source.read(into, 0, { signal: abort.signal });
    while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
    abort.abort(new Error('enough'));
    await expect(reading).rejects.toThrow('enough');
    held[0]!.send();
    expectBytes(await readOf(source, 50, 100), CONTENT.subarray(50, 150));
    expectBytes(into, new Uint8Array(1000).fill(0xee));
    await expect(source.read(into, 0, { signal: AbortSignal.abort(new Error('before')) })).rejects.toThrow('before');
    expect(server.connections).toBe(1);
  });

  test('with COD_CLOSED when the source is closed; the client sends a disconnect', async () => {
    const server = await serve({ behaviour: () => undefined });
    const { source } = await open(server);
    const reading = source.read(new Uint8Array(10), 0);
    const streaming = source.stream!(0, 10).next();
    while (server.asks.length < 2) await new Promise((resolve) => setImmediate(resolve));
    await source.close();
    await source.close();
    await expect(reading).rejects.toMatchObject({ code: 'COD_CLOSED' });
    await expect(streaming).rejects.toMatchObject({ code: 'COD_CLOSED' });
    await expect(source.read(new Uint8Array(10), 0)).rejects.toMatchObject({ code: 'COD_CLOSED' });
    while (server.asked(COMMAND.disconnect).length === 0) await new Promise((resolve) => setImmediate(resolve));
  });

  test('during the open', async () => {
    const server = await serve({ greet: () => undefined });
    const abort = new AbortController();
    const opening = nbdSource(server.uri, { signal: abort.signal });
    while (server.connections === 0) await new Promise((resolve) => setImmediate(resolve));
    abort.abort(new Error('enough'));
    await expect(opening).rejects.toThrow('enough');
  });
});

describe('a server that', () => {
  const oldstyle = Buffer.concat([Buffer.from('NBDMAGIC'), u64(0x420281861253n), u64(512), Buffer.alloc(128)]);

  test.each([
    { name: 'speaks HTTP', greeting: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), says: 'does not speak NBD' },
    { name: 'speaks oldstyle', greeting: oldstyle, says: 'oldstyle' },
    {
      name: 'is not fixed newstyle',
      greeting: Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(0)]),
      says: 'fixed newstyle',
    },
    { name: 'speaks another handshake', greeting: Buffer.from('NBDMAGICNBDMAGIC__'), says: 'unknown handshake' },
  ])('$name is refused immediately', async ({ greeting, says }) => {
    const server = await serve({ greet: (socket) => void socket.write(greeting) });
    await expect(nbdSource(server.uri)).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringContaining(says),
    });
    expect(server.connections).toBe(1);
  });

  test.each([
    { name: 'has no such export', type: 0x80000006, code: 'COD_NOT_FOUND', says: '"disk"' },
    { name: 'requires TLS', type: 0x80000005, code: 'COD_SOURCE_IO', says: 'nbds://' },
    { name: 'refuses by policy', type: 0x80000002, code: 'COD_SOURCE_IO', says: 'denies access' },
    { name: 'refuses with an unknown error', type: 0x80001234, code: 'COD_SOURCE_IO', says: '0x80001234' },
  ])('$name is reported immediately', async ({ type, code, says }) => {
    const server = await serve({
      onOption: (option) => (option === 7 ? optionReply(7, type, Buffer.from('so\x1b[2J')) : undefined),
    });
    const opening = nbdSource(server.uri);
    await expect(opening).rejects.toMatchObject({ code, message: expect.stringContaining(says) });
    await expect(opening).rejects.toMatchObject({ message: expect.not.stringContaining('\x1b') });
    expect(server.connections).toBe(1);
  });

  const go = (...replies: Buffer[]): NbdServerOptions => ({
    onOption: (option) => (option === 7 ? Buffer.concat(replies) : undefined),
  });
  const exportOf = (size: number | bigint, flags = 1) =>
    optionReply(7, 3, Buffer.concat([u16(0), u64(size), u16(flags)]));
  const blocks = (min: number, max: number) => optionReply(7, 3, Buffer.concat([u16(3), u32(min), u32(min), u32(max)]));
  const ack = optionReply(7, 1);

  test.each([
    { name: 'sends no size', options: go(ack) },
    { name: 'sends a size that is too large', options: go(exportOf(2n ** 63n), ack) },
    { name: 'sends no flags', options: go(exportOf(512, 0), ack) },
    { name: 'sends half a size', options: go(optionReply(7, 3, Buffer.concat([u16(0), u32(5)])), ack) },
    { name: 'sends empty information', options: go(optionReply(7, 3), ack) },
    { name: 'has blocks of three bytes', options: go(exportOf(512), blocks(3, 512), ack) },
    { name: 'has blocks of zero bytes', options: go(exportOf(512), blocks(0, 512), ack) },
    { name: 'has blocks larger than its requests', options: go(exportOf(512), blocks(512, 256), ack) },
    { name: 'has half a block', options: go(exportOf(700), blocks(512, 1024), ack) },
    {
      name: 'sends an endless reply',
      options: go(...Array.from({ length: 100 }, () => optionReply(7, 3, Buffer.concat([u16(9)])))),
    },
    {
      name: 'announces a reply that is too long',
      options: go(Buffer.concat([u64(0x3e889045565a9n), u32(7), u32(3), u32(2 ** 31)])),
    },
    { name: 'answers to another option', options: go(optionReply(6, 1)) },
    { name: 'answers with garbage', options: go(Buffer.alloc(64, 0xaa)) },
    { name: 'sends bytes after the end', options: go(exportOf(512), ack, Buffer.from('more')) },
    {
      name: 'has a context without a number',
      options: { onOption: (option: number) => (option === 10 ? optionReply(10, 4) : undefined) },
    },
  ])('$name is refused immediately', async ({ options }) => {
    const server = await serve(options);
    await expect(nbdSource(server.uri)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
    expect(server.connections).toBe(1);
  });

  test('is silent or hangs up fails after some attempts', async () => {
    const silent = await serve({ greet: () => clock.stall() });
    const clock = new TestClock();
    await expect(nbdSource(silent.uri, { clock, retry: { attempts: 2 } })).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringContaining('15000 ms'),
    });
    const rude = await serve({ greet: (socket) => void socket.end(GREETING) });
    await expect(open(rude)).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringContaining('closed the connection'),
    });
    expect(rude.connections).toBe(5);
  });

  test('does not exist fails after some attempts', async () => {
    const clock = new TestClock();
    const opening = nbdSource('nbd+unix:///?socket=/nowhere/at/all', { clock });
    await expect(opening).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      message: expect.stringMatching(/ENOENT.*5 attempts/),
    });
  });

  type Answer = (ask: NbdAsk) => Buffer;
  const data = (offset: number, length: number) => Buffer.concat([u64(offset), Buffer.alloc(length)]);
  const answers: readonly { name: string; answer: Answer }[] = [
    { name: 'answers with garbage', answer: () => Buffer.alloc(100, 0x55) },
    { name: 'answers an unknown cookie', answer: () => chunk(999n, 1, data(0, 1000)) },
    { name: 'sends a simple reply', answer: ({ cookie }) => simpleReply(cookie, 0, Buffer.alloc(1000)) },
    { name: 'sends bytes of another range', answer: ({ cookie }) => chunk(cookie, 1, data(5000, 1000)) },
    { name: 'sends bytes before the range', answer: ({ cookie }) => chunk(cookie, 1, data(0, 1000)) },
    { name: 'sends too much', answer: ({ cookie, offset }) => chunk(cookie, 1, data(offset, 1001)) },
    {
      name: 'announces too much',
      answer: ({ cookie, offset }) => chunk(cookie, 1, data(offset, 10), { length: 2 ** 32 - 1 }),
    },
    { name: 'sends too little', answer: ({ cookie, offset }) => chunk(cookie, 1, data(offset, 999)) },
    { name: 'sends nothing', answer: ({ cookie }) => chunk(cookie, 0, Buffer.alloc(0)) },
    {
      name: 'sends an empty chunk that is not the last',
      answer: ({ cookie }) => chunk(cookie, 0, Buffer.alloc(0), { done: false }),
    },
    { name: 'sends an empty data chunk', answer: ({ cookie, offset }) => chunk(cookie, 1, data(offset, 0)) },
    {
      name: 'sends bytes twice',
      answer: ({ cookie, offset }) =>
        Buffer.concat([
          chunk(cookie, 1, data(offset, 600), { done: false }),
          chunk(cookie, 1, data(offset + 500, 500)),
        ]),
    },
    {
      name: 'sends bytes and then a hole there',
      answer: ({ cookie, offset }) =>
        Buffer.concat([
          chunk(cookie, 1, data(offset, 1000), { done: false }),
          chunk(cookie, 2, Buffer.concat([u64(offset), u32(1000)])),
        ]),
    },
    {
      name: 'sends a hole beyond the range',
      answer: ({ cookie, offset }) => chunk(cookie, 2, Buffer.concat([u64(offset), u32(2 ** 31)])),
    },
    {
      name: 'sends a hole chunk with extra bytes',
      answer: ({ cookie, offset }) => chunk(cookie, 2, Buffer.concat([u64(offset), u64(1000)])),
    },
    {
      name: 'sends block status',
      answer: ({ cookie }) => chunk(cookie, 5, Buffer.concat([u32(CONTEXT), u32(1000), u32(0)])),
    },
    { name: 'sends an unknown chunk', answer: ({ cookie }) => chunk(cookie, 77, Buffer.alloc(8)) },
    {
      name: 'announces an error message that is too long',
      answer: ({ cookie }) => chunk(cookie, 0x8001, Buffer.alloc(10), { length: 2 ** 30 }),
    },
    { name: 'sends an error chunk that is too short', answer: ({ cookie }) => chunk(cookie, 0x8001, Buffer.alloc(3)) },
    {
      name: 'fails with a missing message',
      answer: ({ cookie }) => chunk(cookie, 0x8001, Buffer.concat([u32(5), u16(99)])),
    },
    {
      name: 'sends one byte per chunk',
      answer: ({ cookie, offset }) =>
        Buffer.concat(
          Array.from({ length: 5000 }, (_, index) =>
            chunk(cookie, 1, data(offset + (index % 1000), 1), { done: false }),
          ),
        ),
    },
  ];

  test.each(answers)('$name is refused', async ({ answer }) => {
    const server = await serve({
      behaviour: (ask) => (ask.connection === 0 ? void ask.socket.write(answer(ask)) : ask.send()),
    });
    const { source } = await open(server);
    await expect(source.read(new Uint8Array(1000), 2000)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
    // The next read uses a new connection.
    expectBytes(await readOf(source, 0, 100), CONTENT.subarray(0, 100));
    expect(server.connections).toBe(2);
  });

  test.each([
    { name: 'sends extents of zero bytes', data: [u32(CONTEXT), u32(0), u32(0)] },
    { name: 'sends no extents', data: [u32(CONTEXT)] },
    { name: 'sends half an extent', data: [u32(CONTEXT), u32(500)] },
    { name: 'sends another context', data: [u32(CONTEXT + 1), u32(1000), u32(0)] },
    { name: 'sends extents after the range', data: [u32(CONTEXT), u32(1000), u32(0), u32(1000), u32(0)] },
    { name: 'sends an empty last chunk', type: 0, data: [] },
    { name: 'sends data', type: 1, data: [u64(0), Buffer.alloc(1000)] },
  ])('$name for block status is refused', async ({ type = 5, data }) => {
    const server = await serve({
      runs: () => [],
      behaviour: (ask) => void ask.socket.write(chunk(ask.cookie, type, Buffer.concat(data))),
    });
    const { source } = await open(server);
    await expect(source.extents!(0, 1000)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
  });
});

describe('the parsers', () => {
  /** Splits bytes into pieces of any length. */
  const pieces = (bytes: Buffer, cuts: readonly number[]): Buffer[] => {
    const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
    return [0, ...places].map((from, index) => bytes.subarray(from, places[index] ?? bytes.length));
  };
  const cuts = fc.array(fc.nat(), { maxLength: 20 });

  test('of replies accept any pieces; changed bytes are refused or settle each request within its buffer', () => {
    const change = fc.record({ at: fc.nat(), to: fc.nat(255) });
    fc.assert(
      fc.property(cuts, fc.array(change, { maxLength: 4 }), (cutAt, changes) => {
        const parser = new ReplyParser({ what: 'test', structured: true, allocationContext: CONTEXT });
        const guarded = new Uint8Array(3000).fill(0xee);
        const settled: (Error | undefined)[][] = [[], []];
        const read: ReadRequest = {
          kind: 'read',
          offset: 500,
          length: 1000,
          into: guarded.subarray(1000, 2000),
          settle: (error) => void settled[0]!.push(error),
        };
        const status: StatusRequest = {
          kind: 'status',
          offset: 0,
          length: 5000,
          runs: [],
          settle: (error) => void settled[1]!.push(error),
        };
        parser.add(1, read);
        parser.add(2, status);
        const bytes = Buffer.concat([
          chunk(1n, 1, Buffer.concat([u64(500), Buffer.alloc(700, 1)]), { done: false }),
          chunk(2n, 5, Buffer.concat([u32(CONTEXT), u32(2000), u32(3), u32(9000), u32(0)])),
          chunk(1n, 2, Buffer.concat([u64(1200), u32(300)])),
        ]);
        for (const { at, to } of changes) bytes[at % bytes.length] = to;
        let refused: unknown;
        try {
          for (const piece of pieces(bytes, cutAt)) parser.push(piece);
        } catch (error) {
          refused = error;
          expect(error).toMatchObject({ code: 'COD_SOURCE_IO' });
        }
        if (changes.length === 0) {
          expect(settled).toEqual([[undefined], [undefined]]);
          expect(status.runs).toEqual([
            { length: 2000, zero: true },
            { length: 3000, zero: false },
          ]);
          expectBytes(read.into, new Uint8Array(1000).fill(1, 0, 700));
          expect(refused).toBeUndefined();
        }
        parser.fail(new Error('over'));
        for (const outcomes of settled) expect(outcomes).toHaveLength(1);
        expect(status.runs.reduce((sum, { length }) => sum + length, 0)).toBeLessThanOrEqual(5000);
        expectBytes(guarded.subarray(0, 1000), new Uint8Array(1000).fill(0xee));
        expectBytes(guarded.subarray(2000), new Uint8Array(1000).fill(0xee));
      }),
      { numRuns: 2000 },
    );
  });

  test('of the handshake accept any pieces, and refuse or accept changed bytes', () => {
    const recorded = Buffer.concat([
      GREETING,
      optionReply(8, 1),
      optionReply(10, 4, Buffer.concat([u32(CONTEXT), Buffer.from('base:allocation')])),
      optionReply(10, 1),
      optionReply(7, 3, Buffer.concat([u16(0), u64(2 ** 20), u16(1)])),
      optionReply(7, 3, Buffer.concat([u16(3), u32(512), u32(4096), u32(2 ** 20)])),
      optionReply(7, 1),
    ]);
    const change = fc.record({ at: fc.nat(), to: fc.nat(255) });
    fc.assert(
      fc.property(cuts, fc.array(change, { maxLength: 3 }), (cutAt, changes) => {
        const bytes = Buffer.from(recorded);
        for (const { at, to } of changes) bytes[at % bytes.length] = to;
        const done: unknown[] = [];
        const negotiation = new Negotiation(
          { exportName: 'disk', tls: false, what: 'test' },
          {
            send: () => undefined,
            startTls: () => expect.fail('unexpected TLS request'),
            done: (info) => void done.push(info),
          },
        );
        try {
          for (const piece of pieces(bytes, cutAt)) negotiation.push(piece);
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
          expect(['CodError', 'Error']).toContain((error as Error).name);
        }
        if (changes.length === 0) {
          const info = {
            size: 2 ** 20,
            structured: true,
            allocationContext: CONTEXT,
            minBlockBytes: 512,
            maxBlockBytes: 2 ** 20,
          };
          expect(done).toEqual([info]);
        }
        expect(done.length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 2000 },
    );
  });
});
