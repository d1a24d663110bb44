/** Real file systems without a free byte: what is allocated stays writable, and so do flushes and checkpoints. */

import { spawnSync } from 'node:child_process';
import { closeSync, fsyncSync, openSync, readdirSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bytesSource, type Device, openDevice, type Source } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { bundleForNode } from '../support/bundle.ts';
import { expectBytes } from '../support/bytes.ts';
import { mountVolume, obstacleToVolumes, runTool, type VolumeType, volumeTools } from '../support/loop-volume.ts';
import { type LostVolumeOrder, lostVolumeWrites } from '../support/lost-volume-load.ts';
import { describeWith } from '../support/tools.ts';

const BLOCK = 4096;
const BLOCKS = 2048;
/** Blocks that are written whole, and those after them of which parts are written. The rest has no room. */
const WHOLE = 100;
const PARTS = 100;
const PART_BYTES = 8;
/** As few as `mkfs.xfs` accepts. */
const VOLUME_BYTES = 320 * 2 ** 20;
const IMAGE = seededRandom(1).fill(new Uint8Array(BLOCKS * BLOCK));

const SPARE = 'disk.lock.spare';

/** Fills a file system to its last byte, and returns a function that makes room again. */
function fill(directory: string): () => void {
  const path = join(directory, 'filler');
  const file = openSync(path, 'a');
  for (const length of [2 ** 20, 2 ** 16, BLOCK, 512, 1]) {
    // A sync frees what was reserved and not needed.
    for (let isFull = false; !isFull; ) {
      isFull = true;
      try {
        for (; writeSync(file, new Uint8Array(length)) === length; isFull = false);
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' });
      }
      try {
        fsyncSync(file);
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' });
      }
    }
  }
  closeSync(file);
  return () => rmSync(path);
}

function expectSpare(directory: string): void {
  expect(statSync(join(directory, SPARE))).toMatchObject({ size: 262_144, mode: 0o100_600 });
}

/** Completes the copy and removes all that lies beside it. */
async function finish(directory: string, source: Source): Promise<void> {
  const device = await openDevice({ source, fileSystem: nodeFileSystem(directory), target: 'disk' });
  expectSpare(directory);
  await device.hydrated;
  await device.finish();
  expect(readdirSync(directory).filter((name) => name.startsWith('disk'))).toEqual(['disk']);
}

const reason = obstacleToVolumes();

describe.skipIf(reason !== undefined)(reason === undefined ? 'a full volume' : `a full volume (${reason})`, () => {
  /** Opens a device with some blocks written and others in part, and both slots in use; then fills the volume. */
  async function prepare(type: VolumeType) {
    const { mounted } = mountVolume(type, VOLUME_BYTES);
    const open = (readOnly = false): Promise<Device> =>
      openDevice({
        readOnly,
        source: bytesSource(IMAGE, { identity: 'image' }),
        fileSystem: nodeFileSystem(mounted),
        target: 'disk',
        hydrate: false,
      });
    const device = await open();
    onTestFinished(() => device.close().catch(() => undefined));
    const model = IMAGE.slice();
    const random = seededRandom(2);
    const write = async (length: number, offset: number): Promise<void> => {
      const bytes = random.fill(new Uint8Array(length));
      await device.write(bytes, offset);
      model.set(bytes, offset);
    };
    const partOf = (block: number): number => (WHOLE + block) * BLOCK + 512;
    await write(WHOLE * BLOCK, 0);
    for (let block = 0; block < PARTS; block++) await write(PART_BYTES, partOf(block));
    await device.checkpoint();
    await write(PART_BYTES, partOf(0));
    await device.checkpoint();
    await write(PART_BYTES, partOf(0));
    await device.flush();
    await write(PART_BYTES, partOf(1));
    const makeRoom = fill(mounted);
    /** Writes a block that is synced, and a part that is recorded again. */
    const writeAgain = async (): Promise<void> => {
      await write(BLOCK, random.below(WHOLE) * BLOCK);
      await write(PART_BYTES, partOf(random.below(PARTS)));
    };
    const expectModel = async (found: Device): Promise<void> => {
      const bytes = new Uint8Array(IMAGE.length);
      await found.read(bytes, 0);
      expectBytes(bytes, model);
    };
    return { mounted, device, write, writeAgain, makeRoom, expectModel, open };
  }

  for (const type of ['ext4', 'xfs', 'btrfs'] as const) {
    describeWith(volumeTools(type), `of ${type}`, () => {
      test('is no obstacle to reading, and neither is one that is mounted read-only', async () => {
        const { mounted, device, expectModel, open } = await prepare(type);
        await device.close();
        for (const mode of ['rw', 'ro']) {
          runTool('mount', '-o', `remount,${mode}`, mounted);
          const reader = await open(true);
          await expectModel(reader);
          await reader.flush();
          await reader.close();
        }
        await expect(open()).rejects.toMatchObject({ code: 'COD_TARGET_IO', details: { errno: 'EROFS' } });
      });

      test('is no obstacle to opening a copy that was closed, and to finishing it when there is room', async () => {
        const { mounted, device: before, makeRoom: makeRoomToClose, expectModel, open } = await prepare(type);
        makeRoomToClose();
        await before.close();
        expectSpare(mounted);
        const makeRoom = fill(mounted);
        const device = await open();
        onTestFinished(() => device.close().catch(() => undefined));
        await expectModel(device);
        await device.flush();
        await expectModel(device);
        makeRoom();
        await device.write(new Uint8Array(BLOCK).fill(1), (BLOCKS - 1) * BLOCK);
        await device.close();
        await finish(mounted, bytesSource(IMAGE, { identity: 'image' }));
      });

      test('is no obstacle to opening a copy whose owner was killed, until the room kept back is used up', async () => {
        const { folder, mounted } = mountVolume(type, VOLUME_BYTES);
        const order: LostVolumeOrder = {
          source: join(folder, 'image'),
          directory: mounted,
          size: IMAGE.length,
          seed: 1,
        };
        writeFileSync(order.source, IMAGE);
        const program = await bundleForNode('lost-volume-user.ts');
        const killed = spawnSync(process.execPath, [program, JSON.stringify(order)], { encoding: 'utf8' });
        expect([killed.signal, killed.stderr]).toEqual(['SIGKILL', '']);
        expect(readdirSync(mounted)).toContain('disk.lock');
        expectSpare(mounted);
        const { flushed, unflushed } = lostVolumeWrites(order);
        const model = IMAGE.slice();
        for (const { offset, length, seed } of [...flushed, ...unflushed])
          model.set(seededRandom(seed).fill(new Uint8Array(length)), offset);
        const source = await fileSource(order.source);
        onTestFinished(() => source.close());
        const open = (readOnly: boolean): Promise<Device> =>
          openDevice({ source, fileSystem: nodeFileSystem(mounted), target: 'disk', hydrate: false, readOnly });
        const expectModel = async (device: Device): Promise<void> => {
          const bytes = new Uint8Array(IMAGE.length);
          await device.read(bytes, 0);
          expectBytes(bytes, model);
        };

        const makeRoom = fill(mounted);
        const device = await open(false);
        onTestFinished(() => device.close().catch(() => undefined));
        // What the opening left of it.
        expect(statSync(join(mounted, SPARE)).size).toBeGreaterThan(0);
        await expectModel(device);
        const { offset, length } = flushed[0]!;
        const bytes = new Uint8Array(length).fill(9);
        if (type === 'btrfs') {
          await expect(device.write(bytes, offset)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
        } else {
          await device.write(bytes, offset);
          model.set(bytes, offset);
        }
        await device.flush();
        await expectModel(device);
        await device.close();

        // An older version kept nothing back.
        rmSync(join(mounted, SPARE));
        fill(mounted);
        await expect(open(false)).rejects.toMatchObject({
          code: 'COD_NO_SPACE',
          message: expect.stringMatching(/disk\.lock.*ENOSPC.*make room, or open the copy with `readOnly`$/),
        });
        const reader = await open(true);
        await expectModel(reader);
        await reader.close();
        makeRoom();
        await finish(mounted, source);
      });
    });
  }

  for (const type of ['ext4', 'xfs'] as const) {
    describeWith(volumeTools(type), `of ${type}`, () => {
      test('takes writes of allocated bytes, flushes and checkpoints without end', async () => {
        const { device, write, writeAgain, makeRoom, expectModel, open } = await prepare(type);
        for (let round = 0; round < 600; round++) {
          await writeAgain();
          await device.flush();
          if (round % 20 === 0) await device.checkpoint();
        }
        // Without checkpoints of ours, the log needs more than was allocated.
        for (let count = 0; count < 6000; count++) await writeAgain();
        await expect(write(BLOCK, (BLOCKS - 1) * BLOCK)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
        await expect(write(600 * BLOCK, (BLOCKS - 700) * BLOCK)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
        await device.flush();
        expect(device.status().state).not.toBe('poisoned');
        await expectModel(device);
        makeRoom();
        await write(BLOCK, (BLOCKS - 1) * BLOCK);
        await writeAgain();
        await device.checkpoint();
        await expectModel(device);
        await device.close();
        const again = await open();
        await expectModel(again);
        await again.close();
      });
    });
  }

  describeWith(volumeTools('btrfs'), 'of btrfs', () => {
    test('takes flushes and checkpoints, refuses writes with COD_NO_SPACE, and loses nothing', async () => {
      const { device, write, writeAgain, makeRoom, expectModel, open } = await prepare('btrfs');
      // There is a record to flush, and a state to write.
      await device.flush();
      await device.checkpoint();
      // Overwriting needs room, too, so there is nothing more to flush.
      for (let round = 0; round < 600; round++) {
        await expect(writeAgain()).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
        await device.flush();
        await device.checkpoint();
      }
      makeRoom();
      await write(WHOLE * BLOCK, 0);
      for (let block = 0; block < PARTS; block++) await write(PART_BYTES, (WHOLE + block) * BLOCK + 512);
      await device.flush();
      await expectModel(device);
      await device.close();
      const again = await open();
      await expectModel(again);
      await again.close();
    });
  });
});
