/** Direct writes, past the page cache: which writes they are, and that their results equal those of other writes. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { Volume } from 'memfs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeFileSystem } from '../../src/control/node-file-system.ts';
import { fsAdapter } from '../../src/fs/fs-adapter.ts';
import type { InlineFile } from '../../src/fs/inline-file.ts';
import { PAGE_BYTES, pageBuffer } from '../../src/platform/pages.ts';
import { fileSystemSuite } from '../../src/testing/file-system-suite.ts';
import { expectBytes } from '../support/bytes.ts';

const MIB = 2 ** 20;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cod-direct-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('direct writes', () => {
  interface Write {
    readonly direct: boolean;
    readonly length: number;
    readonly position: number;
  }

  /** A file that records its writes. `answer` is the result of a direct write: a number of bytes, or an error. */
  async function open(
    answer: (length: number) => number | string = (length) => length,
  ): Promise<{ file: InlineFile; writes: Write[]; descriptors: Set<number> }> {
    const volume = new Volume();
    const writes: Write[] = [];
    const descriptors = new Set<number>();
    let directFd: number | undefined;
    const fileSystem = fsAdapter({
      fs: {
        openSync: (path, flags) => {
          const fd = volume.openSync(path, flags);
          descriptors.add(fd);
          return fd;
        },
        closeSync: (fd) => {
          descriptors.delete(fd);
          volume.closeSync(fd);
        },
        fstatSync: (fd) => volume.fstatSync(fd),
        lstatSync: (path) => volume.lstatSync(path),
        fchmodSync: (fd, mode) => volume.fchmodSync(fd, mode),
        readSync: (fd, into, start, length, position) => volume.readSync(fd, into, start, length, position),
        writeSync: (fd, from, start, length, position) => volume.writeSync(fd, from, start, length, position),
        ftruncateSync: (fd, size) => volume.ftruncateSync(fd, size),
        unlinkSync: (path) => volume.unlinkSync(path),
      },
      resolve: (name) => `/${name}`,
      flags: { readOnly: 0, readWrite: 2, create: 64, exclusive: 128, noFollow: 0 },
      pool: {
        loop: { now: () => 0, turn: async () => {} },
        read: async (fd, into, position) => volume.readSync(fd, into, 0, into.length, position),
        write: async (fd, from, position) => {
          const direct = fd === directFd;
          writes.push({ direct, length: from.length, position });
          const count = direct ? answer(from.length) : from.length;
          if (typeof count === 'string') throw Object.assign(new Error(`${count}: no`), { code: count });
          return volume.writeSync(fd, from, 0, count, position);
        },
        openDirect: () => {
          directFd = volume.openSync('/a', 2);
          descriptors.add(directFd);
          return directFd;
        },
      },
      sync: async () => {},
      syncName: async () => {},
    });
    return { file: await fileSystem.open('a', { create: true }), writes, descriptors };
  }

  it.each([
    ['whole pages', pageBuffer(MIB), 0, true],
    ['whole pages at a page offset', pageBuffer(MIB), 7 * PAGE_BYTES, true],
    ['an offset that is not a multiple of a page', pageBuffer(MIB), 512, false],
    ['a length that is not a multiple of a page', pageBuffer(MIB).subarray(0, MIB - 1), 0, false],
    ['memory that is not page-aligned', pageBuffer(MIB + PAGE_BYTES).subarray(64, MIB + 64), 0, false],
    ['memory outside page buffers', new Uint8Array(MIB), 0, false],
  ])('%s at %#', async (_, bytes, offset, direct) => {
    const { file, writes } = await open();
    await file.write(bytes, offset);
    expect(writes).toEqual([{ direct, length: bytes.length, position: offset }]);
  });

  it('complete short writes synchronously, always through the page cache', async () => {
    const { file, writes } = await open();
    await file.write(pageBuffer(PAGE_BYTES), 0);
    expect(writes).toEqual([]);
  });

  it('continue after a partial write', async () => {
    const { file, writes } = await open((length) => Math.min(length, MIB / 2));
    await file.write(pageBuffer(MIB).fill(7), 0);
    expect(writes.map(({ direct, position }) => [direct, position])).toEqual([
      [true, 0],
      [true, MIB / 2],
    ]);
    const into = new Uint8Array(MIB);
    await file.read(into, 0);
    expectBytes(into, new Uint8Array(MIB).fill(7));
  });

  it('use the page cache from the first direct write that the file system refuses', async () => {
    const { file, writes } = await open(() => 'EINVAL');
    await file.write(pageBuffer(MIB).fill(7), 0);
    await file.write(pageBuffer(MIB), MIB);
    expect(writes.map(({ direct, position }) => [direct, position])).toEqual([
      [true, 0],
      [false, 0],
      [false, MIB],
    ]);
    expect(await file.size()).toBe(2 * MIB);
    expect(file.preferredWriteBytes).toBeUndefined();
  });

  it.each([
    ['ENOSPC', 'COD_NO_SPACE'],
    ['EIO', 'COD_TARGET_IO'],
  ])('%s is %s', async (errno, code) => {
    const { file, writes } = await open(() => errno);
    await expect(file.write(pageBuffer(MIB), 0)).rejects.toMatchObject({ code });
    expect(writes.length).toBe(1);
  });

  it('report the preferred length of writes, and close every file', async () => {
    const { file, descriptors } = await open();
    expect(file.preferredWriteBytes).toBe(2 * MIB);
    expect(descriptors.size).toBe(2);
    await file.close();
    expect(descriptors.size).toBe(0);
  });
});

describe('a file of this machine', () => {
  for (const { name, run } of fileSystemSuite(() => nodeFileSystem(mkdtempSync(join(folder, 's-')), { direct: true })))
    it(name, run);

  it('leaves no page in the page cache, if other programs can avoid it too', async ({ skip }) => {
    const dd = spawnSync('dd', ['if=/dev/zero', `of=${join(folder, 'by-dd')}`, 'bs=4096', 'count=1', 'oflag=direct']);
    if (dd.status !== 0) skip('no direct writes on this file system');
    const file: InlineFile = await nodeFileSystem(folder, { direct: true }).open('uncached', { create: true });
    expect(file.preferredWriteBytes).toBe(2 * MIB);
    await file.write(pageBuffer(2 * MIB).fill(7), 0);
    await file.close();
    const cached = spawnSync('fincore', ['--noheadings', '--output', 'PAGES', join(folder, 'uncached')], {
      encoding: 'utf8',
    });
    expect(cached.stdout.trim()).toBe('0');
  });

  it('has no preferred length without direct writes', async () => {
    for (const options of [{}, { direct: false }, { direct: true, readOnly: true }]) {
      const { open } = nodeFileSystem(folder);
      await (await open('plain', { create: true })).close();
      const file: InlineFile = await nodeFileSystem(folder, options).open('plain');
      expect(file.preferredWriteBytes).toBeUndefined();
      await file.close();
    }
  });

  it('has the same contents as a file through the page cache after any writes', async () => {
    const bytes = 3 * MIB;
    const pages = pageBuffer(bytes);
    const operation = fc.record({
      /** In halves of a page, so that many writes are whole pages and many are not. */
      offset: fc.nat(bytes / 2048 - 1),
      length: fc.integer({ min: 1, max: bytes / 2048 }),
      isPages: fc.boolean(),
      value: fc.nat(255),
      read: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 12 }), async (operations) => {
        const name = `mixed-${Math.random()}`;
        const file = await nodeFileSystem(folder, { direct: true }).open(name, { create: true });
        const model = new Uint8Array(bytes);
        await file.truncate(bytes);
        for (const { offset, length, isPages, value, read } of operations) {
          const at = offset * 2048;
          const count = Math.min(length * 2048, bytes - at);
          const from = isPages ? pages.subarray(0, count) : new Uint8Array(count);
          for (let index = 0; index < count; index += 512) from.fill(value + index / 512, index, index + 512);
          model.set(from, at);
          await file.write(from, at);
          if (!read) continue;
          const into = new Uint8Array(count);
          await file.read(into, at);
          expectBytes(into, model.subarray(at, at + count));
        }
        await file.sync();
        await file.close();
        expectBytes(readFileSync(join(folder, name)), model);
        rmSync(join(folder, name));
      }),
      { numRuns: 60 },
    );
  });
});
