import { describe, expect, it, onTestFinished } from 'vitest';
import { fetchTransport } from '../../src/sources/http/fetch-transport.ts';
import { nodeTransport } from '../../src/sources/http/node-transport.ts';
import { type S3SourceOptions, s3Source } from '../../src/sources/s3/source.ts';
import type { Source } from '../../src/sources/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { S3RVER_KEYS, startS3rver } from '../support/s3rver.ts';

const SIZE = 300_001;
const [CONTENT, OTHER] = [6, 7].map((seed) => seededRandom(seed).fill(new Uint8Array(SIZE))) as [
  Uint8Array,
  Uint8Array,
];

describe.each([
  ['fetch', fetchTransport],
  ['undici', nodeTransport],
] as const)('s3Source reads from s3rver over %s', (_, transport) => {
  async function start(path = 'disk.raw') {
    const server = await startS3rver();
    await server.put(path, CONTENT);
    const open = async (options: Partial<S3SourceOptions> = {}): Promise<Source> => {
      const source = await s3Source({
        bucket: 'images',
        key: 'disk.raw',
        credentials: S3RVER_KEYS,
        endpoint: server.origin,
        transport: transport(),
        retry: { attempts: 1 },
        ...options,
      });
      onTestFinished(() => source.close());
      return source;
    };
    return { server, open };
  }

  it('ranges and streams', async () => {
    const source = await (await start()).open();
    expect(source.size).toBe(SIZE);
    expect(source.identity).toMatch(/^etag:"[0-9a-f]{32}"$/);
    const ranges: readonly (readonly [offset: number, length: number])[] = [
      [0, 1],
      [SIZE - 1, 1],
      [12_345, 200_000],
      [0, SIZE],
    ];
    await Promise.all(
      ranges.map(async ([offset, length]) => {
        const into = new Uint8Array(length);
        await source.read(into, offset);
        expectBytes(into, CONTENT.subarray(offset, offset + length));
      }),
    );
    const pieces: Uint8Array[] = [];
    for await (const piece of source.stream!(70_000, 100_001)) pieces.push(piece.slice());
    expectBytes(new Uint8Array(Buffer.concat(pieces)), CONTENT.subarray(70_000, 170_001));
  });

  it.each(['a b/ü=c.raw', "it's (1)!*~", '100%25', 'a/b/c'])('a key such as %j', async (key) => {
    const { open } = await start(key.split('/').map(encodeURIComponent).join('/'));
    const into = new Uint8Array(9);
    await (await open({ key })).read(into, 1000);
    expectBytes(into, CONTENT.subarray(1000, 1009));
  });

  it('with further headers, which are signed', async () => {
    const { open } = await start();
    const source = await open({ headers: { 'x-amz-request-payer': 'requester', 'x-two': ' a b ' } });
    await source.read(new Uint8Array(9), 0);
  });

  it.each([
    ['a wrong secret', { credentials: { ...S3RVER_KEYS, secretAccessKey: 'wrong' } }, 403, 'SignatureDoesNotMatch'],
    ['an unknown key', { credentials: { ...S3RVER_KEYS, accessKeyId: 'AKNONE' } }, 403, 'InvalidAccessKeyId'],
    ['an object that is missing', { key: 'missing' }, 404, 'NoSuchKey'],
    ['a bucket that is missing', { bucket: 'missing' }, 404, 'NoSuchBucket'],
  ])('and refuses %s', async (__, options, status, says) => {
    const { open } = await start();
    await expect(open(options)).rejects.toMatchObject({
      code: status === 404 ? 'COD_NOT_FOUND' : 'COD_SOURCE_IO',
      details: { status, said: expect.stringContaining(says) },
    });
  });

  it('until the object is replaced', async () => {
    const { server, open } = await start();
    const source = await open();
    const stream = source.stream!(0, SIZE)[Symbol.asyncIterator]();
    expect((await stream.next()).done).toBe(false);
    await server.put('disk.raw', OTHER);
    await expect(source.read(new Uint8Array(9), 0)).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
    await expect(stream.next()).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
  });
});
