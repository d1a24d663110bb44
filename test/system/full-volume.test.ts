/** Real file systems without a free byte: what is allocated stays writable, and so do flushes and checkpoints. */

import { closeSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { isCodError } from '../../src/errors.ts';
import { bytesSource, type Device, openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { mountVolume, obstacleToVolumes, runTool, type VolumeType, volumeTools } from '../support/loop-volume.ts';
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

/** Fills a file system to its last byte, and returns a function that makes room again. */
function fill(directory: string): () => void {
  const path = join(directory, 'filler');
  const file = openSync(path, 'w');
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
        // btrfs has no room for the last checkpoint.
        await device.close().catch((error: unknown) => expect(error).toMatchObject({ code: 'COD_NO_SPACE' }));
        for (const mode of ['rw', 'ro']) {
          runTool('mount', '-o', `remount,${mode}`, mounted);
          const reader = await open(true);
          await expectModel(reader);
          await reader.flush();
          await reader.close();
        }
        await expect(open()).rejects.toMatchObject({ code: 'COD_TARGET_IO', details: { errno: 'EROFS' } });
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
        expect(device.status().state).not.toBe('failed');
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
    test('refuses with COD_NO_SPACE, since overwriting needs room, and loses nothing', async () => {
      const { device, write, writeAgain, makeRoom, expectModel, open } = await prepare('btrfs');
      const refusals = new Set<string>();
      for (let round = 0; round < 600; round++) {
        for (const step of [writeAgain, () => device.flush(), () => device.checkpoint()]) {
          try {
            await step();
          } catch (error) {
            if (!isCodError(error)) throw error;
            refusals.add(error.code);
          }
        }
      }
      expect([...refusals]).toEqual(['COD_NO_SPACE']);
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
