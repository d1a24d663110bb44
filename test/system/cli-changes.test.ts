/** `changes` as a process: what it lists, and what it refuses. */

import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { eventsOf, runCommand } from '../cli/command.ts';
import { beginCopy, crashCopy, IMAGE_BYTES, leaveCopy, makeImage } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';

/** The block of the 100 bytes that `beginCopy` writes. */
const WRITTEN = `${IMAGE_BYTES / 2} 4096\n`;
const SUMMARY = 'disk: users modified 4 KiB of 1 MiB in 1 extent\n';

describe('lists the extents that users modified', () => {
  test.each([
    { where: 'of a copy that was closed', make: leaveCopy },
    { where: 'of a copy that was killed', make: crashCopy },
  ])('$where, and changes nothing', async ({ make }) => {
    const directory = temporaryDirectory();
    await make(makeImage(directory), directory);
    const before = contentsOf(directory);
    const result = await runCommand(['changes', 'disk'], { cwd: directory });
    expect(result).toMatchObject({ exitCode: 0, stdout: WRITTEN, stderr: SUMMARY });
    expect(contentsOf(directory)).toEqual(before);
  });

  test('of a copy in use', async () => {
    const directory = temporaryDirectory();
    const copy = await beginCopy(makeImage(directory), join(directory, 'disk'));
    const result = await runCommand(['changes', 'disk'], { cwd: directory });
    expect(result).toMatchObject({ exitCode: 0, stdout: WRITTEN });
    await copy.close();
  });

  test('in whole blocks, merged, up to the end of the image, as lines or as JSON', async () => {
    const directory = temporaryDirectory();
    const size = 16 * 8192 + 100;
    writeFileSync(join(directory, 'image'), new Uint8Array(size).fill(1));
    const source = await fileSource(join(directory, 'image'));
    const options = { source, fileSystem: nodeFileSystem(directory), target: 'disk', hydrate: false } as const;
    const device = await openDevice({ ...options, blockSize: 8192 });
    await device.read(new Uint8Array(3 * 8192), 0);
    const extents = [
      [8000, 200],
      [5 * 8192, 8192],
      [6 * 8192 + 1, 1],
      [size - 1, 1],
    ] as const;
    for (const [offset, length] of extents) await device.write(new Uint8Array(length), offset);
    await device.close();
    await source.close();
    const expected = [
      [0, 2 * 8192],
      [5 * 8192, 2 * 8192],
      [16 * 8192, 100],
    ] as const;
    const text = await runCommand(['changes', 'disk'], { cwd: directory });
    expect(text.stdout).toBe(expected.map(([offset, length]) => `${offset} ${length}\n`).join(''));
    const json = await runCommand(['changes', 'disk', '--json'], { cwd: directory });
    expect(json).toMatchObject({ exitCode: 0, stderr: '' });
    expect(eventsOf(json)).toEqual([
      ...expected.map(([offset, length]) => ({ event: 'changed', offset, length })),
      { event: 'done', target: 'disk', size, extents: 3, bytes: 4 * 8192 + 100 },
    ]);
  });

  test('which are none before the first write', async () => {
    const directory = temporaryDirectory();
    makeImage(directory);
    // The digest is wrong, so the complete copy keeps its metadata.
    await runCommand(['copy', 'image', 'disk', '--sha256', 'ab'.repeat(32)], { cwd: directory });
    const result = await runCommand(['changes', 'disk'], { cwd: directory });
    expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: 'disk: users modified nothing\n' });
  });

  test('which are all copied blocks of format 1, and says so', async () => {
    const directory = temporaryDirectory();
    cpSync(fileURLToPath(new URL('../fixtures/golden/full/', import.meta.url)), directory, { recursive: true });
    writeFileSync(join(directory, 'disk.raw'), new Uint8Array(2 ** 28));
    const result = await runCommand(['changes', 'disk.raw'], { cwd: directory });
    expect(result).toMatchObject({ exitCode: 0, stdout: `0 ${2 ** 28}\n` });
    expect(result.stderr).toContain('format 1 does not say who wrote a block');
  });
});

test.each([
  { name: 'a file without metadata', target: 'image', exitCode: 1, code: 'COD_NOT_FOUND' },
  { name: 'a path where nothing is', target: 'none', exitCode: 1, code: 'COD_NOT_FOUND' },
  { name: 'an empty path', target: '', exitCode: 2, code: 'UsageError' },
])('refuses $name', async ({ target, exitCode, code }) => {
  const directory = temporaryDirectory();
  makeImage(directory);
  const result = await runCommand(['changes', target, '--json'], { cwd: directory });
  expect(result.exitCode).toBe(exitCode);
  expect(result.stderr).toMatch(/^copyondemand: .+\n$/);
  expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
});
