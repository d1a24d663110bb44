/** `inspect` on every state of format 1, before and after opening the copy converted its metadata to format 2. */

import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { File, FileSystem, Source } from '../../src/index.ts';
import { openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { eventsOf, runCommand } from '../cli/command.ts';
import { beginCopy, crashCopy, leaveCopy, makeImage, makeSparse } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';

const GOLDEN = new URL('../fixtures/golden/', import.meta.url).pathname;
/** Larger targets are not hashed to prove that they are unchanged. */
const HASHED_BYTES = 2 ** 28;

interface Expected {
  readonly deviceSize: number;
  readonly totalBlocks: number;
  readonly syncedBlocks: number;
  readonly synced: unknown;
  readonly dirty: unknown;
}

interface Inspection {
  readonly target: string;
  readonly size: number;
  readonly blockSize: number;
  readonly totalBlocks: number;
  readonly syncedBlocks: number;
  readonly synced: unknown;
  readonly dirty: unknown;
  readonly files: readonly {
    name: string;
    kind: string;
    format: number;
    bytes: number;
    records: number;
    tornBytes: number;
  }[];
}

const states = readdirSync(GOLDEN, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => ({
    name,
    expected: JSON.parse(readFileSync(join(GOLDEN, name, 'expected.json'), 'utf8')) as Expected,
  }));

/** A source of zeros, which must not be read. */
function zeroSource(size: number): Source {
  return { size, read: async (into) => void into.fill(0), close: async () => {} };
}

/** Runs `inspect --json`, which must succeed and print one object. */
async function inspect(args: readonly string[], cwd: string): Promise<Inspection> {
  const result = await runCommand(['inspect', ...args, '--json'], { cwd });
  expect(result.stderr).toBe('');
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toMatch(/^\{.*\}\n$/);
  return JSON.parse(result.stdout) as Inspection;
}

function expectState(inspection: Inspection, { deviceSize, totalBlocks, syncedBlocks, synced, dirty }: Expected): void {
  expect(inspection).toMatchObject({
    target: 'disk.raw',
    size: deviceSize,
    blockSize: 4096,
    totalBlocks,
    syncedBlocks,
  });
  expect(inspection.synced).toEqual(synced);
  expect(inspection.dirty).toEqual(dirty);
}

/** A target of zeros, which may be larger than this machine's file system allows. */
function zeroTarget(size: number): File {
  const nothing = async () => {};
  return {
    size: async () => size,
    read: async (into) => void into.fill(0),
    write: nothing,
    truncate: nothing,
    sync: nothing,
    close: nothing,
  };
}

describe.for(states)('the state $name of format 1', ({ name, expected }) => {
  const { deviceSize } = expected;
  const arrange = (): string => {
    const directory = temporaryDirectory();
    cpSync(join(GOLDEN, name), directory, { recursive: true, filter: (path) => !path.endsWith('.json') });
    return directory;
  };

  test('is inspected unchanged when the size is given', async () => {
    const directory = arrange();
    const before = contentsOf(directory);
    const inspection = await inspect(['disk.raw', '--size', String(deviceSize)], directory);
    expectState(inspection, expected);
    expect(inspection.files.map((file) => file.name).sort()).toEqual(Object.keys(before));
    expect(inspection.files.every(({ format }) => format === 1)).toBe(true);
    expect(contentsOf(directory)).toEqual(before);
  });

  // This machine's file systems could not hold the largest targets either.
  if (deviceSize <= HASHED_BYTES)
    test('is inspected unchanged when the target exists', async () => {
      const directory = arrange();
      makeSparse(join(directory, 'disk.raw'), deviceSize);
      const before = contentsOf(directory);
      expectState(await inspect(['disk.raw'], directory), expected);
      expect(contentsOf(directory)).toEqual(before);
    });

  test('continues in format 2 with the same maps, while the copy is open and after it is closed', async () => {
    const directory = arrange();
    const files = nodeFileSystem(directory);
    const fileSystem: FileSystem = {
      ...files,
      open: async (file, options) => (file === 'disk.raw' ? zeroTarget(deviceSize) : files.open(file, options)),
    };
    const device = await openDevice({ source: zeroSource(deviceSize), fileSystem, target: 'disk.raw', hydrate: false });
    const open = await inspect(['disk.raw'], directory);
    await device.close();
    const closed = await inspect(['disk.raw'], directory);
    for (const inspection of [open, closed]) {
      expectState(inspection, expected);
      for (const wanted of ['checkpoint', 'log']) {
        expect(inspection.files.some(({ kind, format }) => kind === wanted && format === 2)).toBe(true);
      }
    }
  });
});

describe('inspect', () => {
  test('prints the same as text, and draws a map', async () => {
    const directory = temporaryDirectory();
    await leaveCopy(makeImage(directory), directory);
    const before = contentsOf(directory);
    const { exitCode, stdout, stderr } = await runCommand(['inspect', 'disk', '--map'], { cwd: directory });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(stdout).toContain('disk: a copy of 1 MiB in 256 blocks of 4 KiB');
    expect(stdout).toContain('25.0 %, 256 KiB in 64 blocks, 1 extent');
    expect(stdout).toContain('1 block partly written (1 part), the rest not copied');
    expect(stdout).toContain('disk.bak');
    expect(stdout).toMatch(/^ {2}█{19}░{19}▚░{37}$/m);
    expect(stdout).not.toContain('\x1b');
    expect(contentsOf(directory)).toEqual(before);
  });

  test('reports the recovered state after a kill, and changes nothing', async () => {
    const directory = temporaryDirectory();
    await crashCopy(makeImage(directory), directory);
    const before = contentsOf(directory);
    const inspection = await inspect(['disk'], directory);
    expect(inspection).toMatchObject({
      size: 2 ** 20,
      syncedBlocks: 64,
      synced: [[0, 63]],
      dirty: [{ block: 128, ranges: [[10, 100]] }],
    });
    expect(inspection.files.find(({ kind, records }) => kind === 'log' && records > 0)).toMatchObject({
      format: 2,
      tornBytes: 0,
    });
    expect(contentsOf(directory)).toEqual(before);
  });

  test('runs while the copy is open, and takes no lock', async () => {
    const directory = temporaryDirectory();
    const copy = await beginCopy(makeImage(directory), join(directory, 'disk'));
    expect(await inspect([join(directory, 'disk')], '/')).toMatchObject({
      target: join(directory, 'disk'),
      syncedBlocks: 64,
    });
    expect(existsSync(join(directory, 'disk.lock'))).toBe(true);
    await copy.close();
  });
});

test.each([
  { what: 'a file, which may be a finished copy', make: (dir: string) => makeImage(dir), isImage: true },
  {
    what: 'an empty file',
    make: (dir: string) => {
      writeFileSync(join(dir, 'image'), '');
      return join(dir, 'image');
    },
    isImage: false,
  },
  { what: 'nothing', make: (dir: string) => join(dir, 'image'), isImage: false },
  { what: 'a directory', make: (dir: string) => dir, isImage: false },
])('without metadata tells with --json that there is $what', async ({ make, isImage }) => {
  const target = make(temporaryDirectory());
  const result = await runCommand(['inspect', target, '--json']);
  expect(result.exitCode).toBe(1);
  expect(eventsOf(result)).toMatchObject([{ event: 'error', code: 'COD_NOT_FOUND', details: { target, isImage } }]);
});
