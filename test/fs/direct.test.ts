/** Writes past the page cache: which they are, and that nobody sees a difference. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { Volume } from 'memfs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fsAdapter } from '../../src/fs/fs-adapter.ts';
import type { InlineFile } from '../../src/fs/inline-file.ts';
import { nodeFileSystem } from '../../src/fs/node.ts';
import { PAGE_BYTES, pageBuffer } from '../../src/platform/pages.ts';
import { fileSystemSuite } from '../../src/testing/file-system-suite.ts';
import { expectBytes } from '../support/bytes.ts';

const MIB = 2 ** 20;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cod-direct-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('which writes go past the page cache', () => {
  interface Write {
    readonly direct: boolean;
    readonly length: number;
    readonly position: number;
  }

  /** A file whose writes are noted; `answer` is what a direct one comes to: how many bytes, or an error. */
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
        readSync: (fd, into, start, length, position) => volume.readSync(fd, into, start, length, position),
        writeSync: (fd, from, start, length, position) => volume.writeSync(fd, from, start, length, position),
        ftruncateSync: (fd, size) => volume.ftruncateSync(fd, size),
        unlinkSync: (path) => volume.unlinkSync(path),
      },
      resolve: (name) => `/${name}`,
      flags: { readOnly: 0, readWrite: 2, create: 64 },
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
    ['whole pages, further on', pageBuffer(MIB), 7 * PAGE_BYTES, true],
    ['off the pages of the file', pageBuffer(MIB), 512, false],
    ['no whole number of pages', pageBuffer(MIB).subarray(0, MIB - 1), 0, false],
    ['off the pages of memory', pageBuffer(MIB + PAGE_BYTES).subarray(64, MIB + 64), 0, false],
    ['other memory', new Uint8Array(MIB), 0, false],
  ])('%s at %#', async (_, bytes, offset, direct) => {
    const { file, writes } = await open();
    await file.write(bytes, offset);
    expect(writes).toEqual([{ direct, length: bytes.length, position: offset }]);
  });

  it('short ones are done inside the call, whatever they are', async () => {
    const { file, writes } = await open();
    await file.write(pageBuffer(PAGE_BYTES), 0);
    expect(writes).toEqual([]);
  });

  it('what was written in part goes on from there', async () => {
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

  it('a file system that refuses one gets it, and all that follow, through the page cache', async () => {
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

  it('says how long writes should be, and closes what it opened', async () => {
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

  it('leaves nothing in the page cache, where other programs can do that too', async ({ skip }) => {
    const dd = spawnSync('dd', ['if=/dev/zero', `of=${join(folder, 'by-dd')}`, 'bs=4096', 'count=1', 'oflag=direct']);
    if (dd.status !== 0) skip('no direct writes here');
    const file: InlineFile = await nodeFileSystem(folder, { direct: true }).open('uncached', { create: true });
    expect(file.preferredWriteBytes).toBe(2 * MIB);
    await file.write(pageBuffer(2 * MIB).fill(7), 0);
    await file.close();
    const cached = spawnSync('fincore', ['--noheadings', '--output', 'PAGES', join(folder, 'uncached')], {
      encoding: 'utf8',
    });
    expect(cached.stdout.trim()).toBe('0');
  });

  it('asks for nothing where it does not write past the page cache', async () => {
    for (const options of [{}, { direct: false }, { direct: true, readOnly: true }]) {
      const { open } = nodeFileSystem(folder);
      await (await open('plain', { create: true })).close();
      const file: InlineFile = await nodeFileSystem(folder, options).open('plain');
      expect(file.preferredWriteBytes).toBeUndefined();
      await file.close();
    }
  });

  it('is the same as one through the page cache, whatever is written where', async () => {
    const bytes = 3 * MIB;
    const pages = pageBuffer(bytes);
    const operation = fc.record({
      /** In halves of a page, so that many are whole pages and many are not. */
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
