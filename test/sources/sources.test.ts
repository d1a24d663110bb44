import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFile,
  chmod,
  link,
  mkdir,
  mkdtemp,
  open,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CodErrorCode } from '../../src/errors.ts';
import { blobSource } from '../../src/sources/blob.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { fileSource } from '../../src/sources/file.ts';
import { fetchTransport } from '../../src/sources/http/fetch-transport.ts';
import { httpSource } from '../../src/sources/http/source.ts';
import type { InlineSource, Source } from '../../src/sources/source.ts';
import { expectBytes } from '../support/bytes.ts';
import { HostileServer } from '../support/http-server.ts';

const SIZE = (3 << 20) + 12_345;
const content = Uint8Array.from({ length: SIZE }, (_, at) => (at * 31 + (at >> 8) * 17) & 0xff);

let folder: string;
let server: HostileServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cod-sources-'));
  await writeFile(join(folder, 'disk.img'), content);
  server = await HostileServer.start(content);
});
afterAll(async () => {
  await server.stop();
  await rm(folder, { recursive: true });
});

const kinds: [name: string, open: () => Promise<Source & AsyncDisposable>, streams?: boolean][] = [
  ['bytesSource', async () => bytesSource(content)],
  ['blobSource', async () => blobSource(new Blob([content]))],
  ['fileSource', () => fileSource(join(folder, 'disk.img')), false],
  ['httpSource over fetch', () => httpSource(server.url, { transport: fetchTransport() })],
  ['httpSource over undici', () => httpSource(server.url)],
];

describe.each(kinds)('%s', (_, open, streams = true) => {
  let source: Source;
  beforeAll(async () => {
    source = await open();
  });
  afterAll(() => source.close());

  it('is closed by `await using`', async () => {
    const disposed = await open();
    await disposed[Symbol.asyncDispose]();
    await expectCode(disposed.read(new Uint8Array(1), 0), 'COD_CLOSED');
  });

  it('knows its size', () => {
    expect(source.size).toBe(SIZE);
  });

  it.each([
    [0, 1],
    [1, 4095],
    [4095, 65_537],
    [123_457, 1_500_001],
    [SIZE - 1, 1],
    [0, SIZE],
  ])('at %i reads and streams the same %i bytes', async (offset, length) => {
    const expected = Buffer.from(content.subarray(offset, offset + length));
    const into = new Uint8Array(length + 2).fill(0xee);
    await source.read(into.subarray(1, length + 1), offset);
    expect(expected.equals(into.subarray(1, length + 1))).toBe(true);
    expect([into[0], into[length + 1]]).toEqual([0xee, 0xee]);
    expect(expected.equals(await collect(source, offset, length))).toBe(true);
  });

  it.each([0, 5, SIZE])('reads an empty range at %i', async (offset) => {
    await source.read(new Uint8Array(0), offset);
    expect((await collect(source, offset, 0)).length).toBe(0);
  });

  it.each([
    [SIZE, 1],
    [SIZE - 1, 2],
    [SIZE + 1, 0],
    [-1, 1],
    [0.5, 1],
    [0, SIZE + 1],
  ])('at %i refuses %i bytes with a RangeError', async (offset, length) => {
    await expect(source.read(new Uint8Array(length), offset)).rejects.toThrow(RangeError);
    await expect(collect(source, offset, length)).rejects.toThrow(RangeError);
  });

  (streams ? it : () => undefined)('hands out pieces whose slice() is a copy', async () => {
    const copies: Uint8Array[] = [];
    for await (const piece of source.stream!(0, SIZE)) copies.push(piece.slice());
    expect(Buffer.concat(copies).equals(content)).toBe(true);
  });

  it('serves overlapping reads', async () => {
    const reads = Array.from({ length: 20 }, async (_, index) => {
      const into = new Uint8Array(100_001);
      await source.read(into, index * 100_003);
      expect(Buffer.from(into).equals(content.subarray(index * 100_003, index * 100_003 + into.length))).toBe(true);
    });
    await Promise.all(reads);
  });

  it('rejects with the reason of an aborted signal', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(source.read(new Uint8Array(1), 0, { signal })).rejects.toThrow('enough');
    await expect(collect(source, 0, 1, signal)).rejects.toThrow('enough');
  });

  it('closes twice, and rejects later reads with COD_CLOSED', async () => {
    const other = await open();
    await other.close();
    await other.close();
    await expectCode(other.read(new Uint8Array(1), 0), 'COD_CLOSED');
  });

  (streams ? it : () => undefined)(
    'allows leaving a stream in its middle, and a close during another stream',
    async () => {
      const other = await open();
      for await (const piece of other.stream!(0, SIZE)) {
        expect(piece.length).toBeGreaterThan(0);
        break;
      }
      const stream = other.stream!(0, SIZE);
      await stream.next();
      await other.close();
      await expectCode(stream.next(), 'COD_CLOSED');
    },
  );
});

describe('the identity', () => {
  it('of bytes is what the caller gives', () => {
    expect(bytesSource(content, { identity: 'v1' }).identity).toBe('v1');
    expect('identity' in bytesSource(content)).toBe(false);
  });

  it('of a File is its name, size and time; a Blob has none', () => {
    expect('identity' in blobSource(new Blob(['abc']))).toBe(false);
    const file = Object.assign(new Blob(['abc']), { name: 'a.img', lastModified: 17 });
    expect(blobSource(file).identity).toBe('file:a.img:3:17');
  });

  it('of a file stays the same until the file is written', async () => {
    const path = join(folder, 'identity.img');
    await writeFile(path, 'abc');
    const identities: (string | undefined)[] = [];
    for (let round = 0; round < 3; round++) {
      const source = await fileSource(path);
      identities.push(source.identity);
      await source.close();
      if (round === 1) await appendFile(path, 'd');
    }
    expect(identities[0]).toMatch(/^file:\d+:3:\d+$/);
    expect(identities[1]).toBe(identities[0]);
    expect(identities[2]).not.toBe(identities[0]);
  });
});

describe('blobSource', () => {
  it('reads a long range in pieces, which are in memory twice', async () => {
    const slices: number[] = [];
    const blob = new Blob([new Uint8Array(2 ** 27 + 5).fill(7)]);
    const slice = blob.slice.bind(blob);
    blob.slice = (start, end) => {
      slices.push(end! - start!);
      return slice(start, end);
    };
    const into = new Uint8Array(2 ** 27 + 2);
    await blobSource(blob).read(into, 3);
    expect(slices).toEqual([2 ** 26, 2 ** 26, 2]);
    const edges = [0, 2 ** 26 - 1, 2 ** 26, 2 ** 27 - 1, 2 ** 27, 2 ** 27 + 1];
    expect(edges.map((at) => into[at])).toEqual(edges.map(() => 7));
  });
});

describe('fileSource', () => {
  it('makes a source of no bytes from an empty file', async () => {
    const path = join(folder, 'empty.img');
    await writeFile(path, '');
    const source = await fileSource(path);
    expect(source.size).toBe(0);
    await source.close();
  });

  it('explains why a path is not a file', async () => {
    await mkdir(join(folder, 'directory'));
    await expectCode(fileSource(join(folder, 'missing.img')), 'COD_NOT_FOUND', /does not exist/);
    await expectCode(fileSource(join(folder, 'disk.img', 'below')), 'COD_NOT_FOUND', /does not exist/);
    await expectCode(fileSource(join(folder, 'directory')), 'COD_SOURCE_IO', /is a directory: name a disk image/);
    await expectCode(fileSource('/dev/null'), 'COD_SOURCE_IO', /is a character device: name a disk image/);
  });

  it.skipIf(process.platform === 'win32')('refuses pipes and sockets, and blocks on none', async () => {
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    const server = createServer().listen(join(folder, 'socket'));
    await once(server, 'listening');
    await symlink('pipe', join(folder, 'link'));
    await expectCode(fileSource(join(folder, 'pipe')), 'COD_SOURCE_IO', /is a pipe: name a disk image/);
    await expectCode(fileSource(join(folder, 'link')), 'COD_SOURCE_IO', /link is a pipe: name a disk image/);
    await expectCode(fileSource(join(folder, 'socket')), 'COD_SOURCE_IO', /is a socket: name a disk image/);
    server.close();
  });

  it.skipIf(process.getuid?.() === 0)('reports a file without read permission', async () => {
    const path = join(folder, 'secret.img');
    await writeFile(path, 'abc', { mode: 0 });
    await expectCode(fileSource(path), 'COD_SOURCE_IO', /may not read/);
  });

  it.each([100, 200_000])(
    'rejects a read of %i bytes with COD_SHORT_READ when the file was truncated',
    async (length) => {
      const path = join(folder, 'cut.img');
      await writeFile(path, content);
      const source = await fileSource(path);
      await truncate(path, 1000);
      await source.read(new Uint8Array(100), 0);
      await expectCode(source.read(new Uint8Array(length), 950), 'COD_SHORT_READ', /ends at 1000/);
      await source.close();
    },
  );

  it('completes a submitted read now or later, with the same bytes and errors as a read', async () => {
    const path = join(folder, 'now.img');
    await writeFile(path, content);
    const source: InlineSource = await fileSource(path);
    const submitted = async (into: Uint8Array, offset: number): Promise<void> => {
      await source.submitRead!(into, offset);
    };
    const into = new Uint8Array(5000);
    await submitted(into, 777);
    expectBytes(into, content.subarray(777, 5777));
    await expect(submitted(into, SIZE - 10)).rejects.toThrow(RangeError);
    await truncate(path, 1000);
    await expectCode(submitted(new Uint8Array(100), 950), 'COD_SHORT_READ', /ends at 1000/);
    const changed = async (): Promise<void> => {
      for (let count = 0; count < 1024; count++) await submitted(new Uint8Array(10), 0);
    };
    await expectCode(changed(), 'COD_SOURCE_CHANGED');
    // Found once, it is said at each read.
    await expectCode(submitted(new Uint8Array(10), 0), 'COD_SOURCE_CHANGED');
    await source.close();
    await expectCode(submitted(into, 0), 'COD_CLOSED');
  });

  it('reads short ranges synchronously, and long ranges in the pool', async () => {
    const source: InlineSource = await fileSource(join(folder, 'disk.img'));
    const short = new Uint8Array(4096);
    /** A slow call makes the next calls use the pool for a while. */
    const isSynchronous = (): boolean => source.submitRead!(short.fill(0), 777) === undefined;
    await expect.poll(isSynchronous, { interval: 0 }).toBe(true);
    expectBytes(short, content.subarray(777, 4873));
    const long = new Uint8Array(1 << 20);
    const reading = source.submitRead!(long, 777);
    expect(reading).toBeInstanceOf(Promise);
    await reading;
    expectBytes(long, content.subarray(777, 777 + long.length));
    await source.close();
  });

  describe.each<[string, (source: Source) => Promise<unknown>]>([
    ['a long read', (source: Source) => collect(source, 0, SIZE - 10)],
    ['1024 small reads', (source: Source) => readOften(source)],
    ['a short read at the end of the file', (source: Source) => source.read(new Uint8Array(10), SIZE - 10)],
  ])('notices in %s', (_name, read) => {
    it.each<[string, (path: string) => Promise<void>]>([
      ['appended to', (path: string) => appendFile(path, 'x')],
      ['overwritten in place', (path: string) => overwrite(path)],
      [
        'overwritten in place by a program that puts the mtime back',
        async (path: string) => {
          await overwrite(path);
          await utimes(path, WRITTEN_AT, WRITTEN_AT);
        },
      ],
    ])('that the file was %s, and keeps rejecting', async (_how, change) => {
      const path = join(folder, 'changed.img');
      await writeFile(path, content);
      await utimes(path, WRITTEN_AT, WRITTEN_AT);
      const source = await fileSource(path);
      await read(source);
      await clockTick(path);
      await change(path);
      await expectCode(read(source), 'COD_SOURCE_CHANGED');
      await expectCode(read(source), 'COD_SOURCE_CHANGED');
      await source.close();
    });
  });

  it.each<[string, (path: string) => Promise<void>]>([
    ['its mode changes', (path: string) => chmod(path, 0o400)],
    ['it gets another name', (path: string) => link(path, `${path}.link`)],
    ['it is moved', (path: string) => rename(path, `${path}.old`)],
    ['it is removed', (path: string) => rm(path)],
    [
      'another file replaces it',
      async (path: string) => {
        await writeFile(`${path}.new`, new Uint8Array(SIZE));
        await rename(`${path}.new`, path);
      },
    ],
  ])('reads on when %s', async (_how, change) => {
    const directory = await mkdtemp(join(folder, 'kept-'));
    const path = join(directory, 'disk.img');
    await writeFile(path, content);
    const source = await fileSource(path);
    await clockTick(path);
    await change(path);
    expectBytes(await collect(source, 0, SIZE), content);
    await source.close();
  });
});

/** A modification time in seconds that can be set again exactly. */
const WRITTEN_AT = 1e9;

/** Waits until a change of a file gets another time than `path` has. */
async function clockTick(path: string): Promise<void> {
  const { ctimeNs } = await stat(path, { bigint: true });
  const probe = `${path}.probe`;
  do await writeFile(probe, '');
  while ((await stat(probe, { bigint: true })).ctimeNs <= ctimeNs);
  await rm(probe);
}

async function overwrite(path: string): Promise<void> {
  const file = await open(path, 'r+');
  await file.write('changed', 0);
  await file.close();
}

async function readOften(source: Source): Promise<void> {
  for (let read = 0; read < 1024; read++) await source.read(new Uint8Array(16), read);
}

/** Collects the bytes from a stream, or from one read for a source without streams. */
async function collect(source: Source, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
  if (source.stream === undefined) {
    const into = new Uint8Array(length);
    await source.read(into, offset, signal ? { signal } : {});
    return into;
  }
  const copies: Uint8Array[] = [];
  for await (const piece of source.stream(offset, length, signal ? { signal } : {})) copies.push(piece.slice());
  return new Uint8Array(Buffer.concat(copies));
}

async function expectCode(promise: Promise<unknown>, code: CodErrorCode, message: RegExp = /./): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toMatchObject({ name: 'CodError', code, message: expect.stringMatching(message) });
}
