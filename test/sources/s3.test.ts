import { afterEach, describe, expect, it } from 'vitest';
import { fetchTransport } from '../../src/sources/http/fetch-transport.ts';
import { nodeTransport } from '../../src/sources/http/node-transport.ts';
import type { HttpTransport } from '../../src/sources/http/transport.ts';
import { Signer } from '../../src/sources/s3/signature.ts';
import { type S3SourceOptions, s3Source } from '../../src/sources/s3/source.ts';
import type { Source } from '../../src/sources/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { HostileServer } from '../support/http-server.ts';
import { s3, s3State } from '../support/s3-server.ts';
import { TestClock } from './test-clock.ts';

const SIZE = 100_001;
const CONTENT = seededRandom(5).fill(new Uint8Array(SIZE));
const CREDENTIALS = { accessKeyId: 'AKIDTEST', secretAccessKey: 'wJalr/secret+key' };
const SECRETS = /wJalr|t0ken|Signature=[0-9a-f]/;

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A server with one object, and the credentials to read it. */
async function serve(path = '/images/disk.raw', versions: readonly string[] = []) {
  const state = s3State({
    keys: new Map([[CREDENTIALS.accessKeyId, { secret: CREDENTIALS.secretAccessKey }]]),
    objects: new Map([[path, versions]]),
  });
  const server = await HostileServer.start(CONTENT, s3(state));
  cleanups.push(() => server.stop());
  return { state, server };
}

async function expectRead(source: Source, offset = 12_345, length = 50_003): Promise<void> {
  const into = new Uint8Array(length);
  await source.read(into, offset);
  expectBytes(into, CONTENT.subarray(offset, offset + length));
}

/** The examples of "Signature Calculations for the Authorization Header" in the API reference of S3. */
describe('the signature of AWS for', () => {
  const signer = new Signer(
    { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
    'us-east-1',
  );
  it.each([
    [
      'a range of an object',
      '/test.txt',
      { range: 'bytes=0-9' },
      'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
    ],
    ['a query without a value', '/?lifecycle', {}, 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'],
    [
      'a query with two parameters',
      '/?prefix=J&max-keys=2',
      {},
      '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
    ],
  ])('%s', async (_, path, headers, signature) => {
    const url = new URL(path, 'https://examplebucket.s3.amazonaws.com');
    const request = { method: 'GET', url, headers: headers as Record<string, string> };
    const added = await signer.sign(request, new Date(Date.UTC(2013, 4, 24)));
    expect(added['authorization']?.split('Signature=')[1]).toBe(signature);
    // The key of the day is kept.
    expect(await signer.sign(request, new Date(Date.UTC(2013, 4, 24)))).toEqual(added);
  });
});

describe.each([
  ['fetch', fetchTransport],
  ['undici', nodeTransport],
] as const)('s3Source over %s', (_, transport) => {
  async function open(options: Partial<S3SourceOptions> & { endpoint?: string | URL }): Promise<Source> {
    const source = await s3Source({
      bucket: 'images',
      key: 'disk.raw',
      credentials: CREDENTIALS,
      transport: transport(),
      clock: new TestClock(),
      random: () => 0.5,
      retry: { attempts: 3 },
      ...options,
    });
    cleanups.push(() => source.close());
    return source;
  }

  it('reads and streams what its credentials may read', async () => {
    const { server } = await serve();
    const source = await open({ endpoint: server.origin });
    expect(source.size).toBe(SIZE);
    expect(source.identity).toBe('etag:"v1"');
    await expectRead(source);
    let bytes = 0;
    for await (const piece of source.stream!(0, SIZE)) bytes += piece.length;
    expect(bytes).toBe(SIZE);
    expect(server.asks.every((ask) => ask.headers['authorization'] !== undefined)).toBe(true);
  });

  it.each(["a b/ü+c='d'(e)!*~.raw", 'a//b/', '/leading', '100%25?x=1&y#z', '\u{1f4be}.img'])(
    'signs the key %j',
    async (key) => {
      const path = `/images/${key
        .split('/')
        .map((part) =>
          encodeURIComponent(part).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`),
        )
        .join('/')}`;
      const { server } = await serve(path);
      await expectRead(await open({ endpoint: server.origin, key }));
    },
  );

  it('reads a version', async () => {
    // As the request has it.
    const { server } = await serve(undefined, ['a%2Bb%2F%3D']);
    await expectRead(await open({ endpoint: server.origin, versionId: 'a+b/=' }));
    await expect(open({ endpoint: server.origin, versionId: 'other' })).rejects.toMatchObject({
      code: 'COD_NOT_FOUND',
      details: { said: 'NoSuchVersion: Refused by the test' },
    });
  });

  it('below a path, with further headers and a session token', async () => {
    const { server, state } = await serve('/store/v1/images/disk.raw');
    state.keys.get(CREDENTIALS.accessKeyId)!.token = 'the t0ken';
    const credentials = { ...CREDENTIALS, sessionToken: 'the t0ken' };
    const headers = { 'X-Amz-Request-Payer': 'requester' };
    await expectRead(await open({ endpoint: `${server.origin}/store/v1/`, credentials, headers }));
    expect(server.asks.at(-1)?.headers['x-amz-request-payer']).toBe('requester');
    await expect(open({ endpoint: server.origin, headers: { range: 'x' } })).rejects.toThrow(TypeError);
  });

  it('sends no signature without credentials', async () => {
    const { server, state } = await serve();
    await expect(open({ endpoint: server.origin, credentials: undefined })).rejects.toMatchObject({
      code: 'COD_SOURCE_IO',
      details: { status: 403 },
    });
    state.open.add('/images/disk.raw');
    await expectRead(await open({ endpoint: server.origin, credentials: () => undefined }));
    expect(server.asks.some((ask) => ask.headers['authorization'] !== undefined)).toBe(false);
  });

  it('sends its signature to its own server only', async () => {
    const elsewhere = await HostileServer.start(CONTENT);
    cleanups.push(() => elsewhere.stop());
    const server = await HostileServer.start(CONTENT, (ask) =>
      ask.send({ status: 307, headers: { location: elsewhere.url }, body: '' }),
    );
    cleanups.push(() => server.stop());
    await expectRead(await open({ endpoint: server.origin }));
    expect(elsewhere.asks.length).toBeGreaterThan(1);
    expect(JSON.stringify(elsewhere.asks.map((ask) => ask.headers))).not.toMatch(/AKIDTEST|x-amz/);
  });

  describe('asks the function for credentials again', () => {
    it.each([
      ['when they have expired', { isExpired: true, secret: CREDENTIALS.secretAccessKey }, 'ExpiredToken'],
      ['when they are wrong', { secret: 'another' }, 'SignatureDoesNotMatch'],
      ['when they are revoked', undefined, 'InvalidAccessKeyId'],
    ])('%s', async (__, key, code) => {
      const { server, state } = await serve();
      let calls = 0;
      const given = [CREDENTIALS, { accessKeyId: 'AKIDNEXT', secretAccessKey: 'next' }, CREDENTIALS];
      const source = await open({ endpoint: server.origin, credentials: async () => given[calls++] });
      await expectRead(source);
      if (key === undefined) state.keys.delete('AKIDTEST');
      else state.keys.set('AKIDTEST', key);
      state.keys.set('AKIDNEXT', { secret: 'next' });
      await Promise.all([expectRead(source), expectRead(source, 5, 7)]);
      expect(calls).toBe(2);
      expect(new Set(state.refusals)).toEqual(new Set([code]));
      // Both are refused now: the call fails after it has asked once.
      state.keys.delete('AKIDNEXT');
      await expect(source.read(new Uint8Array(9), 0)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
      expect(calls).toBe(3);
    });
  });

  it('uses the time of a server whose clock differs', async () => {
    const { server, state } = await serve();
    state.skewMs = -5_000_000;
    await expectRead(await open({ endpoint: server.origin }));
    expect(state.refusals).toEqual(['RequestTimeTooSkewed']);
  });

  it('signs for the region that a server names', async () => {
    const { server, state } = await serve();
    state.region = 'eu-central-1';
    await expectRead(await open({ endpoint: server.origin, region: 'us-west-2' }));
    expect(state.refusals).toEqual(['AuthorizationHeaderMalformed']);
    // A region becomes a part of a host's name.
    state.region = 'evil.example/#';
    await expect(open({ endpoint: server.origin })).rejects.toMatchObject({ details: { status: 400 } });
  });

  /** Sends requests for AWS to the test's server. */
  function toServer(server: HostileServer, seen: string[]): HttpTransport {
    const inner = nodeTransport();
    return {
      close: () => inner.close(),
      async request(request) {
        seen.push(request.url.href);
        const url = new URL(request.url.pathname + request.url.search, server.origin);
        const response = await inner.request({
          ...request,
          url,
          headers: { ...request.headers, host: request.url.host },
        });
        return {
          status: response.status,
          url: request.url,
          header: (name) => response.header(name),
          pull: () => response.pull(),
          cancel: () => response.cancel(),
        };
      },
    };
  }

  it.each([
    ['images', {}, 'https://images.s3.eu-west-1.amazonaws.com/disk.raw'],
    ['my.images', {}, 'https://s3.eu-west-1.amazonaws.com/my.images/disk.raw'],
    ['images', { pathStyle: true }, 'https://s3.eu-west-1.amazonaws.com/images/disk.raw'],
    ['images', { credentials: undefined }, 'https://images.s3.eu-west-1.amazonaws.com/disk.raw'],
  ])('moves to the region of the bucket %s at AWS, with %o', async (bucket, options, url) => {
    const { server, state } = await serve(`/${bucket}/disk.raw`);
    state.open.add(`/${bucket}/disk.raw`);
    state.region = 'eu-west-1';
    const seen: string[] = [];
    await expectRead(await open({ bucket, transport: toServer(server, seen), ...options }));
    expect(seen).toEqual([url.replace('eu-west-1', 'us-east-1'), url, url]);
    expect(state.refusals).toEqual(['PermanentRedirect']);
  });

  it('puts the bucket into the host of an endpoint on request', async () => {
    const { server } = await serve();
    const seen: string[] = [];
    const endpoint = 'https://s3.example.org:8443/';
    const opening = open({ endpoint, pathStyle: false, transport: toServer(server, seen) });
    await expectRead(await opening);
    expect(seen[0]).toBe('https://images.s3.example.org:8443/disk.raw');
  });

  it.each([
    [{ bucket: 'a/b' }, /bucket/],
    [{ bucket: '' }, /bucket/],
    [{ key: '' }, /key/],
    [{ key: 'a/../b' }, /\.\./],
    [{ region: 'us east' }, /region/],
    [{ endpoint: 'host:9000' }, /endpoint/],
    [{ endpoint: 'https://u:p@host' }, /endpoint/],
  ])('refuses %o', async (options, message) => {
    await expect(open(options)).rejects.toThrow(message);
    await expect(open(options)).rejects.toThrow(TypeError);
  });

  it('shows neither secrets nor signatures, whatever the server says', async () => {
    const server = await HostileServer.start(CONTENT, (ask) =>
      ask.send({ status: 403, body: `<Error><Code>X</Code><Message>${JSON.stringify(ask.headers)}</Message></Error>` }),
    );
    cleanups.push(() => server.stop());
    const credentials = { ...CREDENTIALS, sessionToken: 'the-t0ken' };
    const error: Error = await open({ endpoint: server.origin, credentials }).then(
      () => expect.unreachable(),
      (caught) => caught,
    );
    expect(`${error.message} ${JSON.stringify(error)}`).not.toMatch(SECRETS);
    expect(error.message).toContain('the server says');
  });
});
