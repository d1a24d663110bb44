/** Sources that are compared with a manifest: nothing that does not match leaves them, and nothing is fetched twice. */

import { Volume } from 'memfs';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import {
  bytesSource,
  createManifest,
  httpSource,
  type Manifest,
  openDevice,
  type Source,
  verifiedSource,
} from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { ControlledSource } from '../support/controlled-source.ts';
import { nextEvent } from '../support/device-events.ts';
import { HostileServer } from '../support/http-server.ts';

const EXTENT = 65_536;
const SIZE = 20 * EXTENT + 1234;
const IMAGE = seededRandom(21).fill(new Uint8Array(SIZE));
/** Zeros: extents 4 and 5, a part of 6, and 19 to the end. */
IMAGE.fill(0, 4 * EXTENT, 6 * EXTENT + 100).fill(0, 19 * EXTENT);
const WRONG = 2 * EXTENT + 777;
let manifest: Manifest;
beforeAll(async () => {
  manifest = await createManifest(bytesSource(IMAGE));
});

/** A source that turns over one bit in its first answers that have the byte. It counts those. */
function lyingSource(lies: number, streams = true): InlineSource & { told: number; asked: [number, number][] } {
  const lie = (bytes: Uint8Array, offset: number): void => {
    if (WRONG < offset || WRONG >= offset + bytes.length || liar.told >= lies) return;
    liar.told++;
    bytes[WRONG - offset]! ^= 0x10;
  };
  const liar: InlineSource & { told: number; asked: [number, number][] } = {
    size: SIZE,
    told: 0,
    asked: [],
    read: async (into, offset) => {
      liar.asked.push([offset, into.length]);
      into.set(IMAGE.subarray(offset, offset + into.length));
      lie(into, offset);
    },
    ...(streams && {
      async *stream(offset: number, length: number) {
        liar.asked.push([offset, length]);
        for (let at = offset; at < offset + length; at += 100_000) {
          const piece = IMAGE.slice(at, Math.min(at + 100_000, offset + length));
          lie(piece, at);
          yield piece;
        }
      },
    }),
    close: async () => undefined,
  };
  return liar;
}

async function streamed(source: Source, offset: number, length: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source.stream!(offset, length)) pieces.push(piece.slice());
  return new Uint8Array(Buffer.concat(pieces));
}

async function bytesOf(source: Source, offset: number, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length).fill(0xee);
  await source.read(into, offset);
  return into;
}

describe('reads and streams return the bytes of the image', () => {
  const ranges: [number, number][] = [
    [0, SIZE],
    [0, 1],
    [5, EXTENT],
    [EXTENT, 2 * EXTENT],
    [EXTENT - 1, 2],
    [EXTENT - 1, 3 * EXTENT + 2],
    [4 * EXTENT + 9, 9],
    [6 * EXTENT - 1, EXTENT],
    [SIZE - 1, 1],
    [SIZE - EXTENT, EXTENT],
    [20 * EXTENT, 1234],
    [SIZE, 0],
    [77, 0],
  ];
  test.each(ranges)('from %i, length %i', async (offset, length) => {
    const source = verifiedSource(lyingSource(0), manifest);
    const expected = IMAGE.slice(offset, offset + length);
    for (let again = 0; again < 2; again++) expectBytes(await bytesOf(source, offset, length), expected);
    expectBytes(await streamed(source, offset, length), expected);
  });

  test('at random, at once, whatever the source lies about once', async () => {
    const random = seededRandom(4);
    const source = verifiedSource(lyingSource(3), manifest);
    await Promise.all(
      Array.from({ length: 300 }, async () => {
        const offset = random.below(SIZE);
        const length = random.below(Math.min(SIZE - offset, random.below(2) === 0 ? 5000 : 5 * EXTENT)) + 1;
        const expected = IMAGE.slice(offset, offset + length);
        expectBytes(await bytesOf(source, offset, length).catch(() => expected), expected);
      }),
    );
  });
});

describe('an extent that does not match', () => {
  test.each([
    { how: 'a read of one byte of it', get: (source: Source) => bytesOf(source, WRONG + 1, 1) },
    { how: 'a read of the whole image', get: (source: Source) => bytesOf(source, 0, SIZE) },
    { how: 'a stream', get: (source: Source) => streamed(source, 0, SIZE) },
    { how: 'a stream of its other bytes', get: (source: Source) => streamed(source, WRONG + 1, 100) },
  ])('is asked for again, and then fails $how', async ({ get }) => {
    const right = await get(verifiedSource(bytesSource(IMAGE), manifest));
    const liar = lyingSource(2);
    const source = verifiedSource(liar, manifest) as InlineSource;
    const retries: unknown[] = [];
    source.onRetry = ({ code, attempt }) => retries.push([code, attempt]);
    expectBytes(await get(source), right);
    expect(retries).toEqual([
      ['COD_MISMATCH', 1],
      ['COD_MISMATCH', 2],
    ]);
    const always = lyingSource(Number.POSITIVE_INFINITY);
    await expect(get(verifiedSource(always, manifest))).rejects.toMatchObject({
      code: 'COD_MISMATCH',
      details: { offset: 2 * EXTENT, length: EXTENT },
    });
    expect(always.told).toBe(3);
  });

  test('leaves the buffer of the reader as it was', async () => {
    const source = verifiedSource(lyingSource(Number.POSITIVE_INFINITY), manifest);
    for (const [offset, length] of [
      [2 * EXTENT, EXTENT],
      [WRONG, 9],
    ] as const) {
      const into = new Uint8Array(length).fill(0xee);
      await expect(source.read(into, offset)).rejects.toMatchObject({ code: 'COD_MISMATCH' });
      expect(into).toEqual(new Uint8Array(length).fill(0xee));
    }
  });

  test('is not kept: a later read asks again', async () => {
    const source = verifiedSource(lyingSource(3), manifest);
    await expect(bytesOf(source, WRONG, 1)).rejects.toMatchObject({ code: 'COD_MISMATCH' });
    expect(await bytesOf(source, WRONG, 1)).toEqual(IMAGE.slice(WRONG, WRONG + 1));
  });
});

describe('requests', () => {
  test('neighbouring and simultaneous reads of an extent share one', async () => {
    const liar = lyingSource(0);
    const source = verifiedSource(liar, manifest);
    await Promise.all([0, 4096, 8192].map((at) => bytesOf(source, at, 4096)));
    for (let at = 12_288; at < 3 * EXTENT; at += 4096) await bytesOf(source, at, 4096);
    expect(liar.asked).toEqual([0, 1, 2].map((index) => [index * EXTENT, EXTENT]));
    await bytesOf(source, 2 * EXTENT + 9, 2 * EXTENT);
    expect(liar.asked.slice(3), 'the extents that are missing').toEqual([[3 * EXTENT, EXTENT]]);
  });

  test('are not made for zeros at the ends of a read', async () => {
    const liar = lyingSource(0);
    const source = verifiedSource(liar, manifest);
    expect(await bytesOf(source, 4 * EXTENT + 4096, 4096)).toEqual(new Uint8Array(4096));
    expect(await bytesOf(source, 19 * EXTENT, EXTENT + 1234)).toEqual(new Uint8Array(EXTENT + 1234));
    expect(liar.asked).toEqual([]);
    await bytesOf(source, 3 * EXTENT, 3 * EXTENT);
    expect(liar.asked).toEqual([[3 * EXTENT, EXTENT]]);
    const extents = await (source as InlineSource).extents!(3 * EXTENT + 1, SIZE - 3 * EXTENT - 1);
    expect(extents).toEqual([
      { length: EXTENT - 1, zero: false },
      { length: 2 * EXTENT, zero: true },
      { length: 13 * EXTENT, zero: false },
      { length: EXTENT + 1234, zero: true },
    ]);
  });

  test('a reader that leaves does not end the request that others share', async () => {
    const controlled = new ControlledSource(IMAGE);
    const source = verifiedSource(controlled, manifest);
    const leaving = new AbortController();
    const into = new Uint8Array(8).fill(0xee);
    const left = source.read(into, 8, { signal: leaving.signal });
    const stays = bytesOf(source, 16, 8);
    const answer = await controlled.next();
    leaving.abort(new Error('left'));
    await expect(left).rejects.toThrow('left');
    answer.release();
    expect(await stays).toEqual(IMAGE.slice(16, 24));
    expect(into, 'nothing is written to the buffer of the reader that left').toEqual(new Uint8Array(8).fill(0xee));
    expect(controlled.asked()).toEqual([[0, EXTENT]]);
  });

  test('a stream that ends early ends its request', async () => {
    const controlled = new ControlledSource(IMAGE);
    const source = verifiedSource(controlled, manifest);
    const pieces = source.stream!(0, 4 * EXTENT)[Symbol.asyncIterator]();
    const first = pieces.next();
    const answer = await controlled.next();
    answer.bytes = answer.bytes.subarray(0, EXTENT);
    answer.release();
    expect((await first).value).toHaveLength(EXTENT);
    await pieces.return!();
    expect(controlled.asks[0]!.outcome).toBe('returned');
  });
});

test('it has the identity of its source, or else that of the manifest', () => {
  expect(verifiedSource(bytesSource(IMAGE, { identity: 'own' }), manifest).identity).toBe('own');
  expect(verifiedSource(bytesSource(IMAGE), manifest).identity).toBe(`manifest:${manifest.root}`);
});

test('a manifest of another size is refused, and so are ranges outside and reads after the end', async () => {
  expect(() => verifiedSource(bytesSource(new Uint8Array(5)), manifest)).toThrow(
    expect.objectContaining({ code: 'COD_SIZE_MISMATCH' }),
  );
  const inner = bytesSource(IMAGE);
  const source = verifiedSource(inner, manifest);
  await expect(bytesOf(source, SIZE - 1, 2)).rejects.toThrow(RangeError);
  await bytesOf(source, 0, 1);
  await source.close();
  await expect(bytesOf(source, 0, 1)).rejects.toMatchObject({ code: 'COD_CLOSED' });
  await expect(bytesOf(inner, 0, 1)).rejects.toMatchObject({ code: 'COD_CLOSED' });
});

describe('a device whose proxy turns over a bit', () => {
  /** A device over a server that lies about byte {@link WRONG} as often as the test wants. */
  async function overLyingProxy(hydrate?: false) {
    const proxy = { lies: Number.POSITIVE_INFINITY };
    const server = await HostileServer.start(IMAGE, (ask) => {
      const body = IMAGE.slice(ask.start, ask.end);
      if (WRONG >= ask.start && WRONG < ask.end && proxy.lies-- > 0) body[WRONG - ask.start]! ^= 1;
      ask.send({ body });
    });
    onTestFinished(() => server.stop());
    const volume = new Volume();
    const device = await openDevice({
      source: async () => verifiedSource(await httpSource(server.url), manifest),
      fileSystem: memfsFileSystem(volume),
      target: 'disk',
      ...(hydrate === undefined ? {} : { hydrate }),
    });
    onTestFinished(() => device.close());
    return { proxy, device, stored: () => new Uint8Array(volume.readFileSync('/disk') as Buffer) };
  }
  const near = [2 * EXTENT, 3 * EXTENT] as const;

  test('finds it by a cold read of 4 KiB beside it, which stores nothing', async () => {
    const { proxy, device, stored } = await overLyingProxy(false);
    const read = (): Promise<void> => device.read(new Uint8Array(4096), 2 * EXTENT + 8192);
    await expect(read()).rejects.toMatchObject({ code: 'COD_MISMATCH' });
    expectBytes(stored().subarray(...near), new Uint8Array(EXTENT));
    expect(device.status().syncedBlocks).toBe(0);
    proxy.lies = 1;
    await read();
  });

  test('finds it by the background copy, which stores nothing wrong, and then completes', async () => {
    const { proxy, device, stored } = await overLyingProxy();
    const waits = async (): Promise<void> => {
      // The first two reports are those of the source.
      for await (const event of device.events())
        if (event.type === 'retry' && event.code === 'COD_MISMATCH' && event.delayMs > 0) return;
    };
    await Promise.race([waits(), device.hydrated.then(() => expect.fail('the copy completed'))]);
    expect(device.status().state).toBe('waiting');
    expectBytes(stored().subarray(...near), new Uint8Array(EXTENT));
    const recovered = nextEvent(device, 'recovered');
    proxy.lies = 2;
    await device.hydrated;
    await recovered;
    expectBytes(stored(), IMAGE);
  });
});
