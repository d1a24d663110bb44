/** What HTTP allows and servers do: partial answers, unknown sizes, mirrors, changing ETags, expired URLs, errors. */

import { afterEach, describe, expect, it } from 'vitest';
import { fetchTransport } from '../../src/sources/http/fetch-transport.ts';
import { nodeTransport } from '../../src/sources/http/node-transport.ts';
import { type HttpSourceOptions, httpSource } from '../../src/sources/http/source.ts';
import type { RetryReport } from '../../src/sources/retry.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { type Ask, type Behaviour, HostileServer, honest } from '../support/http-server.ts';
import { STALL_MS, TestClock } from './test-clock.ts';

const SIZE = 300_001;
const CONTENT = seededRandom(3).fill(new Uint8Array(SIZE));

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function serve(behaviour: Behaviour): Promise<HostileServer> {
  const server = await HostileServer.start(CONTENT, behaviour);
  cleanups.push(() => server.stop());
  return server;
}

/** Sends the bytes [start, end) with a Content-Range that says so. */
function sendSlice(ask: Ask, start: number, end: number, total = `${SIZE}`): void {
  ask.send({
    headers: { 'content-range': `bytes ${start}-${end - 1}/${total}` },
    body: CONTENT.subarray(start, end),
  });
}

const redirect = (ask: Ask, location: string) => ask.send({ status: 302, headers: { location }, body: '' });

describe.each([
  ['fetch', fetchTransport],
  ['undici', nodeTransport],
] as const)('httpSource over %s', (name, transport) => {
  async function open(url: Parameters<typeof httpSource>[0], options: HttpSourceOptions = {}): Promise<InlineSource> {
    const defaults = { transport: transport(), clock: new TestClock(), random: () => 0.5, retry: { attempts: 4 } };
    const source = await httpSource(url, { ...defaults, ...options });
    cleanups.push(() => source.close());
    return source;
  }

  async function expectRead(source: InlineSource, offset = 12_345, length = 100_003): Promise<void> {
    const into = new Uint8Array(length);
    await source.read(into, offset);
    expectBytes(into, CONTENT.subarray(offset, offset + length));
  }

  describe('takes an answer', () => {
    it('with fewer bytes than requested, and asks for the rest', async () => {
      const server = await serve((ask) => sendSlice(ask, ask.start, Math.min(ask.end, ask.start + 40_000)));
      const clock = new TestClock();
      const source = await open(server.url, { clock });
      await expectRead(source);
      expect(server.ranges.slice(1)).toEqual(['bytes=12345-112347', 'bytes=52345-112347', 'bytes=92345-112347']);
      expect(clock.delays).toEqual([]);
    });

    it('without a byte only as often as a failure', async () => {
      const server = await serve((ask) => {
        if (ask.index === 0) return ask.send();
        ask.send({
          headers: { 'content-length': undefined, 'content-range': `bytes ${ask.start}-${ask.start}/${SIZE}` },
          body: false,
        });
        return ask.socket.end();
      });
      const source = await open(server.url);
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
      expect(server.asks.length).toBe(5);
    });

    it('with a larger slice, cut to fit', async () => {
      const unit = 65_536;
      const server = await serve((ask) =>
        sendSlice(ask, ask.start - (ask.start % unit), Math.min(SIZE, Math.ceil(ask.end / unit) * unit)),
      );
      const source = await open(server.url);
      expect(source.size).toBe(SIZE);
      await expectRead(source);
      await expectRead(source, SIZE - 10, 10);
    });

    it('with equal headers twice', async () => {
      const twice = (ask: Ask) => {
        const range = `bytes ${ask.start}-${ask.end - 1}/${SIZE}`;
        ask.send({ headers: { etag: '"v1"\r\netag: "v1"', 'content-range': `${range}\r\ncontent-range: ${range}` } });
      };
      await expectRead(await open((await serve(twice)).url));
    });

    it('but not with different headers of one name', async () => {
      const server = await serve((ask) => {
        const range = `bytes ${ask.start}-${ask.end - 1}/`;
        ask.send({ headers: { 'content-range': `${range}${SIZE}\r\ncontent-range: ${range}${SIZE + 1}` } });
      });
      await expect(open(server.url)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
    });

    it('but not with more than 16 MiB before the requested bytes', async () => {
      const size = 2 ** 30;
      const server = await serve((ask) => {
        const range = `bytes 0-${ask.index === 0 ? 0 : 2 ** 29 + 9}/${size}`;
        const length = ask.index === 0 ? '1' : undefined;
        ask.send({ headers: { 'content-range': range, 'content-length': length }, body: CONTENT.subarray(0, 1) });
      });
      const source = await open(server.url);
      await expect(source.read(new Uint8Array(10), 2 ** 29)).rejects.toThrow('wrong range');
    });

    if (name === 'undici') {
      it('but not with two different ETags', async () => {
        const server = await serve((ask) => ask.send({ headers: { etag: '"v1"\r\netag: "v2"' } }));
        await expect(open(server.url)).rejects.toThrow('2 different headers etag');
      });

      it('with 60 KiB of headers, and no more than 64', async () => {
        let length = 60 << 10;
        const server = await serve((ask) => ask.send({ headers: { 'x-policy': 'x'.repeat(length) } }));
        await expectRead(await open(server.url));
        length = 65 << 10;
        await expect(open(server.url)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
      });
    }
  });

  describe('learns a size that Content-Range does not tell', () => {
    const unknown = (ask: Ask) => sendSlice(ask, ask.start, ask.end, '*');

    it.each<[string, (ask: Ask) => void]>([
      [
        'by HEAD',
        (ask) =>
          ask.method === 'HEAD'
            ? ask.send({ status: 200, headers: { 'content-range': undefined }, body: false })
            : unknown(ask),
      ],
      [
        'by the last byte, where HEAD is refused',
        (ask) => {
          if (ask.method === 'HEAD') ask.send({ status: 403, headers: { 'content-length': '0' }, body: false });
          else if (ask.headers['range'] === 'bytes=-1') sendSlice(ask, SIZE - 1, SIZE, '*');
          else unknown(ask);
        },
      ],
      [
        'by a whole answer to a request for the last byte',
        (ask) => {
          if (ask.method === 'HEAD') ask.send({ status: 405, headers: { 'content-length': '0' }, body: false });
          else if (ask.headers['range'] === 'bytes=-1')
            ask.send({ status: 200, headers: { 'content-range': undefined } });
          else unknown(ask);
        },
      ],
    ])('%s', async (_, behaviour) => {
      const source = await open((await serve(behaviour)).url);
      expect(source.size).toBe(SIZE);
      await expectRead(source);
    });

    it('and rejects if nothing tells it, such as byte 0 instead of the last byte', async () => {
      const server = await serve((ask) => {
        if (ask.method === 'HEAD')
          ask.send({ status: 200, headers: { 'content-length': undefined, 'content-range': undefined }, body: false });
        else sendSlice(ask, 0, 1, '*');
      });
      await expect(open(server.url)).rejects.toMatchObject({
        code: 'COD_SOURCE_IO',
        message: expect.stringMatching(/does not tell the size/),
      });
    });

    it('and takes no size that numbers cannot hold', async () => {
      const headers = { 'content-range': `bytes 5-9/${'9'.repeat(400)}` };
      const server = await serve((ask) =>
        ask.headers['range'] === 'bytes=-1' ? ask.send({ headers, body: '12345' }) : sendSlice(ask, 0, 1, '*'),
      );
      await expect(open(server.url)).rejects.toMatchObject({
        code: 'COD_SOURCE_IO',
        message: expect.stringMatching(/does not tell the size/),
      });
    });
  });

  describe('behind a redirect', () => {
    it('asks for another mirror if the first lacks the file', async () => {
      let count = 0;
      const server = await serve((ask) => {
        if (ask.path === '/disk.img') redirect(ask, count++ % 2 === 0 ? '/lacks' : '/has');
        else if (ask.path === '/lacks') ask.send({ status: 404, body: '' });
        else ask.send();
      });
      await expectRead(await open(server.url));
    });

    it('and a mirror that always lacks it ends after two requests', async () => {
      const server = await serve((ask) =>
        ask.path === '/disk.img' ? redirect(ask, '/lacks') : ask.send({ status: 404, body: '' }),
      );
      await expect(open(server.url)).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
      expect(server.asks.length).toBe(4);
    });

    /** Two mirrors with ETags of their own, in turn. */
    function mirrors(behaviour: (ask: Ask, headers: { etag: string }) => void): Promise<HostileServer> {
      let count = 0;
      return serve((ask) => {
        if (ask.path === '/disk.img') redirect(ask, `/mirror${count++ % 2}`);
        else behaviour(ask, { etag: `"${ask.path}"` });
      });
    }

    it('keeps the mirror when a connection breaks', async () => {
      const server = await mirrors((ask, headers) => {
        if (ask.end - ask.start <= 30_000) return ask.send({ headers });
        ask.send({ headers, body: false });
        return ask.socket.end(CONTENT.subarray(ask.start, ask.start + 30_000));
      });
      await expectRead(await open(server.url));
      expect(server.asks.filter(({ path }) => path !== '/disk.img').every(({ path }) => path === '/mirror0')).toBe(
        true,
      );
    });

    it('returns to the mirror after another one with another ETag has answered', async () => {
      let failures = 0;
      const server = await mirrors((ask, headers) => {
        if (ask.path === '/mirror0' && ask.end - ask.start > 1 && failures++ === 0) ask.send({ status: 500, body: '' });
        else ask.send({ headers });
      });
      const source = await open(server.url);
      await expectRead(source);
      expect(server.asks.slice(2).map(({ path }) => path)).toEqual(['/mirror0', '/disk.img', '/mirror1', '/mirror0']);
    });

    it('asks the original again after a mirror drips', async () => {
      const clock = new TestClock();
      let begun!: (ask: Ask) => void;
      const dripping = new Promise<Ask>((resolve) => {
        begun = resolve;
      });
      const server = await serve((ask) => {
        if (ask.path === '/disk.img') redirect(ask, `/mirror${ask.index}`);
        else if (ask.path !== '/mirror0' || ask.end === 1) ask.send();
        else {
          ask.send({ body: false });
          begun(ask);
        }
      });
      const source = await open(server.url, { clock });
      const stream = source.stream!(0, 1000);
      for (let at = 0; at < 3; at++) {
        const piece = stream.next();
        const { socket } = await dripping;
        clock.pass(STALL_MS - 1);
        socket.write(CONTENT.subarray(at, at + 1));
        await piece;
      }
      clock.wake();
      for await (const _ of stream);
      expect(server.asks.slice(2).map(({ path }) => path)).toEqual(['/mirror0', '/disk.img', '/mirror3']);
    });

    it('rejects if the mirror is gone and the other one has another ETag, unless it is the same source', async () => {
      const gone = () =>
        mirrors((ask, headers) => {
          if (ask.path === '/mirror0' && ask.end - ask.start > 1) ask.send({ status: 404, body: '' });
          else ask.send({ headers });
        });
      const source = await open((await gone()).url);
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({
        code: 'COD_SOURCE_CHANGED',
        message: expect.stringMatching(/equal Last-Modified and size; .*sameSource/),
      });
      await expectRead(await open((await gone()).url, { sameSource: true }));
    });

    it('rejects in the end if the mirror is silent and the other one has another ETag', async () => {
      const server = await mirrors((ask, headers) => {
        if (ask.path === '/mirror0' && ask.end - ask.start > 1) ask.socket.resetAndDestroy();
        else ask.send({ headers });
      });
      const source = await open(server.url);
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
    });
  });

  describe('of a server that sends another ETag with each answer', () => {
    const unstable = (headers: Record<string, string> = {}) =>
      serve((ask) => ask.send({ headers: { etag: `"${ask.index}"`, ...headers } }));

    it('says so, and what to do', async () => {
      const source = await open((await unstable()).url);
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({
        code: 'COD_SOURCE_CHANGED',
        message: expect.stringMatching(/sameSource.*another ETag with each answer/),
      });
    });

    it('reads with sameSource', async () => {
      await expectRead(await open((await unstable()).url, { sameSource: true }));
    });

    it('does not say so of a file that was replaced once', async () => {
      const server = await serve((ask) => ask.send({ headers: { etag: ask.index === 0 ? '"1"' : '"2"' } }));
      const source = await open(server.url);
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({
        message: expect.not.stringMatching(/each answer/),
      });
    });

    it.each([
      ['another Last-Modified', { 'last-modified': 'Sun, 02 Nov 2025 00:00:00 GMT' }],
      ['no Last-Modified', { 'last-modified': undefined }],
    ])('rejects %s also with sameSource', async (_, headers) => {
      const server = await serve((ask) =>
        ask.send({ headers: { etag: `"${ask.index}"`, ...(ask.index > 0 ? headers : {}) } }),
      );
      const source = await open(server.url, { sameSource: true });
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
    });
  });

  describe('with a function', () => {
    it.each([400, 401, 403])('asks it for another URL after %i, once per failure', async (status) => {
      let valid = 1;
      const server = await serve((ask) =>
        ask.path.endsWith(`=${valid}`) ? ask.send() : ask.send({ status, body: '' }),
      );
      let calls = 0;
      const source = await open(() => `${server.url}?signature=${++calls}`);
      await expectRead(source);
      expect(calls).toBe(1);
      valid = 2;
      await Promise.all([expectRead(source), expectRead(source, 7, 7)]);
      expect(calls).toBe(2);
      valid = 0;
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({
        code: 'COD_SOURCE_IO',
        details: { status },
      });
      expect(calls).toBe(3);
    });

    it.each([400, 401, 403])('asks it for other headers after %i, once per failure', async (status) => {
      let valid = 1;
      const server = await serve((ask) =>
        ask.headers['authorization'] === `Bearer ${valid}` ? ask.send() : ask.send({ status, body: '' }),
      );
      let calls = 0;
      const headers = async () => ({ authorization: `Bearer ${++calls}` });
      const source = await open(server.url, { headers });
      await expectRead(source);
      expect(calls).toBe(1);
      valid = 2;
      await Promise.all([expectRead(source), expectRead(source, 7, 7)]);
      expect(calls).toBe(2);
      valid = 0;
      await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({ details: { status } });
      expect(calls).toBe(3);
    });

    it('sends new headers to the origin of the URL only', async () => {
      const elsewhere = await serve(honest);
      let calls = 0;
      const server = await serve((ask) =>
        ask.headers['authorization'] === 'token 2' ? redirect(ask, elsewhere.url) : ask.send({ status: 401, body: '' }),
      );
      const source = await open(server.url, { headers: () => ({ authorization: `token ${++calls}` }) });
      await expectRead(source);
      expect(calls).toBe(2);
      expect(elsewhere.asks.map((ask) => ask.headers['authorization'])).not.toContain('token 2');
    });

    it('asks it again after it has failed, and after it has taken as long as a stall', async () => {
      let valid = 1;
      const server = await serve((ask) =>
        ask.path.endsWith(`=${valid}`) ? ask.send() : ask.send({ status: 403, body: '' }),
      );
      const clock = new TestClock();
      let calls = 0;
      const url = async () => {
        calls++;
        if (calls === 2) throw new Error('the token server is away');
        if (calls !== 3) return `${server.url}?signature=${valid}`;
        clock.stall();
        return new Promise<string>(() => {});
      };
      const source = await open(url, { clock });
      valid = 2;
      await expectRead(source);
      expect(calls).toBe(4);
    });

    it('hides its headers in what the server says', async () => {
      const server = await serve((ask) => ask.send({ status: 403, body: `not ${ask.headers['authorization']}` }));
      const opening = open(server.url, { headers: async () => ({ authorization: 'Bearer s3cr3t-token' }) });
      await expect(opening).rejects.not.toThrow('s3cr3t');
      await expect(opening).rejects.toThrow('the server says "not …"');
    });

    it('is not waited for after the signal', async () => {
      const signal = AbortSignal.abort(new Error('enough'));
      await expect(open(() => new Promise<string>(() => {}), { signal })).rejects.toThrow('enough');
    });

    it('follows the redirect of the new URL', async () => {
      let valid = 1;
      const server = await serve((ask) => {
        if (ask.path.startsWith('/disk.img')) redirect(ask, `/real?s=${ask.path.at(-1)}`);
        else if (ask.path.endsWith(`=${valid}`)) ask.send();
        else ask.send({ status: 403, body: '' });
      });
      let calls = 0;
      const source = await open(() => `${server.url}?signature=${++calls}`);
      valid = 2;
      await expectRead(source);
    });
  });

  describe('tells what the body of an error says', () => {
    const s3 = `<?xml version="1.0"?>
      <Error><Code>AccessDenied</Code><Message>Request has expired</Message><RequestId>1</RequestId></Error>`;
    const azure = `\ufeff<?xml version="1.0" encoding="utf-8"?>
      <Error><Code>AuthenticationFailed</Code><Message>Server failed to\nauthenticate.</Message></Error>`;
    const gcs = `{ "error": {
      "code": 403, "message": "x@y lacks \\"storage.get\\"", "errors": [{ "reason": "forbidden" }] } }`;

    it.each([
      ['S3', 403, s3, 'AccessDenied: Request has expired'],
      ['Azure', 403, azure, 'AuthenticationFailed: Server failed to authenticate.'],
      ['GCS', 403, gcs, 'forbidden: x@y lacks "storage.get"'],
      [
        'a page with a title',
        404,
        '<html><head><title>404 Not Found</title></head><body>nginx</body></html>',
        '404 Not Found',
      ],
      ['a page without a title', 400, '<style>a{}</style><h1>No &lt;disk&gt;</h1>\n<p>here', 'No <disk> here'],
      ['text', 400, 'no\u001b[31m\u202e disk\u0000\n', 'no [31m disk'],
      ['entities of control characters', 400, '<Error><Code>A&#27;[2J&#x202E;B</Code></Error>', 'A [2J B'],
      ['no text', 400, '', undefined],
      ['bytes that are no text', 400, Uint8Array.of(65, 0xff, 66), undefined],
      ['text that is cut', 400, Uint8Array.of(65, 0xe2, 0x82), 'A'],
      [
        'retries',
        503,
        '<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>',
        'SlowDown: Reduce your rate',
      ],
      ['a redirect without Location', 301, '<Error><Code>PermanentRedirect</Code></Error>', 'PermanentRedirect'],
    ])('%s', async (_, status, body, said) => {
      const server = await serve((ask) => ask.send({ status, body: Buffer.from(body as Uint8Array) }));
      const error = await open(server.url).catch((caught: Error) => caught.message);
      if (said === undefined) expect(error).not.toContain('says');
      else expect(error).toContain(`; the server says "${said}"`);
    });

    it('with the region of a bucket', async () => {
      const server = await serve((ask) =>
        ask.send({
          status: 301,
          headers: { 'x-amz-bucket-region': 'eu-west-1' },
          body: '<Error><Code>PermanentRedirect</Code></Error>',
        }),
      );
      await expect(open(server.url)).rejects.toThrow('PermanentRedirect, the bucket is in eu-west-1');
    });

    it('of an endless body, only the beginning', async () => {
      const server = await serve((ask) => {
        ask.send({ status: 403, headers: { 'content-length': undefined }, body: false });
        ask.socket.write(Buffer.from('no '.repeat(100_000)));
      });
      const error = await open(server.url).then(String, (caught: Error) => caught.message);
      expect(error).toContain('says "no no no');
      expect(error.length).toBeLessThan(500);
    });

    it('without a secret, also one that the server repeats', async () => {
      const server = await serve((ask) =>
        ask.send({
          status: 403,
          body: `<Error><Code>No</Code><Message>http://h/x?a=hunter2 ${ask.path} ${ask.headers['authorization']}
            ${ask.headers['x-token']} hunter2&amp;sig=hunter9</Message></Error>`,
        }),
      );
      const reports: RetryReport[] = [];
      const url = `${server.url.replace('http://', 'http://us:hunter1@')}?key=hunter2&b=x%20hunter3`;
      const error = await open(url, {
        headers: { 'x-token': 'hunter4' },
        retry: { onRetry: (retry) => reports.push(retry) },
      }).catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: 'COD_SOURCE_IO', message: expect.stringContaining('No: ') });
      expect(JSON.stringify([error, reports])).not.toMatch(/hunter/);
      expect(JSON.stringify(error)).not.toContain(btoa('us:hunter1'));
    });
  });

  it('reports each retry with code, message, attempt and delay, but no final failure', async () => {
    const server = await serve((ask) => (ask.index % 2 === 0 ? ask.send() : ask.send({ status: 503, body: 'busy' })));
    const given: RetryReport[] = [];
    const set: RetryReport[] = [];
    const source = await open(server.url, { retry: { attempts: 4, onRetry: (retry) => given.push(retry) } });
    source.onRetry = (retry) => set.push(retry);
    await expectRead(source, 5, 5);
    expect(given).toEqual([
      {
        code: 'COD_SOURCE_IO',
        message: `GET ${server.url}, bytes 5-9: status 503; the server says "busy"`,
        attempt: 1,
        delayMs: 188,
      },
    ]);
    expect(set).toEqual(given);
  });

  describe('refuses as a wrong argument', () => {
    it.each(['http://us%er@h/x', 'http://u:p%zz@h/x'])('malformed percent-encoding in %s', async (url) => {
      await expect(open(url)).rejects.toThrow(TypeError);
      await expect(open(url)).rejects.toThrow('write % as %25');
    });

    it('a malformed URL, which is not shown', async () => {
      const error = await open('http://h:port/?signature=hunter2').catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(TypeError);
      expect(JSON.stringify(Object.getOwnPropertyDescriptors(error))).not.toContain('hunter');
    });
  });

  it('shows no query of a redirect to an invalid URL', async () => {
    const server = await serve((ask) => redirect(ask, 'http://h:port/?signature=hunter2'));
    const error = await open(server.url).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: 'COD_SOURCE_IO' });
    expect((error as Error).cause).toBeUndefined();
  });

  it('stops a stream for a reader if the server allows one connection, and resumes it', async () => {
    let busy: Ask | undefined;
    /** Requests after the stream's when the reader is answered. */
    let answeredBy = 0;
    const server = await serve(async (ask) => {
      if (busy !== undefined && !busy.socket.destroyed) return ask.send({ status: 503, body: '' });
      // A stream that is resumed too early comes before this answer.
      if (ask.start === 200_000)
        for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
      busy = ask.end - ask.start > 1000 ? ask : undefined;
      answeredBy = ask.start === 200_000 ? server.asks.length - 2 : answeredBy;
      if (ask.index !== 1) return ask.send();
      ask.send({ body: false });
      return ask.socket.write(CONTENT.subarray(ask.start, 1000));
    });
    const clock = new TestClock();
    const reports: string[] = [];
    const onRetry = ({ message }: RetryReport) => reports.push(message);
    const source = await open(server.url, { clock, retry: { attempts: 4, onRetry } });
    const stream = source.stream!(0, SIZE);
    const pieces = [(await stream.next()).value!.slice()];
    const waiting = stream.next();
    // The server notices the end of a connection a moment later, so the reader may be refused twice.
    await expectRead(source, 200_000, 10);
    pieces.push((await waiting).value!.slice());
    for await (const piece of stream) pieces.push(piece.slice());
    expectBytes(Buffer.concat(pieces), CONTENT);
    const [read, rest] = ['bytes=200000-200009', `bytes=1000-${SIZE - 1}`];
    const later = server.ranges.slice(2);
    expect([...new Set(later)]).toEqual([read, rest]);
    expect(later.indexOf(rest)).toBe(later.length - 1);
    expect(answeredBy).toBe(later.length - 1);
    expect(reports.every((message) => message.includes('bytes 200000-200009: status 503'))).toBe(true);
    expect(clock.delays.length).toBeLessThanOrEqual(2);
  });

  it('stops a stream only once for a reader that a server always refuses', async () => {
    const server = await serve((ask) => {
      if (ask.index > 1) return ask.send({ status: 503, body: '' });
      if (ask.index === 0) return ask.send();
      ask.send({ body: false });
      return ask.socket.write(CONTENT.subarray(ask.start, 1000));
    });
    const source = await open(server.url);
    await source.stream!(0, SIZE).next();
    await expect(source.read(new Uint8Array(10), 5)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
    expect(server.asks.length).toBe(2 + 1 + 4);
  });
});
