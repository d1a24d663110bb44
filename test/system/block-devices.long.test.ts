/** Block devices as targets: a device holds any bytes, has a size of its own, and may be in use. */

import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Device, openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { eventsOf, type Result, runCommand, runUntil } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { makeBlockDevice, obstacleToVolumes, runTool, unmount } from '../support/loop-volume.ts';
import { startServe } from '../support/programs.ts';
import { describeWith } from '../support/tools.ts';

const MIB = 2 ** 20;
const IMAGE_BYTES = 8 * MIB;
const DEVICE_BYTES = 10 * MIB;

/** Half of it zeros, which a copy does not write where it knows that the target is new. */
const IMAGE = seededRandom(1)
  .fill(new Uint8Array(IMAGE_BYTES))
  .fill(0, MIB, 5 * MIB);
const GARBAGE = seededRandom(2).fill(new Uint8Array(DEVICE_BYTES));
/** What the device reads as when it has a copy of the image. */
const COPIED = new Uint8Array([...IMAGE, ...GARBAGE.subarray(IMAGE_BYTES)]);

function makePlace(content = GARBAGE): {
  directory: string;
  device: string;
  run: (...args: string[]) => Promise<Result>;
} {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'image'), IMAGE);
  const run = (...args: string[]): Promise<Result> => runCommand(args, { cwd: directory });
  return { directory, device: makeBlockDevice(content), run };
}

const reason = obstacleToVolumes();
const name = reason === undefined ? 'a block device as a target' : `a block device as a target (${reason})`;

describe.skipIf(reason !== undefined)(name, () => {
  describeWith(['losetup', 'mount', 'umount', 'mkfs.ext4', 'mknod'], 'on loop devices', () => {
    test('ten killed copies and one more make it equal to the image, whatever it held', async () => {
      const { directory, device, run } = makePlace();
      const copy = ['copy', 'image', device, '--metadata', 'meta'];
      for (let life = 0; life < 10; life++) {
        const args = [...copy, '--rate', '1M'].map((arg) => (arg === 'image' ? join(directory, arg) : arg));
        args[args.indexOf('meta')] = join(directory, 'meta');
        const { signal } = await runUntil(args, 'SIGKILL', ({ event }) => event === 'progress');
        expect(signal).toBe('SIGKILL');
      }
      const sha256 = createHash('sha256').update(IMAGE).digest('hex');
      expect(await run(...copy, '--sha256', sha256)).toMatchObject({ exitCode: 0 });
      expectBytes(new Uint8Array(readFileSync(device)), COPIED);
      expect(readdirSync(directory)).toEqual(['image']);

      const again = await run(...copy);
      expect(again.exitCode).toBe(1);
      expect(again.stderr).toContain(`COD_EXISTS: ${device} seems to hold this image`);
      expect(await run(...copy, '--sha256', sha256)).toMatchObject({ exitCode: 0 });
    });

    test('its discarded, zeroed and partly written blocks read back, also after it was opened again', async () => {
      const { directory, device: target } = makePlace();
      const source = await fileSource(join(directory, 'image'));
      onTestFinished(() => source.close());
      const fileSystem = nodeFileSystem(directory);
      const open = (): Promise<Device> => openDevice({ source, fileSystem, target, metadata: 'meta', hydrate: false });
      const expected = IMAGE.slice();
      let device = await open();
      await device.write(new Uint8Array(700).fill(0xee), 100_000);
      expected.fill(0xee, 100_000, 100_700);
      await device.discard(6 * MIB, MIB);
      expected.fill(0, 6 * MIB, 7 * MIB);
      await device.writeZeroes(200_001, 9000);
      expected.fill(0, 200_001, 209_001);
      await expect(device.snapshot(`${target}-snapshot`)).rejects.toMatchObject({ code: 'COD_UNSUPPORTED' });
      for (const again of [false, true]) {
        if (again) {
          await device.close();
          device = await open();
        }
        const found = new Uint8Array(IMAGE_BYTES);
        await device.read(found, 0);
        expectBytes(found, expected);
      }
      await device.close();
      const complete = await openDevice({ source, fileSystem, target, metadata: 'meta' });
      await complete.hydrated;
      await complete.finish();
      expectBytes(new Uint8Array(readFileSync(target)).subarray(0, IMAGE_BYTES), expected);
    });

    test('--grow gives the copy the size of the device, with zeros behind the image', async () => {
      const { directory, device, run } = makePlace();
      const copy = ['copy', 'image', device, '--metadata', 'meta'];
      const grown = [...copy, '--grow', '--sha256', createHash('sha256').update(IMAGE).digest('hex')];
      const result = await run(...grown, '--json');
      expect(result).toMatchObject({ exitCode: 0 });
      expect(eventsOf(result).at(-1)).toMatchObject({ event: 'done', bytes: DEVICE_BYTES });
      expectBytes(new Uint8Array(readFileSync(device)), COPIED.slice().fill(0, IMAGE_BYTES));
      expect(readdirSync(directory)).toEqual(['image']);
      writeFileSync(join(directory, 'file'), '');
      expect(await run('copy', 'image', 'file', '--grow')).toMatchObject({
        exitCode: 2,
        stderr: 'copyondemand: --grow needs a block device as TARGET\n',
      });
    });

    test('what is refused is refused before anything is written', async () => {
      const { directory, device, run } = makePlace();
      const small = makeBlockDevice(GARBAGE.subarray(0, IMAGE_BYTES - 4096));
      const used = makeBlockDevice(new Uint8Array(DEVICE_BYTES));
      runTool('mkfs.ext4', '-q', '-F', used);
      const mounted = join(directory, 'mounted');
      mkdirSync(mounted);
      runTool('mount', used, mounted);
      const before = [device, small].map((path) => readFileSync(path));
      const refusals: [code: string, target: string, ...flags: string[]][] = [
        ['COD_UNSUPPORTED', device],
        ['COD_SIZE_MISMATCH', small, '--metadata', 'meta'],
        ['COD_SIZE_MISMATCH', small, '--metadata', 'meta', '--grow'],
        ['COD_LOCKED', used, '--metadata', 'meta'],
      ];
      for (const [code, target, ...flags] of refusals) {
        const { exitCode, stderr } = await run('copy', 'image', target, ...flags);
        expect([exitCode, stderr]).toEqual([1, expect.stringContaining(`${code}: ${target}`)]);
      }
      await unmount(mounted);
      const content = readFileSync(used);
      const { stderr } = await run('copy', 'image', used, '--metadata', 'meta');
      expect(stderr).toContain(`COD_EXISTS: ${used} seems to hold an ext file system`);
      expect(readdirSync(directory).sort()).toEqual(['image', 'mounted']);
      expect(readdirSync('/dev').filter((found) => found.includes('.lock'))).toEqual([]);
      for (const [at, path] of [device, small].entries()) expect(before[at]!.equals(readFileSync(path))).toBe(true);
      expect(content.equals(readFileSync(used))).toBe(true);
      expect(await run('copy', 'image', used, '--metadata', 'meta', '--overwrite')).toMatchObject({ exitCode: 0 });
      expectBytes(new Uint8Array(readFileSync(used)).subarray(0, IMAGE_BYTES), IMAGE);
    });

    test('a device that another copy or program has is refused, under any name', async () => {
      const { directory, device } = makePlace();
      const image = join(directory, 'image');
      const flags = ['--metadata', join(directory, 'meta'), '--socket', join(directory, 's'), '--no-hydrate'];
      const served = await startServe(image, device, ...flags);
      const before = readFileSync(device);
      const { rdev } = statSync(device);
      const other = join(directory, 'other');
      runTool('mknod', other, 'b', String(rdev >> 8), String(rdev & 0xff));
      for (const target of [device, other])
        for (const command of [['copy'], ['serve', '--socket', join(directory, 's2')]]) {
          const args = [...command, image, target, '--metadata', join(directory, 'another')];
          expect((await runCommand(args)).stderr).toContain(`COD_LOCKED: ${target}`);
        }
      expect(readdirSync(directory).filter((found) => found.startsWith('another') || found === 's2')).toEqual([]);
      expect(before.equals(readFileSync(device))).toBe(true);
      expect(await served.stop()).toMatchObject({ exitCode: 0 });
    });

    test('a device is a source, too, whose content has no version', async () => {
      const { directory, device, run } = makePlace();
      const result = await run('copy', device, 'disk');
      expect(result).toMatchObject({ exitCode: 0, stderr: expect.stringContaining('a block device, which has no') });
      expectBytes(new Uint8Array(readFileSync(join(directory, 'disk'))), GARBAGE);
      const target = makeBlockDevice(new Uint8Array(DEVICE_BYTES));
      expect(await run('copy', device, target, '--metadata', 'meta')).toMatchObject({ exitCode: 0 });
      expectBytes(new Uint8Array(readFileSync(target)), GARBAGE);

      const { rdev } = statSync(device);
      runTool('mknod', join(directory, 'same'), 'b', String(rdev >> 8), String(rdev & 0xff));
      const same = await run('copy', device, 'same', '--metadata', 'meta', '--overwrite');
      expect(same.stderr).toContain('COD_EXISTS: the source');
      expectBytes(new Uint8Array(readFileSync(device)), GARBAGE);
    });

    test('each command finds the metadata by --metadata', async () => {
      const { directory, device: target, run } = makePlace();
      const source = await fileSource(join(directory, 'image'));
      const fileSystem = nodeFileSystem(directory);
      const device = await openDevice({ source, fileSystem, target, metadata: 'meta', hydrate: false });
      await device.write(new Uint8Array(4096).fill(1), 0);
      await device.close();
      await source.close();
      const on = (command: string, ...flags: string[]): Promise<Result> =>
        run(command, target, '--metadata', 'meta', ...flags);
      expect((await on('inspect', '--json')).stdout).toContain('"syncedBlocks":1,');
      expect((await on('status', '--json')).stdout).toContain('"pid":null,"state":"closed"');
      expect((await on('changes')).stdout).toBe('0 4096\n');
      expect((await on('repair')).stdout).toBe(`${target}: nothing is damaged\n`);
      expect((await on('finish')).stderr).toContain('COD_INCOMPLETE');
      expect(await on('export', '--format', '1')).toMatchObject({ exitCode: 0 });
      expect(readdirSync(directory).sort()).toEqual(['image', 'meta.bak', 'meta.lock.spare']);
      const removed = await on('remove', '--yes');
      expect(removed.stderr).toContain('the block device keeps its content\nremoved meta.bak\n');
      expect(readdirSync(directory)).toEqual(['image']);
    });
  });
});
