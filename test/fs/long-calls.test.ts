/** Reads and writes that are longer than a system call takes. Nothing touches buffers of this length: they are free. */

import { describe, expect, it } from 'vitest';
import type { File } from '../../src/fs/file-system.ts';
import { type FsAdapterOptions, type FsLike, fsAdapter } from '../../src/fs/fs-adapter.ts';
import { opfsFileSystem } from '../../src/fs/opfs.ts';

const GIB = 2 ** 30;
const LENGTH = 2 ** 31 + 4096;
const OFFSET = 2 ** 33;
const CALLS = [
  [GIB, OFFSET],
  [GIB, OFFSET + GIB],
  [4096, OFFSET + 2 * GIB],
];

/** What a call of the system has moved: length and position. */
type Call = readonly [length: number, position: number];

/** Files whose calls move what `moves` says, and no byte in truth. */
function adapter(inPool: boolean, moves: (length: number) => number): { open: () => Promise<File>; calls: Call[] } {
  const calls: Call[] = [];
  const call = (length: number, position: number): number => {
    calls.push([length, position]);
    return moves(length);
  };
  const fs: FsLike = {
    openSync: () => 3,
    closeSync: () => undefined,
    fstatSync: () => ({ size: 2 ** 40, mode: 0o600, isFile: () => true }),
    lstatSync: () => ({ isFile: () => true }),
    fchmodSync: () => undefined,
    readSync: (_fd, _into, _start, length, position) => call(length, position),
    writeSync: (_fd, _from, _start, length, position) => call(length, position),
    ftruncateSync: () => undefined,
    unlinkSync: () => undefined,
  };
  const pool: NonNullable<FsAdapterOptions['pool']> = {
    loop: { now: () => 0, turn: async () => undefined },
    read: async (_fd, into, position) => call(into.length, position),
    write: async (_fd, from, position) => call(from.length, position),
  };
  const fileSystem = fsAdapter({
    fs,
    ...(inPool ? { pool } : {}),
    resolve: (name) => name,
    flags: { readOnly: 0, readWrite: 2, create: 64, exclusive: 128, noFollow: 0 },
    sync: async () => undefined,
    syncName: async () => undefined,
  });
  return { open: () => fileSystem.open('file'), calls };
}

/** As {@link adapter}, over access handles of a browser. */
function opfs(moves: (length: number) => number): { open: () => Promise<File>; calls: Call[] } {
  const calls: Call[] = [];
  const call = ({ length }: Uint8Array, { at }: { at: number }): number => {
    calls.push([length, at]);
    return moves(length);
  };
  const handle = { read: call, write: call, close: () => undefined };
  const directory = { getFileHandle: async () => ({ createSyncAccessHandle: async () => handle }) };
  return { open: () => opfsFileSystem(directory as never).open('file'), calls };
}

const backends: [string, (moves: (length: number) => number) => { open: () => Promise<File>; calls: Call[] }][] = [
  ['synchronous calls', (moves) => adapter(false, moves)],
  ['calls on the thread pool', (moves) => adapter(true, moves)],
  ['access handles', opfs],
];

describe.each(backends)('%s of more than 2 GiB', (_, make) => {
  it.each(['read', 'write'] as const)('are made of several calls by a %s', async (operation) => {
    const { open, calls } = make((length) => length);
    await (await open())[operation](new Uint8Array(LENGTH), OFFSET);
    expect(calls).toEqual(CALLS);
  });

  it.each(['read', 'write'] as const)('that move fewer bytes are continued by a %s', async (operation) => {
    const { open, calls } = make((length) => Math.min(length, GIB - 1));
    await (await open())[operation](new Uint8Array(LENGTH), OFFSET);
    expect(calls).toEqual([
      [GIB, OFFSET],
      [GIB, OFFSET + GIB - 1],
      [4098, OFFSET + 2 * GIB - 2],
    ]);
  });

  it('that move nothing are an error', async () => {
    for (const [operation, code] of [
      ['read', 'COD_SHORT_READ'],
      ['write', expect.stringMatching(/^COD_(TARGET_IO|NO_SPACE)$/)],
    ] as const) {
      const { open, calls } = make((length) => (length < GIB ? 0 : length));
      await expect((await open())[operation](new Uint8Array(LENGTH), OFFSET)).rejects.toMatchObject({ code });
      expect(calls).toEqual(CALLS);
    }
  });
});
