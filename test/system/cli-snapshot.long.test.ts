/** `snapshot` as a process, with and without an owner, and clones on file systems with reflinks. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statfsSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bytesSource, inspectMetadata, openDevice } from '../../src/index.ts';
import { nbdSource } from '../../src/nbd.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { fileSystemSuite, seededRandom } from '../../src/testing/index.ts';
import { type Running, runCommand, startCommand } from '../cli/command.ts';
import { crashCopy, IMAGE_BYTES, imageBytes, makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { mountVolume, obstacleToVolumes, volumeTools } from '../support/loop-volume.ts';
import { describeWith } from '../support/tools.ts';

/** What {@link crashCopy} leaves: 100 bytes are written, and all else is the image. */
const CRASHED = imageBytes().fill(0xaa, IMAGE_BYTES / 2 + 10, IMAGE_BYTES / 2 + 110);

/** Completes the snapshot from its source, and compares it. */
async function expectSnapshot(directory: string, name: string, content: Uint8Array): Promise<void> {
  const result = await runCommand(['copy', 'image', name, '--quiet'], { cwd: directory });
  expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  expectBytes(readFileSync(join(directory, name)), content);
}

async function serve(directory: string, ...flags: string[]): Promise<Running> {
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const args = ['serve', 'image', 'disk', '--socket', 's', '--no-hydrate', '--quiet', ...flags];
  const server = startCommand(args, { cwd: directory, onLine: () => listening() });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await Promise.race([ready, server.result]);
  return server;
}

test('the owner takes the snapshot while it serves', async () => {
  const directory = temporaryDirectory();
  await crashCopy(makeImage(directory), directory);
  const server = await serve(directory);
  const { exitCode, stdout } = await runCommand(['snapshot', 'disk', 'snap', '--json'], { cwd: directory });
  expect(JSON.parse(stdout)).toEqual({ event: 'done', target: 'disk', to: 'snap', pid: server.child.pid });
  expect(exitCode).toBe(0);
  expect(
    readdirSync(directory)
      .filter((name) => name.startsWith('snap'))
      .sort(),
  ).toEqual(['snap', 'snap.bak.1']);
  expect(statSync(join(directory, 'snap')).mode & 0o077).toBe(0);
  await expectSnapshot(directory, 'snap', CRASHED);
  // The owner serves as before, and is asked by another path as well.
  const source = await nbdSource(`nbd+unix:///?socket=${join(directory, 's')}`);
  const bytes = new Uint8Array(IMAGE_BYTES);
  await source.read(bytes, 0);
  expectBytes(bytes, CRASHED);
  await source.close();
  const again = await runCommand(['snapshot', join(directory, 'disk'), join(directory, 'snap2')]);
  expect(again).toMatchObject({ exitCode: 0, stdout: '' });
  expect(again.stderr).toContain(`${join(directory, 'snap2')}: a snapshot of ${join(directory, 'disk')}`);
  await expectSnapshot(directory, 'snap2', CRASHED);
});

test('of an owner that was killed, the command takes the snapshot itself', async () => {
  const directory = temporaryDirectory();
  await crashCopy(makeImage(directory), directory);
  const server = await serve(directory);
  server.child.kill('SIGKILL');
  await server.result;
  const result = await runCommand(['snapshot', 'disk', 'snap', '--json'], { cwd: directory });
  expect(JSON.parse(result.stdout)).toEqual({ event: 'done', target: 'disk', to: 'snap', pid: null });
  expect(readdirSync(directory).filter((name) => name.match(/\.lock(?!\.spare)/))).toEqual([]);
  await expectSnapshot(directory, 'snap', CRASHED);
  await expectSnapshot(directory, 'disk', CRASHED);
});

test('an owner that is killed meanwhile leaves no snapshot that opens', async () => {
  const directory = temporaryDirectory();
  const size = 256 * 2 ** 20;
  writeFileSync(join(directory, 'image'), new Uint8Array(size).fill(1));
  const args = ['serve', 'image', 'disk', '--socket', 's', '--quiet'];
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const server = startCommand(args, { cwd: directory, onLine: () => listening() });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await ready;
  let done = false;
  while (!done) {
    const { stdout } = await runCommand(['status', 'disk', '--json'], { cwd: directory });
    done = (JSON.parse(stdout) as { state: string }).state === 'hydrated';
  }
  const taking = startCommand(['snapshot', 'disk', 'snap'], { cwd: directory });
  while (!readdirSync(directory).includes('snap')) await new Promise(setImmediate);
  server.child.kill('SIGKILL');
  const { exitCode, stderr } = await taking.result;
  // A clone may have ended before.
  if (exitCode === 0) return;
  expect(stderr).toMatch(/^copyondemand: COD_NOT_RUNNING: /);
  const copy = await runCommand(['copy', 'image', 'snap', '--quiet'], { cwd: directory });
  expect(copy.stderr).toContain('COD_INCOMPLETE');
  const again = await runCommand(['snapshot', 'disk', 'snap'], { cwd: directory });
  expect(again.stderr).toMatch(/COD_EXISTS: snap\.bak: an unfinished snapshot: remove it/);
  const removed = await runCommand(['remove', 'snap', '--yes'], { cwd: directory });
  expect(removed).toMatchObject({ exitCode: 0 });
  expect(await runCommand(['snapshot', 'disk', 'snap'], { cwd: directory })).toMatchObject({ exitCode: 0 });
});

test('wrong calls are refused, with and without an owner, and change nothing', async () => {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, 'other'));
  symlinkSync('.', join(directory, 'same'));
  await crashCopy(makeImage(directory), directory);
  writeFileSync(join(directory, 'mine'), 'my notes');
  const files = (): string[] => readdirSync(directory).filter((name) => !name.startsWith('disk.'));
  const calls = [
    [['disk', 'other/snap'], 2, /TO must be another name in the directory of TARGET/],
    [['disk', 'disk'], 2, /TO must be another name/],
    [['disk', ''], 2, /give the paths/],
    [['disk', 'mine'], 1, /COD_EXISTS: mine: the file exists/],
    [['disk', 'missing/snap'], 1, /COD_NOT_FOUND/],
    [['mine', 'snap'], 1, /COD_NOT_FOUND: mine has no metadata/],
    [['nothing', 'snap'], 1, /COD_NOT_FOUND/],
  ] as const;
  const before = files();
  for (const owned of [false, true]) {
    const server = owned ? await serve(directory) : undefined;
    for (const [args, exitCode, stderr] of calls) {
      const result = await runCommand(['snapshot', ...args], { cwd: directory });
      expect(result.stderr, args.join(' ')).toMatch(stderr);
      expect(result.exitCode).toBe(exitCode);
    }
    expect(files().filter((name) => name !== 's')).toEqual(before.filter((name) => name !== 's'));
    server?.child.kill('SIGKILL');
    await server?.result;
  }
  // The same directory by another path.
  expect(await runCommand(['snapshot', 'disk', 'same/snap'], { cwd: directory })).toMatchObject({ exitCode: 0 });
  await expectSnapshot(directory, 'snap', CRASHED);
});

const reason = obstacleToVolumes();
const MIB = 2 ** 20;

describe.skipIf(reason !== undefined)(reason === undefined ? 'on a volume' : `on a volume (${reason})`, () => {
  for (const type of ['xfs', 'btrfs', 'ext4'] as const) {
    describeWith(volumeTools(type), type, () => {
      test(`a snapshot ${type === 'ext4' ? 'copies' : 'shares'} the bytes, and stays as it is`, async () => {
        const { mounted } = mountVolume(type, 400 * MIB);
        mkdirSync(join(mounted, 'empty'));
        for (const { name, run } of fileSystemSuite(() => nodeFileSystem(join(mounted, 'empty'))))
          if (name.startsWith('a clone')) await run();
        const image = seededRandom(1).fill(new Uint8Array(64 * MIB));
        const source = bytesSource(image, { identity: 'image' });
        const fileSystem = nodeFileSystem(mounted);
        const device = await openDevice({ source, fileSystem, target: 'disk' });
        await device.hydrated;
        await device.write(new Uint8Array(4096).fill(7), 8192);
        await device.checkpoint();
        execFileSync('sync', ['-f', mounted]);
        const used = (): number => {
          const { blocks, bfree, bsize } = statfsSync(mounted);
          return (blocks - bfree) * bsize;
        };
        const before = used();
        await device.snapshot('snap');
        execFileSync('sync', ['-f', mounted]);
        if (type === 'ext4') expect(used() - before).toBeGreaterThan(60 * MIB);
        else expect(used() - before).toBeLessThan(16 * MIB);
        await device.write(new Uint8Array(4096).fill(8), 8192);
        await device.close();
        const expected = image.slice().fill(7, 8192, 12_288);
        expectBytes(readFileSync(join(mounted, 'snap')), expected);
        expect(await inspectMetadata(fileSystem, 'snap')).toMatchObject({
          syncedBlocks: (64 * MIB) / 4096,
          modified: [[2, 2]],
        });
      });
    });
  }
});
