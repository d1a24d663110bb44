import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  promises,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { nodeFileSystem } from '../../src/control/node-file-system.ts';
import { fileSystemSuite } from '../../src/testing/file-system-suite.ts';

const directories: string[] = [];
/** Leaves a socket at the path of its argument. */
const LISTEN = "require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 9))";

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'cod-fs-'));
  directories.push(directory);
  return directory;
}

afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

for (const { name, run } of fileSystemSuite(() => nodeFileSystem(temporaryDirectory()))) test(name, run);

test('tells what a file has of the disk: all of a written one, next to nothing of a sparse one', async () => {
  const fileSystem = nodeFileSystem(temporaryDirectory());
  const bytes = 4 * 2 ** 20;
  const [written, sparse] = ['written', 'sparse'];
  for (const name of [written, sparse]) {
    const file = await fileSystem.open(name, { create: true });
    await file.truncate(bytes);
    if (name === written) await file.write(new Uint8Array(bytes).fill(1), 0);
    await file.sync();
    await file.close();
  }
  expect(await fileSystem.allocatedBytes!(written)).toBeGreaterThanOrEqual(bytes);
  expect(await fileSystem.allocatedBytes!(sparse)).toBeLessThan(bytes / 2);
});

test('short operations complete synchronously, before their promise is returned', async () => {
  const directory = temporaryDirectory();
  // The first operation of each file: those after one that was slow do not.
  const open = () => nodeFileSystem(directory).open('a', { create: true });
  const [written, read] = [await open(), await open()];
  const writing = written.write(new Uint8Array(65_536).fill(7), 0);
  expect(readFileSync(join(directory, 'a')).equals(Buffer.alloc(65_536, 7))).toBe(true);
  const into = new Uint8Array(65_536);
  const reading = read.read(into, 0);
  expect(into[65_535]).toBe(7);
  await Promise.all([writing, reading]);
  await written.close();
  await read.close();
});

test('opening a directory or a device rejects with COD_TARGET_IO', async () => {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, 'd'));
  for (const options of [{}, { create: true }]) {
    await expect(nodeFileSystem(directory).open('d', options)).rejects.toMatchObject({
      code: 'COD_TARGET_IO',
      message: /directory/,
    });
  }
  await expect(nodeFileSystem(directory, { readOnly: true }).open('d')).rejects.toMatchObject({
    code: 'COD_TARGET_IO',
  });
  await expect(nodeFileSystem(directory).open('/dev/null')).rejects.toMatchObject({
    code: 'COD_TARGET_IO',
    message: /regular/,
  });
});

test.skipIf(process.platform === 'win32')(
  'opening a pipe rejects with COD_TARGET_IO without a wait for a writer',
  async () => {
    const directory = temporaryDirectory();
    execFileSync('mkfifo', [join(directory, 'pipe')]);
    for (const readOnly of [false, true]) {
      await expect(nodeFileSystem(directory, { readOnly }).open('pipe')).rejects.toMatchObject({
        code: 'COD_TARGET_IO',
      });
    }
  },
);

test('a missing directory is COD_NOT_FOUND', async () => {
  await expect(nodeFileSystem(temporaryDirectory()).open('d/a', { create: true })).rejects.toMatchObject({
    code: 'COD_NOT_FOUND',
  });
});

test.skipIf(process.getuid?.() === 0)(
  'opening a file without write permission rejects with COD_TARGET_IO',
  async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'a'), 'abc');
    chmodSync(join(directory, 'a'), 0o444);
    await expect(nodeFileSystem(directory).open('a')).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
  },
);

test.skipIf(process.platform !== 'linux')(
  'a write without room rejects with COD_NO_SPACE and names the place',
  async () => {
    const file = await nodeFileSystem(temporaryDirectory()).open('a', { create: true });
    // Beyond the largest file of any Linux file system with 4 KiB pages.
    const offset = Number.MAX_SAFE_INTEGER - 10;
    await expect(file.write(new Uint8Array(10), offset)).rejects.toMatchObject({
      code: 'COD_NO_SPACE',
      message: /write .*a at offset 9007199254740981, 10 bytes/,
      details: { offset, length: 10, errno: 'EFBIG' },
      cause: { code: 'EFBIG' },
    });
    await file.close();
  },
);

test('names are relative to the directory, unless they are absolute', async () => {
  const [directory, other] = [temporaryDirectory(), temporaryDirectory()];
  mkdirSync(join(directory, 'd'));
  const fileSystem = nodeFileSystem(directory);
  for (const name of ['a', 'd/b', join(other, 'c')]) await (await fileSystem.open(name, { create: true })).close();
  for (const path of [join(directory, 'a'), join(directory, 'd/b'), join(other, 'c')])
    expect(statSync(path).isFile()).toBe(true);
});

test.skipIf(process.platform === 'win32')('the first sync of a file syncs the directory that it is in', async () => {
  const directory = temporaryDirectory();
  const file = await nodeFileSystem(directory).open('a', { create: true });
  const { open } = promises;
  const synced: unknown[] = [];
  promises.open = async (path, ...given) => {
    const handle = await open(path, ...given);
    const { sync } = handle;
    handle.sync = async () => {
      synced.push(path);
      await sync.call(handle);
    };
    return handle;
  };
  try {
    await file.sync();
  } finally {
    promises.open = open;
  }
  expect(synced).toEqual([realpathSync(directory)]);
  await file.close();
});

test('a file behind a symbolic link can be synced', async () => {
  const [directory, other] = [temporaryDirectory(), temporaryDirectory()];
  symlinkSync(join(other, 'a'), join(directory, 'link'));
  const file = await nodeFileSystem(directory).open('link', { create: true });
  await file.sync();
  await file.close();
  expect(statSync(join(other, 'a')).size).toBe(0);
});

describe('what is at a name that must be a file of ours', () => {
  const ways = [
    { noFollow: true },
    { noFollow: true, create: true },
    { exclusive: true },
    { noFollow: true, readOnly: true },
  ];
  const kinds: [string, (path: string, other: string) => void][] = [
    ['a symbolic link', (path, other) => symlinkSync(other, path)],
    ['a dangling symbolic link', (path) => symlinkSync('nowhere', path)],
    ['a directory', (path) => mkdirSync(path)],
    ...(process.platform === 'win32'
      ? []
      : ([
          ['a pipe', (path) => execFileSync('mkfifo', [path])],
          ['a socket', (path) => spawnSync(process.execPath, ['-e', LISTEN, path])],
        ] as [string, (path: string) => void][])),
  ];

  test.each(kinds)('is refused with COD_EXISTS if it is %s, and stays', async (_, make) => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'other'), 'abc');
    make(join(directory, 'a'), join(directory, 'other'));
    const before = lstatSync(join(directory, 'a'));
    for (const options of ways)
      await expect(nodeFileSystem(directory).open('a', options)).rejects.toMatchObject({
        code: 'COD_EXISTS',
        details: { path: join(directory, 'a') },
      });
    expect(lstatSync(join(directory, 'a'))).toMatchObject({ ino: before.ino, mode: before.mode });
    expect(readFileSync(join(directory, 'other'), 'utf8')).toBe('abc');
    expect(readdirSync(directory).sort()).toEqual(['a', 'other']);
  });
});

test('a link in the path of a file is followed, also with noFollow', async () => {
  const [directory, other] = [temporaryDirectory(), temporaryDirectory()];
  symlinkSync(other, join(directory, 'd'));
  await (await nodeFileSystem(directory).open('d/a', { exclusive: true, noFollow: true })).close();
  expect(statSync(join(other, 'a')).isFile()).toBe(true);
});

describe.skipIf(process.platform === 'win32')('the mode of a new file', () => {
  const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8);

  test.each([
    [0o666, 0o022, '644'],
    [0o640, 0o022, '640'],
    [0o600, 0o777, '600'],
    [0o666, 0o777, '600'],
    [0o444, 0o022, '644'],
    [0o060, 0o002, '660'],
  ])('0%o under the umask 0%o is 0%s if it is new for certain', async (mode, umask, expected) => {
    const directory = temporaryDirectory();
    const before = process.umask(umask);
    try {
      const file = await nodeFileSystem(directory).open('a', { exclusive: true, mode });
      await file.write(new Uint8Array(1), 0);
      await file.close();
    } finally {
      process.umask(before);
    }
    expect(modeOf(join(directory, 'a'))).toBe(expected);
  });

  test('is left alone once the file exists', async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'a'), '', { mode: 0o640 });
    await (await nodeFileSystem(directory).open('a', { create: true, mode: 0o600 })).close();
    await (await nodeFileSystem(directory).open('a', { noFollow: true, mode: 0o600 })).close();
    expect(modeOf(join(directory, 'a'))).toBe('640');
  });
});

test.skipIf(process.platform !== 'linux')('the boot ID is that of the machine', () => {
  expect(nodeFileSystem().bootId).toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
});

describe('read-only', () => {
  test('files can be read but not changed', async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'a'), 'abc', { mode: 0o444 });
    const fileSystem = nodeFileSystem(directory, { readOnly: true });
    const file = await fileSystem.open('a', { create: true });
    const into = new Uint8Array(3);
    await file.read(into, 0);
    expect(Buffer.from(into).toString()).toBe('abc');
    await file.sync();
    await expect(file.write(into, 0)).rejects.toMatchObject({ code: 'COD_READ_ONLY' });
    await expect(file.truncate(0)).rejects.toMatchObject({ code: 'COD_READ_ONLY' });
    await expect(fileSystem.remove('a')).rejects.toMatchObject({ code: 'COD_READ_ONLY' });
    expect(fileSystem.lock).toBeUndefined();
    await file.close();
    expect(readFileSync(join(directory, 'a'), 'utf8')).toBe('abc');
  });

  test('a missing file is not created', async () => {
    const directory = temporaryDirectory();
    await expect(nodeFileSystem(directory, { readOnly: true }).open('a', { create: true })).rejects.toMatchObject({
      code: 'COD_NOT_FOUND',
    });
    expect(() => statSync(join(directory, 'a'))).toThrow();
  });
});
