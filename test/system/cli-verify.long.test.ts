/** `verify` as a process: what it finds, what it leaves out, and what it refuses. */

import { closeSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { eventsOf, runCommand, runUntil, startCommand } from '../cli/command.ts';
import { crashCopy, IMAGE_BYTES, imageBytes, leaveCopy, makeImage, makeSparse } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { HostileServer } from '../support/http-server.ts';

const EXTENT = 65_536;

/** Turns over a bit of a file. */
function flip(path: string, offset: number): void {
  const file = openSync(path, 'r+');
  const byte = new Uint8Array(1);
  readSync(file, byte, 0, 1, offset);
  writeSync(file, Uint8Array.of(byte[0]! ^ 1), 0, 1, offset);
  closeSync(file);
}

/** A directory with an image, its manifest, and a finished copy. */
async function finished(): Promise<string> {
  const directory = temporaryDirectory();
  makeImage(directory);
  for (const args of [
    ['manifest', 'image', 'm'],
    ['copy', 'image', 'disk'],
  ])
    expect(await runCommand(args, { cwd: directory })).toMatchObject({ exitCode: 0 });
  return directory;
}

const WITH_MANIFEST = ['verify', 'disk', '--manifest', 'm'];
const WITH_SOURCE = ['verify', 'image', 'disk'];
const WITH_BOTH = ['verify', 'image', 'disk', '--manifest', 'm'];

describe('a finished copy', () => {
  test.each([{ args: WITH_MANIFEST }, { args: WITH_SOURCE }, { args: WITH_BOTH }])(
    'matches, and one flipped bit is found: $args',
    async ({ args }) => {
      const directory = await finished();
      const before = contentsOf(directory);
      const right = await runCommand(args, { cwd: directory });
      expect(right).toMatchObject({ exitCode: 0, stdout: '', stderr: 'disk: 1 MiB match\n' });
      expect(contentsOf(directory)).toEqual(before);
      flip(join(directory, 'disk'), 333_333);
      const wrong = await runCommand([...args, '--json'], { cwd: directory });
      expect(wrong.exitCode).toBe(1);
      expect(wrong.stderr).toMatch(/^copyondemand: COD_MISMATCH: disk: .+ in 1 extent do not match: .+\n$/);
      const [offset, length] = args === WITH_MANIFEST ? [5 * EXTENT, EXTENT] : [81 * 4096, 4096];
      expect(eventsOf(wrong).filter(({ event }) => event !== 'progress')).toMatchObject([
        { event: 'mismatch', offset, length },
        { event: 'error', code: 'COD_MISMATCH', details: { target: 'disk', extents: 1, bytes: length } },
      ]);
      expect(await runCommand(args, { cwd: directory })).toMatchObject({
        exitCode: 1,
        stdout: `${offset} ${length}\n`,
      });
    },
  );

  test('extents that differ are ascending and merged', async () => {
    const directory = await finished();
    for (const extent of [0, 1, 7, 14, 15]) flip(join(directory, 'disk'), extent * EXTENT + 5);
    const { stdout } = await runCommand(WITH_MANIFEST, { cwd: directory });
    expect(stdout).toBe(`0 ${2 * EXTENT}\n${7 * EXTENT} ${EXTENT}\n${14 * EXTENT} ${2 * EXTENT}\n`);
  });

  test('is compared with an HTTP source, and with a lying one only as far as its manifest says', async () => {
    const directory = await finished();
    const image = imageBytes();
    const server = await HostileServer.start(image, ({ start, end, send }) => {
      const body = image.slice(start, end);
      if (start <= 70_000 && end > 70_000) body[70_000 - start]! ^= 1;
      send({ body });
    });
    onTestFinished(() => server.stop());
    const plain = await runCommand(['verify', server.url, 'disk'], { cwd: directory });
    expect(plain).toMatchObject({ exitCode: 1, stdout: `${17 * 4096} 4096\n` });
    const verified = await runCommand(['verify', server.url, 'disk', '--manifest', 'm'], { cwd: directory });
    expect(verified).toMatchObject({ exitCode: 1, stdout: '' });
    expect(verified.stderr).toContain('of the source do not match the manifest');
  });

  test('an interrupted run says where to continue, and the next one does', async () => {
    const directory = temporaryDirectory();
    makeSparse(join(directory, 'image'), 2 ** 25);
    makeSparse(join(directory, 'disk'), 2 ** 25);
    flip(join(directory, 'disk'), 0);
    flip(join(directory, 'disk'), 2 ** 25 - 1);
    await runCommand(['manifest', 'image', 'm'], { cwd: directory });
    const args = ['verify', join(directory, 'disk'), '--manifest', join(directory, 'm')];
    const first = await runUntil([...args, '--rate', '1M'], 'SIGINT', ({ event }) => event === 'progress');
    expect(first.exitCode).toBe(130);
    const from = Number(/continue with --from (\d+)\n$/.exec(first.stderr)![1]);
    expect(from % EXTENT).toBe(0);
    expect(from).toBeGreaterThan(0);
    expect(eventsOf(first)).toContainEqual({ event: 'mismatch', offset: 0, length: EXTENT });
    const second = await runCommand([...args, '--from', String(from)]);
    expect(second).toMatchObject({ exitCode: 1, stdout: `${2 ** 25 - EXTENT} ${EXTENT}\n` });
  });
});

describe('a copy with metadata', () => {
  /** `beginCopy` copies the first quarter, and writes to a block of the third. */
  test.each([
    { where: 'that was closed', make: leaveCopy },
    { where: 'that was killed', make: crashCopy },
  ])('$where is compared as far as it was copied and not modified', async ({ make }) => {
    const directory = temporaryDirectory();
    await make(makeImage(directory), directory);
    await runCommand(['manifest', 'image', 'm'], { cwd: directory });
    flip(join(directory, 'disk'), IMAGE_BYTES / 2 + 20);
    flip(join(directory, 'disk'), IMAGE_BYTES - 1);
    for (const args of [WITH_MANIFEST, WITH_SOURCE]) {
      const right = await runCommand([...args, '--json'], { cwd: directory });
      expect(right).toMatchObject({ exitCode: 0 });
      expect(eventsOf(right).at(-1)).toEqual({
        event: 'done',
        target: 'disk',
        size: IMAGE_BYTES,
        bytes: IMAGE_BYTES / 4,
        skippedBytes: (IMAGE_BYTES / 4) * 3,
      });
    }
    flip(join(directory, 'disk'), IMAGE_BYTES / 4 - 1);
    for (const args of [WITH_MANIFEST, WITH_SOURCE])
      expect(await runCommand(args, { cwd: directory })).toMatchObject({ exitCode: 1 });
  });

  test('in use: what users write meanwhile is not wrong, and a flipped bit is', async () => {
    const directory = temporaryDirectory();
    const size = 2 ** 23;
    writeFileSync(join(directory, 'image'), Buffer.alloc(size, imageBytes()));
    await runCommand(['manifest', 'image', 'm'], { cwd: directory });
    const source = await fileSource(join(directory, 'image'));
    const device = await openDevice({ source, fileSystem: nodeFileSystem(directory), target: 'disk' });
    onTestFinished(async () => {
      await device.close();
      await source.close();
    });
    await device.hydrated;
    flip(join(directory, 'disk'), 3 * 2 ** 20);
    let written: Promise<void> | undefined;
    const verifying = startCommand([...WITH_MANIFEST, '--rate', '2M', '--json'], {
      cwd: directory,
      onLine: (line) => {
        if (line.includes('"progress"')) written ??= device.write(new Uint8Array(4096), size - 4096);
      },
    });
    const result = await verifying.result;
    await written;
    expect(written).toBeDefined();
    expect(result.exitCode).toBe(1);
    expect(eventsOf(result).filter(({ event }) => event === 'mismatch')).toEqual([
      { event: 'mismatch', offset: 3 * 2 ** 20, length: EXTENT },
    ]);
    flip(join(directory, 'disk'), 3 * 2 ** 20);
    const again = await runCommand([...WITH_MANIFEST, '--json'], { cwd: directory });
    expect(eventsOf(again).at(-1)).toMatchObject({ event: 'done', skippedBytes: EXTENT });
    const bySource = await runCommand([...WITH_SOURCE, '--json'], { cwd: directory });
    expect(eventsOf(bySource).at(-1)).toMatchObject({ event: 'done', skippedBytes: 4096 });
  });
});

describe('refuses', () => {
  test.each([
    { name: 'a copy without SOURCE and manifest', args: ['verify', 'disk'], exitCode: 2, code: 'UsageError' },
    { name: 'an empty TARGET', args: ['verify', 'image', ''], exitCode: 2, code: 'UsageError' },
    {
      name: 'a root alone',
      args: [...WITH_SOURCE, '--manifest-root', 'a'.repeat(64)],
      exitCode: 2,
      code: 'UsageError',
    },
    { name: 'an option of another source', args: [...WITH_SOURCE, '--netrc'], exitCode: 2, code: 'UsageError' },
    { name: 'a TARGET that is missing', args: ['verify', 'image', 'none'], exitCode: 1, code: 'COD_NOT_FOUND' },
    { name: 'a source that is missing', args: ['verify', 'none', 'disk'], exitCode: 1, code: 'COD_NOT_FOUND' },
    {
      name: 'a manifest that is missing',
      args: ['verify', 'disk', '--manifest', 'no'],
      exitCode: 1,
      code: 'COD_NOT_FOUND',
    },
    { name: 'no manifest', args: ['verify', 'disk', '--manifest', 'image'], exitCode: 1, code: 'COD_CORRUPT' },
    { name: 'another size', args: ['verify', 'half', '--manifest', 'm'], exitCode: 1, code: 'COD_SIZE_MISMATCH' },
    { name: 'a source of another size', args: ['verify', 'half', 'disk'], exitCode: 1, code: 'COD_SIZE_MISMATCH' },
    {
      name: 'another root',
      args: [...WITH_MANIFEST, '--manifest-root', 'ab'.repeat(32)],
      exitCode: 1,
      code: 'COD_MISMATCH',
    },
  ])('$name', async ({ args, exitCode, code }) => {
    const directory = await finished();
    writeFileSync(join(directory, 'half'), imageBytes().subarray(0, IMAGE_BYTES / 2));
    const before = contentsOf(directory);
    const result = await runCommand([...args, '--json'], { cwd: directory });
    expect(result.exitCode).toBe(exitCode);
    expect(result.stderr).toMatch(/^copyondemand: .+\n$/);
    expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
    expect(contentsOf(directory)).toEqual(before);
  });
});
