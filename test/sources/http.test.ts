import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { type CodErrorCode, isCodError } from '../../src/errors.ts';
import { fetchTransport } from '../../src/sources/http/fetch-transport.ts';
import { nodeTransport } from '../../src/sources/http/node-transport.ts';
import { type HttpSourceOptions, httpSource } from '../../src/sources/http/source.ts';
import type { Source } from '../../src/sources/source.ts';
import { type Ask, type Behaviour, HostileServer, honest } from '../support/http-server.ts';
import { PassingClock, STALL_MS, TestClock } from './test-clock.ts';

const SIZE = 700_001;
const content = pattern(SIZE);
const ATTEMPTS = 3;
/** The part of an identity that the server's Last-Modified gives. */
const MODIFIED = 'modified:Sat, 01 Nov 2025 00:00:00 GMT;';

const transports = [
  ['fetch', fetchTransport],
  ['undici', nodeTransport],
] as const;

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** The behaviour of the server from the second request on. The first request opens the source. */
interface LaterCase {
  name: string;
  behaviour: Behaviour;
  /** The expected error code; undefined if the bytes must arrive. */
  code?: CodErrorCode;
  message?: RegExp;
}

const later: LaterCase[] = [
  { name: 'answers correctly', behaviour: honest },
  {
    name: 'answers 500 twice, then correctly',
    behaviour: (ask) => (ask.index <= 2 ? ask.send({ status: 500, body: 'later' }) : ask.send()),
  },
  {
    name: 'always answers 500',
    behaviour: (ask) => ask.send({ status: 500, body: 'no' }),
    code: 'COD_SOURCE_IO',
    message: /500.*3 attempts/,
  },
  {
    name: 'answers 429 once',
    behaviour: once((ask) => ask.send({ status: 429, headers: { 'retry-after': '7' }, body: '' })),
  },
  { name: 'answers 404', behaviour: (ask) => ask.send({ status: 404, body: 'gone' }), code: 'COD_NOT_FOUND' },
  { name: 'answers 410', behaviour: (ask) => ask.send({ status: 410, body: 'gone' }), code: 'COD_NOT_FOUND' },
  {
    name: 'answers 401',
    behaviour: (ask) => ask.send({ status: 401, body: '' }),
    code: 'COD_SOURCE_IO',
    message: /credentials/,
  },
  {
    name: 'answers 403',
    behaviour: (ask) => ask.send({ status: 403, body: '' }),
    code: 'COD_SOURCE_IO',
    message: /credentials/,
  },
  {
    name: 'answers 416 with another size',
    behaviour: (ask) => ask.send({ status: 416, headers: { 'content-range': 'bytes */5' }, body: '' }),
    code: 'COD_SOURCE_CHANGED',
  },
  {
    name: 'answers 416 with the same size',
    behaviour: (ask) => ask.send({ status: 416, headers: { 'content-range': `bytes */${SIZE}` }, body: '' }),
    code: 'COD_SOURCE_IO',
  },
  {
    name: 'ignores ranges',
    behaviour: (ask) => ask.send({ status: 200, headers: { 'content-range': undefined }, body: content }),
    code: 'COD_SOURCE_IO',
    message: /ignores ranges/,
  },
  {
    name: 'announces fewer bytes than the range has',
    behaviour: (ask) => ask.send({ body: content.subarray(ask.start, ask.end - 1) }),
    code: 'COD_SOURCE_IO',
  },
  {
    name: 'announces more bytes than the range has',
    behaviour: (ask) => ask.send({ body: new Uint8Array(ask.end - ask.start + 1) }),
    code: 'COD_SOURCE_IO',
  },
  {
    name: 'sends less than it announced, and closes the connection',
    behaviour: (ask) => {
      ask.send({ body: false });
      ask.socket.end();
    },
    code: 'COD_SOURCE_IO',
  },
  {
    name: 'sends the range shifted by one',
    behaviour: (ask) =>
      ask.send({
        headers: { 'content-range': `bytes ${ask.start + 1}-${ask.end}/${SIZE}` },
        body: content.subarray(ask.start + 1, ask.end + 1),
      }),
    code: 'COD_SOURCE_IO',
  },
  {
    name: 'sends half of the range with a correct Content-Range',
    behaviour: (ask) => {
      const end = ask.start + Math.ceil((ask.end - ask.start) / 2);
      ask.send({
        headers: { 'content-range': `bytes ${ask.start}-${end - 1}/${SIZE}` },
        body: content.subarray(ask.start, end),
      });
    },
  },
  {
    name: 'sends a malformed Content-Range',
    behaviour: (ask) => ask.send({ headers: { 'content-range': 'bytes all of it' } }),
    code: 'COD_SOURCE_IO',
  },
  {
    name: 'announces another total size',
    behaviour: (ask) => ask.send({ headers: { 'content-range': `bytes ${ask.start}-${ask.end - 1}/${SIZE + 1}` } }),
    code: 'COD_SOURCE_CHANGED',
  },
  { name: 'has another ETag', behaviour: (ask) => ask.send({ headers: { etag: '"v2"' } }), code: 'COD_SOURCE_CHANGED' },
  {
    name: 'has lost its ETag',
    behaviour: (ask) => ask.send({ headers: { etag: undefined } }),
    code: 'COD_SOURCE_CHANGED',
  },
  {
    name: 'compresses',
    behaviour: (ask) => ask.send({ headers: { 'content-encoding': 'gzip' } }),
    code: 'COD_SOURCE_IO',
    message: /compresses|gzip|header check/,
  },
  { name: 'resets before the head once', behaviour: once((ask) => ask.socket.resetAndDestroy()) },
  { name: 'always resets before the head', behaviour: (ask) => ask.socket.resetAndDestroy(), code: 'COD_SOURCE_IO' },
  {
    name: 'resets in the body once',
    behaviour: once((ask) => {
      ask.send({ body: false });
      ask.socket.write(content.subarray(ask.start, ask.end - 1), () => ask.socket.resetAndDestroy());
    }),
  },
  {
    name: 'closes in the middle of the body, each time a little later',
    behaviour: (ask) => {
      ask.send({ body: false });
      ask.socket.end(content.subarray(ask.start, Math.min(ask.end, ask.start + 50_000)));
    },
  },
  {
    name: 'sends chunks without a length',
    behaviour: (ask) => {
      ask.send({ headers: { 'content-length': undefined, 'transfer-encoding': 'chunked' }, body: false });
      for (let at = ask.start; at < ask.end; at += 10_007)
        sendChunk(ask, content.subarray(at, Math.min(ask.end, at + 10_007)));
      ask.socket.write('0\r\nx-trailer: 1\r\n\r\n');
    },
  },
  {
    name: 'sends too many chunks',
    behaviour: (ask) => {
      ask.send({ headers: { 'content-length': undefined, 'transfer-encoding': 'chunked' }, body: false });
      sendChunk(ask, content.subarray(ask.start, ask.end));
      sendChunk(ask, new Uint8Array(10));
      ask.socket.write('0\r\n\r\n');
    },
    code: 'COD_SOURCE_IO',
    message: /more bytes than requested/,
  },
  {
    name: 'never ends the body',
    behaviour: (ask) => {
      ask.send({ headers: { 'content-length': undefined, 'transfer-encoding': 'chunked' }, body: false });
      sendChunk(ask, content.subarray(ask.start, ask.end));
      const more = () => {
        while (ask.socket.writable && sendChunk(ask, new Uint8Array(65536)));
      };
      ask.socket.on('drain', more);
      more();
    },
    code: 'COD_SOURCE_IO',
    message: /more bytes than requested/,
  },
  {
    name: 'ends the body with the connection',
    behaviour: (ask) => {
      ask.send({ headers: { 'content-length': undefined }, body: false });
      ask.socket.end(content.subarray(ask.start, ask.end));
    },
  },
  {
    name: 'announces no length and sends too little',
    behaviour: (ask) => {
      ask.send({ headers: { 'content-length': undefined }, body: false });
      ask.socket.end();
    },
    code: 'COD_SOURCE_IO',
  },
  {
    name: 'sends a mebibyte of headers',
    behaviour: (ask) => ask.send({ headers: { 'x-much': 'x'.repeat(1 << 20) } }),
    code: 'COD_SOURCE_IO',
  },
  {
    name: 'does not speak HTTP',
    behaviour: (ask) => ask.socket.end('SSH-2.0-OpenSSH_9.2\r\n\r\n'),
    code: 'COD_SOURCE_IO',
  },
  { name: 'sends its head in small pieces', behaviour: sendHeadSlowly },
  {
    name: 'closes every kept connection at its second request',
    behaviour: (ask) => (ask.indexOnConnection > 0 ? ask.socket.destroy() : ask.send()),
  },
];

describe.each(transports)('httpSource over %s', (transportName, transport) => {
  async function start(behaviour: Behaviour = honest, bytes: Uint8Array = content): Promise<HostileServer> {
    const server = await HostileServer.start(bytes, behaviour);
    cleanups.push(() => server.stop());
    return server;
  }

  async function open(
    url: string,
    options: HttpSourceOptions = {},
  ): Promise<Source & { stream: NonNullable<Source['stream']> }> {
    const source = await httpSource(url, {
      transport: transport(),
      clock: new TestClock(),
      random: () => 0.5,
      retry: { attempts: ATTEMPTS },
      ...options,
    });
    cleanups.push(() => source.close());
    if (!source.stream) throw new Error('an HTTP source has streams');
    return source as Source & { stream: NonNullable<Source['stream']> };
  }

  describe.each(later)('from a server that $name', ({ behaviour, code, message }) => {
    const verdict = code === undefined ? 'are right' : `reject with ${code}`;

    it(`reads ${verdict}`, async () => {
      const server = await start(afterOpening(behaviour));
      const source = await open(server.url);
      const into = new Uint8Array(100_003);
      const reading = source.read(into, 12_345);
      if (code === undefined) {
        await reading;
        expect(digest(into)).toBe(digest(content.subarray(12_345, 12_345 + into.length)));
      } else {
        await expectCode(reading, code, message);
      }
    });

    it(`streams ${verdict}`, async () => {
      const server = await start(afterOpening(behaviour));
      const source = await open(server.url);
      const streaming = collect(source.stream(1, SIZE - 2));
      if (code === undefined) expect(digest(await streaming)).toBe(digest(content.subarray(1, SIZE - 1)));
      else await expectCode(streaming, code, message);
    });
  });

  describe('opening', () => {
    it('requests one byte, and gets size and identity', async () => {
      const server = await start();
      const source = await open(server.url);
      expect(source.size).toBe(SIZE);
      expect(source.identity).toBe('etag:"v1"');
      expect(server.ranges).toEqual(['bytes=0-0']);
    });

    it.each([
      ['a weak ETag', { etag: 'W/"v1"' }, `weak:W/"v1";${MODIFIED}size:${SIZE}`],
      ['a weak ETag only', { etag: 'W/"v1"', 'last-modified': undefined }, `weak:W/"v1";size:${SIZE}`],
      ['an ETag without quotes', { etag: 'v1' }, `weak:v1;${MODIFIED}size:${SIZE}`],
      ['an ETag with one quote', { etag: '"v1' }, `weak:"v1;${MODIFIED}size:${SIZE}`],
      ['a list of ETags', { etag: '"v1", "v1"' }, `weak:"v1", "v1";${MODIFIED}size:${SIZE}`],
      ['an empty tag in quotes', { etag: '""' }, 'etag:""'],
      ['an empty ETag', { etag: '' }, `${MODIFIED}size:${SIZE}`],
      ['no ETag', { etag: undefined }, `${MODIFIED}size:${SIZE}`],
      ['neither ETag nor Last-Modified', { etag: undefined, 'last-modified': undefined }, undefined],
      ['an empty ETag and an empty Last-Modified', { etag: '', 'last-modified': '' }, undefined],
    ])('with %s uses the headers that there are as identity', async (_, headers, identity) => {
      const server = await start((ask) => ask.send({ headers }));
      expect((await open(server.url)).identity).toBe(identity);
    });

    it.each([
      ['another weak ETag', { etag: 'W/"v1"' }, { etag: 'W/"v2"' }],
      ['another ETag without quotes', { etag: 'v1' }, { etag: 'v2' }],
      ['the same weak ETag with another Last-Modified', { etag: 'W/"v1"' }, { etag: 'W/"v1"', 'last-modified': 'x' }],
      ['a weak ETag instead of a strong one', { etag: '"v1"' }, { etag: 'W/"v1"' }],
      ['a strong ETag instead of a weak one', { etag: 'W/"v1"' }, { etag: '"v1"' }],
      ['no ETag instead of a weak one', { etag: 'W/"v1"' }, { etag: undefined }],
      ['a weak ETag instead of none', { etag: undefined }, { etag: 'W/"v1"' }],
      ['another Last-Modified without an ETag', { etag: undefined }, { etag: undefined, 'last-modified': 'x' }],
      [
        'a weak ETag instead of no validator at all',
        { etag: undefined, 'last-modified': undefined },
        { etag: 'W/"v1"', 'last-modified': undefined },
      ],
    ])('detects %s', async (_, atOpening, later) => {
      const server = await start((ask) => ask.send({ headers: ask.index === 0 ? atOpening : later }));
      const source = await open(server.url);
      await expectCode(source.read(new Uint8Array(10), 0), 'COD_SOURCE_CHANGED');
      await expectCode(collect(source.stream(0, 10)), 'COD_SOURCE_CHANGED');
    });

    it('rejects all reads after a change, and keeps rejecting when the old content returns', async () => {
      const server = await start((ask) => {
        if (ask.end - ask.start < SIZE) return ask.send({ headers: { etag: ask.index === 2 ? '"v2"' : '"v1"' } });
        ask.send({ body: false });
        return ask.socket.write(content.subarray(0, 1000));
      });
      const source = await open(server.url);
      const underWay = source.stream!(0, SIZE)[Symbol.asyncIterator]();
      expect((await underWay.next()).value).toEqual(content.subarray(0, 1000));
      await expectCode(source.read(new Uint8Array(10), 0), 'COD_SOURCE_CHANGED');
      await expectCode(underWay.next(), 'COD_SOURCE_CHANGED');
      await expectCode(source.read(new Uint8Array(10), 0), 'COD_SOURCE_CHANGED');
      // One more request told whether the server sends another ETag with each answer.
      expect(server.asks.length).toBe(4);
    });

    it.each<[string, Behaviour, CodErrorCode, RegExp]>([
      ['a 404', (ask) => ask.send({ status: 404, body: '' }), 'COD_NOT_FOUND', /404/],
      ['a 403', (ask) => ask.send({ status: 403, body: '' }), 'COD_SOURCE_IO', /credentials/],
      ['a 503', (ask) => ask.send({ status: 503, body: '' }), 'COD_SOURCE_IO', /503.*3 attempts/],
      [
        'no range',
        (ask) => ask.send({ status: 200, headers: { 'content-range': undefined }, body: content }),
        'COD_SOURCE_IO',
        /ignores ranges/,
      ],
      [
        'no Content-Range',
        (ask) => ask.send({ headers: { 'content-range': undefined } }),
        'COD_SOURCE_IO',
        /Access-Control-Expose-Headers/,
      ],
      [
        'an unknown total',
        (ask) => ask.send({ headers: { 'content-range': 'bytes 0-0/*' } }),
        'COD_SOURCE_IO',
        /Content-Range/,
      ],
      ['gzip', (ask) => ask.send({ headers: { 'content-encoding': 'gzip' } }), 'COD_SOURCE_IO', /gzip/],
      ['a redirect without Location', (ask) => ask.send({ status: 302, body: '' }), 'COD_SOURCE_IO', /Location/],
      [
        'a redirect to a file',
        (ask) => ask.send({ status: 302, headers: { location: 'file:///etc/passwd' }, body: '' }),
        'COD_SOURCE_IO',
        /file:/,
      ],
      [
        'redirects in a circle',
        (ask) => ask.send({ status: 302, headers: { location: '/again' }, body: '' }),
        'COD_SOURCE_IO',
        /more than 10/,
      ],
    ])('refuses %s', async (_, behaviour, code, message) => {
      const server = await start(behaviour);
      await expectCode(open(server.url), code, message);
      expect(server.asks.length).toBeLessThanOrEqual(11);
    });

    it('gives up without a server', async () => {
      const server = await start();
      const { url } = server;
      await server.stop();
      const clock = new TestClock();
      await expectCode(open(url, { clock }), 'COD_SOURCE_IO', /3 attempts/);
      expect(clock.delays).toEqual([187.5, 375]);
      cleanups.pop();
    });

    it('makes a source of no bytes from an empty file', async () => {
      const empty = new Uint8Array();
      const ranges = await start(
        (ask) => ask.send({ status: 416, headers: { 'content-range': 'bytes */0' }, body: '' }),
        empty,
      );
      expect((await open(ranges.url)).size).toBe(0);
      const plain = await start((ask) => ask.send({ status: 200, headers: { 'content-range': undefined } }), empty);
      expect((await open(plain.url)).size).toBe(0);
    });

    it('refuses other protocols and malformed headers as wrong arguments', async () => {
      await expect(open('ftp://127.0.0.1/x')).rejects.toThrow(TypeError);
      await expect(open('http://127.0.0.1/x', { headers: { 'x\r\ny': 'z' } })).rejects.toThrow(TypeError);
      await expect(open('http://127.0.0.1/x', { headers: { x: 'y\r\nz: 1' } })).rejects.toThrow(TypeError);
      await expect(open('http://127.0.0.1/x', { headers: { Range: 'bytes=1-1' } })).rejects.toThrow(TypeError);
    });

    it('rejects with the reason of its signal', async () => {
      const controller = new AbortController();
      const server = await start(() => controller.abort(new Error('enough')));
      await expect(open(server.url, { signal: controller.signal })).rejects.toThrow('enough');
      await closed(server.asks[0]!);
    });
  });

  describe('retries', () => {
    it('wait exponentially longer, with jitter, bounded, or as long as Retry-After says', async () => {
      const server = await start((ask) => {
        const retryAfter = ask.index === 5 ? '31' : ask.index === 6 ? '86400' : undefined;
        if (ask.index === 0 || ask.index > 6) ask.send();
        else ask.send({ status: 503, headers: { 'retry-after': retryAfter }, body: '' });
      });
      const clock = new TestClock();
      const source = await open(server.url, { clock, retry: { attempts: 10, baseDelayMs: 100, maxDelayMs: 500 } });
      await source.read(new Uint8Array(10), 0);
      expect(clock.delays).toEqual([75, 150, 300, 375, 31_000, 60_000]);
    });

    it('by default last longer than a minute with any jitter', async () => {
      const server = await start((ask) => (ask.index === 0 ? ask.send() : ask.send({ status: 503, body: '' })));
      const clock = new TestClock();
      const source = await httpSource(server.url, { transport: transport(), clock, random: () => 0 });
      cleanups.push(() => source.close());
      await expectCode(source.read(new Uint8Array(1), 0), 'COD_SOURCE_IO');
      expect(clock.delays.reduce((sum, delay) => sum + delay, 0)).toBeGreaterThan(60_000);
    });

    it('of a read end within its patience, counted from the last byte', async () => {
      const server = await start((ask) => {
        if (ask.index === 0) return ask.send();
        if (ask.index !== 5) return ask.send({ status: 503, headers: { 'retry-after': '3' }, body: '' });
        ask.send({ body: false });
        ask.socket.end(content.subarray(ask.start, ask.start + 1000));
      });
      const clock = new PassingClock();
      const source = await open(server.url, { clock, retry: { attempts: 100, patienceMs: 20_000 } });
      await expectCode(source.read(new Uint8Array(5000), 0), 'COD_SOURCE_IO', /given up after 7 attempts/);
      // Four delays, 1000 bytes, a lost connection, and what fits into 20 s.
      expect(server.asks.map(({ start }) => start)).toEqual([0, 0, 0, 0, 0, 0, ...Array(6).fill(1000)]);
      expect(clock.now()).toBeLessThanOrEqual(12_000 + 20_000);
      // A stream has no such limit.
      const stream = source.stream(0, 5000)[Symbol.asyncIterator]();
      await expectCode(stream.next(), 'COD_SOURCE_IO', /given up after 100 attempts/);
    });

    it('resume a broken stream', async () => {
      const server = await start(
        afterOpening((ask) => {
          if (ask.index > 1) return ask.send();
          ask.send({ body: false });
          ask.socket.write(content.subarray(ask.start, ask.start + 1000));
        }),
      );
      const source = await open(server.url);
      const stream = source.stream(500, 10_000);
      const first = (await stream.next()).value!.slice();
      expect(first).toEqual(content.subarray(500, 1500));
      const rest = collect(stream);
      server.asks[1]!.socket.resetAndDestroy();
      expect(await rest).toEqual(content.subarray(1500, 10_500));
      expect(server.ranges.slice(1)).toEqual(['bytes=500-10499', 'bytes=1500-10499']);
    });

    it('follow a stall before the head', async () => {
      const clock = new TestClock();
      const server = await start((ask) => (ask.index === 1 ? clock.stall() : ask.send()));
      const source = await open(server.url, { clock });
      const into = new Uint8Array(10);
      await source.read(into, 7);
      expect(into).toEqual(content.subarray(7, 17));
      expect(server.asks.length).toBe(3);
    });

    it('follow a stall in the body, for the rest of the body', async () => {
      const clock = new TestClock();
      const server = await start((ask) => {
        if (ask.index !== 1) return ask.send();
        ask.send({ body: false });
        ask.socket.write(content.subarray(ask.start, ask.start + 1000));
      });
      const source = await open(server.url, { clock });
      const stream = source.stream(0, 5000);
      await stream.next();
      const rest = collect(stream);
      clock.stall();
      expect(await rest).toEqual(content.subarray(1000, 5000));
      expect(server.ranges.slice(1)).toEqual(['bytes=0-4999', 'bytes=1000-4999']);
    });

    it('follow a body that drips, for the rest of the body', async () => {
      const clock = new TestClock();
      let begun!: (ask: Ask) => void;
      const dripping = new Promise<Ask>((resolve) => {
        begun = resolve;
      });
      const server = await start((ask) => {
        if (ask.index !== 1) return ask.send();
        ask.send({ body: false });
        return begun(ask);
      });
      const source = await open(server.url, { clock });
      const stream = source.stream(0, 5000);
      for (let at = 0; at < 3; at++) {
        const piece = stream.next();
        const { socket } = await dripping;
        clock.pass(STALL_MS - 1);
        socket.write(content.subarray(at, at + 1));
        expect((await piece).value).toEqual(content.subarray(at, at + 1));
      }
      clock.wake();
      expect(await collect(stream)).toEqual(content.subarray(3, 5000));
      expect(server.ranges.slice(1)).toEqual(['bytes=0-4999', 'bytes=3-4999']);
      await closed(server.asks[1]!);
    });

    it('end in COD_SOURCE_IO when every request stalls', async () => {
      const clock = new TestClock();
      const server = await start((ask) => (ask.index === 0 ? ask.send() : clock.stall()));
      const source = await open(server.url, { clock });
      await expectCode(source.read(new Uint8Array(10), 0), 'COD_SOURCE_IO', /sent nothing for 15000 ms/);
    });

    it('do not treat a slow consumer as a stall', async () => {
      const clock = new TestClock();
      const server = await start();
      const source = await open(server.url, { clock });
      const stream = source.stream(0, SIZE);
      const first = (await stream.next()).value!.slice();
      clock.stall();
      expect(digest(await collect(stream))).toBe(digest(content.subarray(first.length)));
      expect(server.asks.length).toBe(2);
    });

    if (transportName === 'undici') {
      it('are not counted when a kept connection was closed', async () => {
        const server = await start((ask) => (ask.indexOnConnection > 0 ? ask.socket.destroy() : ask.send()));
        const clock = new TestClock();
        const source = await open(server.url, { clock });
        for (let offset = 0; offset < 3; offset++) await source.read(new Uint8Array(10), offset);
        expect(clock.delays).toEqual([]);
      });

      it('are not counted, because connections are kept', async () => {
        const server = await start();
        const source = await open(server.url);
        for (let offset = 0; offset < 5; offset++) await source.read(new Uint8Array(10), offset);
        expect(new Set(server.asks.map((ask) => ask.socket)).size).toBe(1);
      });
    }
  });

  describe('redirects', () => {
    it('are followed once: later requests go to their target', async () => {
      const server = await start((ask) =>
        ask.path === '/disk.img'
          ? ask.send({ status: 302, headers: { location: '/real.img?sig=1' }, body: '' })
          : ask.send(),
      );
      const source = await open(server.url);
      await source.read(new Uint8Array(5), 5);
      expect(server.asks.map((ask) => ask.path)).toEqual(['/disk.img', '/real.img?sig=1', '/real.img?sig=1']);
    });

    it.each([401, 403, 404, 410])('are resolved again when their target answers %i', async (status) => {
      let signature = 0;
      const server = await start((ask) => {
        if (ask.path === '/disk.img')
          ask.send({ status: 307, headers: { location: `/real.img?sig=${++signature}` }, body: '' });
        else if (ask.path === '/real.img?sig=1' && ask.index > 1) ask.send({ status, body: 'expired' });
        else ask.send();
      });
      const source = await open(server.url);
      const into = new Uint8Array(5);
      await source.read(into, 5);
      expect(into).toEqual(content.subarray(5, 10));
      expect(signature).toBe(2);
    });

    it('send no credentials and no headers to another origin', async () => {
      const other = await start();
      const server = await start((ask) => ask.send({ status: 302, headers: { location: other.url }, body: '' }));
      await open(server.url.replace('http://', 'http://us%20er:secret@'), { headers: { 'x-token': 'secret' } });
      expect(server.asks[0]!.headers['authorization']).toBe(`Basic ${btoa('us er:secret')}`);
      expect(server.asks[0]!.headers['x-token']).toBe('secret');
      expect(other.asks[0]!.headers['authorization']).toBeUndefined();
      expect(other.asks[0]!.headers['x-token']).toBeUndefined();
    });
  });

  it('shows neither credentials nor the query in its messages', async () => {
    const server = await start((ask) => ask.send({ status: 404, body: '' }));
    const url = `${server.url.replace('http://', 'http://user:hunter2@')}?signature=hunter3`;
    const error = await open(url).catch((caught: unknown) => caught);
    expect(isCodError(error, 'COD_NOT_FOUND')).toBe(true);
    expect(JSON.stringify(error)).not.toMatch(/hunter/);
  });

  describe('without ranges, when whole bodies are allowed', () => {
    const whole: Behaviour = (ask) => ask.send({ status: 200, headers: { 'content-range': undefined }, body: content });

    it('streams and reads any range of them', async () => {
      const server = await start(whole);
      const source = await open(server.url, { allowWholeBody: true });
      expect(source.size).toBe(SIZE);
      expect(digest(await collect(source.stream(0, SIZE)))).toBe(digest(content));
      const into = new Uint8Array(1000);
      await source.read(into, SIZE - 2000);
      expect(into).toEqual(content.subarray(SIZE - 2000, SIZE - 1000));
    });

    it('resumes after a break, and detects a change', async () => {
      const server = await start((ask) => {
        if (ask.index !== 1) return whole(ask);
        ask.send({ status: 200, headers: { 'content-range': undefined, 'content-length': String(SIZE) }, body: false });
        return ask.socket.end(content.subarray(0, 100_000));
      });
      const source = await open(server.url, { allowWholeBody: true });
      expect(digest(await collect(source.stream(0, SIZE)))).toBe(digest(content));
      server.behaviour = (ask) =>
        ask.send({ status: 200, headers: { 'content-range': undefined, etag: '"v2"' }, body: content });
      await expectCode(source.read(new Uint8Array(1), 0), 'COD_SOURCE_CHANGED');
    });
  });

  describe('ending early', () => {
    const half: Behaviour = afterOpening((ask) => {
      ask.send({ body: false });
      ask.socket.write(content.subarray(ask.start, ask.start + (ask.end - ask.start) / 2));
    });

    it('rejects with the reason of the signal and frees the connection', async () => {
      const server = await start(half);
      const source = await open(server.url);
      const controller = new AbortController();
      const stream = source.stream(0, 10_000, { signal: controller.signal });
      await stream.next();
      const rest = collect(stream);
      controller.abort(new Error('enough'));
      await expect(rest).rejects.toThrow('enough');
      await closed(server.asks[1]!);
      server.behaviour = honest;
      await source.read(new Uint8Array(10), 0);
    });

    it('rejects for an already aborted signal without a request', async () => {
      const server = await start();
      const source = await open(server.url);
      await expect(source.read(new Uint8Array(1), 0, { signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow(
        'no',
      );
      expect(server.asks.length).toBe(1);
    });

    it('close rejects requests in flight and later requests with COD_CLOSED', async () => {
      const server = await start(half);
      const source = await open(server.url);
      const reading = source.read(new Uint8Array(10_000), 0);
      const stream = source.stream(20_000, 10_000);
      await stream.next();
      const rest = collect(stream);
      await Promise.all([expectCode(reading, 'COD_CLOSED'), expectCode(rest, 'COD_CLOSED'), source.close()]);
      await expectCode(source.read(new Uint8Array(1), 0), 'COD_CLOSED');
      await source.close();
      if (transportName === 'undici') await server.allClosed();
      else await closed(server.asks[1]!);
    });

    it('leaving a stream ends its request', async () => {
      const server = await start(half);
      const source = await open(server.url);
      for await (const piece of source.stream(0, 10_000)) {
        expect(piece.length).toBeGreaterThan(0);
        break;
      }
      await closed(server.asks[1]!);
    });
  });

  it('stops reading from the server when the consumer is slow', async () => {
    const big = new Uint8Array(64 << 20);
    for (let at = 0; at + SIZE <= big.length; at += SIZE) big.set(content, at);
    let sent = 0;
    const server = await start((ask) => {
      if (ask.end - ask.start < 1000) return ask.send();
      ask.send({ body: false });
      const more = () => {
        while (sent < big.length && ask.socket.writable) {
          const piece = big.subarray(sent, sent + 65536);
          sent += piece.length;
          if (!ask.socket.write(piece)) return;
        }
      };
      ask.socket.on('drain', more);
      more();
    }, big);
    const source = await open(server.url);
    const stream = source.stream(0, big.length);
    const first = (await stream.next()).value!.slice();
    for (let offset = 0; offset < 200; offset++) await source.read(new Uint8Array(10), offset);
    // The kernel's buffers on both ends, some 10 MiB, are beyond our control.
    expect(sent).toBeLessThan(32 << 20);
    expect(digest(await collect(stream))).toBe(digest(big.subarray(first.length)));
  });

  it('returns the correct bytes when they arrive in small pieces for a slow consumer', async () => {
    const big = pattern(3 << 19);
    let onMuchSent = () => {};
    const muchSent = new Promise<void>((resolve) => {
      onMuchSent = resolve;
    });
    const server = await start(async (ask) => {
      if (ask.end - ask.start < 1000) return ask.send();
      ask.send({ body: false });
      // Each write arrives as a separate read; more of them than the client takes before it stops reading.
      for (let at = 0; at < big.length && ask.socket.writable; at += 40_000) {
        ask.socket.write(big.subarray(at, at + 40_000));
        await new Promise((resolve) => setTimeout(resolve, 2));
        if (at > 1 << 20) onMuchSent();
      }
    }, big);
    const source = await open(server.url);
    const stream = source.stream(0, big.length);
    const hash = createHash('sha256');
    hash.update((await stream.next()).value!);
    await muchSent;
    for await (const piece of stream) hash.update(piece);
    expect(hash.digest('hex')).toBe(digest(big));
  });

  it('serves many overlapping reads and a stream', async () => {
    const server = await start();
    const source = await open(server.url);
    const reads = Array.from({ length: 40 }, async (_, index) => {
      const into = new Uint8Array(1 + index * 501);
      await source.read(into, index * 7001);
      expect(digest(into)).toBe(digest(content.subarray(index * 7001, index * 7001 + into.length)));
    });
    expect(digest(await collect(source.stream(0, SIZE)))).toBe(digest(content));
    await Promise.all(reads);
  });
});

function pattern(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at++) bytes[at] = (at * 31 + (at >> 8) * 17) & 0xff;
  return bytes;
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const copies: Uint8Array[] = [];
  for await (const piece of pieces) copies.push(piece.slice());
  return new Uint8Array(Buffer.concat(copies));
}

async function expectCode(promise: Promise<unknown>, code: CodErrorCode, message: RegExp = /./): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toMatchObject({ name: 'CodError', code, message: expect.stringMatching(message) });
}

function afterOpening(behaviour: Behaviour): Behaviour {
  return (ask) => (ask.index === 0 ? ask.send() : behaviour(ask));
}

/** Applies `behaviour` to the first request after the open, and answers later requests correctly. */
function once(behaviour: Behaviour): Behaviour {
  return (ask) => (ask.index === 1 ? behaviour(ask) : ask.send());
}

/** Sends the head in packets of about one field, mostly received by separate reads. */
async function sendHeadSlowly(ask: Ask): Promise<void> {
  const written: Buffer[] = [];
  const write = ask.socket.write;
  ask.socket.write = (bytes: Uint8Array | string) => written.push(Buffer.from(bytes as string)) > 0;
  ask.send();
  ask.socket.write = write;
  const head = written[0] ?? Buffer.alloc(0);
  for (let at = 0; at < head.length; at += 24) {
    ask.socket.write(head.subarray(at, at + 24));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  ask.socket.write(written[1] ?? '');
}

function sendChunk(ask: Ask, bytes: Uint8Array): boolean {
  ask.socket.write(`${bytes.length.toString(16)}\r\n`);
  ask.socket.write(bytes);
  return ask.socket.write('\r\n');
}

function closed(ask: Ask): Promise<void> {
  if (ask.socket.closed) return Promise.resolve();
  return new Promise((resolve) => ask.socket.once('close', resolve));
}
