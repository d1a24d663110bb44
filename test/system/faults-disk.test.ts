/** A disk that is really full during a copy, a write or an open, and then has room again. */

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { isCodError } from '../../src/errors.ts';
import { bytesSource, type Device, openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { eventsOf, runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { nextEvent } from '../support/device-events.ts';
import { canMountDisks, smallDisk } from '../support/small-disk.ts';

const MIB = 2 ** 20;
const BLOCK = 4096;
const SIZE = 16 * MIB + 100;
/** Contains no zero blocks, because zeros would need no room. */
const IMAGE = seededRandom(1).fill(new Uint8Array(SIZE));

async function readAll(device: Device): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

describe.runIf(canMountDisks())('on a full disk', () => {
  const open = async (directory: string, hydrate?: false): Promise<Device> => {
    const device = await openDevice({
      source: bytesSource(IMAGE, { identity: 'image' }),
      fileSystem: nodeFileSystem(directory),
      target: 'disk',
      ...(hydrate === undefined ? {} : { hydrate }),
    });
    onTestFinished(() => device.close().catch(() => undefined));
    return device;
  };

  /** Completes a copy and compares every byte. */
  const finish = async (directory: string, model: Uint8Array): Promise<void> => {
    const device = await open(directory);
    await device.hydrated;
    await device.finish();
    expectBytes(new Uint8Array(readFileSync(join(directory, 'disk'))), model);
    expect(readdirSync(directory)).toEqual(['disk']);
  };

  test('the background copy waits, reads and writes work, and the copy continues when there is room', async () => {
    const disk = smallDisk(6 * MIB);
    const device = await open(disk.directory);
    expect(await nextEvent(device, 'retry')).toMatchObject({ code: 'COD_NO_SPACE' });
    expect(device.status().state).toBe('waiting');
    const { syncedBlocks } = device.status();
    expectBytes(await readAll(device), IMAGE);
    disk.resize(40 * MIB);
    const model = IMAGE.slice();
    const written = seededRandom(2).fill(new Uint8Array(3 * MIB + 5));
    await device.write(written, 10 * MIB + 1);
    model.set(written, 10 * MIB + 1);
    await device.flush();
    await device.hydrated;
    expectBytes(await readAll(device), model);
    await device.close();
    const again = await open(disk.directory, false);
    expect(again.status().syncedBlocks).toBeGreaterThanOrEqual(syncedBlocks);
    await again.close();
    await finish(disk.directory, model);
  });

  test('a failed write rejects, acknowledged writes stay, and the copy completes when there is room', async () => {
    const disk = smallDisk(6 * MIB);
    const model = IMAGE.slice();
    let device = await open(disk.directory, false);
    const random = seededRandom(3);
    const failed: { offset: number; bytes: Uint8Array }[] = [];
    for (let at = 0; failed.length < 20; at += 40 * BLOCK + 1234) {
      const bytes = random.fill(new Uint8Array(1 + random.below(30 * BLOCK)));
      const offset = at % (SIZE - bytes.length);
      try {
        await device.write(bytes, offset);
        model.set(bytes, offset);
      } catch (error) {
        if (!isCodError(error, 'COD_NO_SPACE')) throw error;
        failed.push({ offset, bytes });
      }
    }
    // A failed write may be partly done in blocks that had been written before.
    // Repeating the write makes the target equal to the model again.
    disk.resize(40 * MIB);
    for (const { offset, bytes } of failed) {
      await device.write(bytes, offset);
      model.set(bytes, offset);
    }
    expectBytes(await readAll(device), model);
    await device.close();
    device = await open(disk.directory, false);
    expectBytes(await readAll(device), model);
    await device.close();
    await finish(disk.directory, model);
  });

  test('flush, checkpoint and close reject, and no acknowledged write is lost', async () => {
    const disk = smallDisk(6 * MIB);
    const model = IMAGE.slice();
    const device = await open(disk.directory, false);
    // One dirty byte in every other block, for a large checkpoint.
    for (let at = 1; at + 600 < 12 * MIB; at += 2 * BLOCK) {
      const bytes = seededRandom(at).fill(new Uint8Array(1));
      try {
        await device.write(bytes, at);
        model.set(bytes, at);
      } catch (error) {
        if (!isCodError(error, 'COD_NO_SPACE')) throw error;
        break;
      }
    }
    // Fill the disk to its last page, without the room that the owner keeps back.
    rmSync(join(disk.directory, 'disk.lock.spare'), { force: true });
    try {
      for (let count = 0; ; count++) writeFileSync(join(disk.directory, `filler${count}`), new Uint8Array(BLOCK));
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' });
    }
    const outcome = await device.checkpoint().then(
      () => 'done',
      (error: unknown) => (isCodError(error) ? error.code : String(error)),
    );
    expect(outcome).toBe('COD_NO_SPACE');
    expectBytes(await readAll(device), model);
    await expect(device.close()).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    disk.resize(40 * MIB);
    for (const name of readdirSync(disk.directory))
      if (name.startsWith('filler')) writeFileSync(join(disk.directory, name), '');
    const again = await open(disk.directory, false);
    expectBytes(await readAll(again), model);
    await again.checkpoint();
    await again.close();
  });

  test('the command exits with 1 and COD_NO_SPACE, and the same command resumes when there is room', async () => {
    const disk = smallDisk(6 * MIB);
    const image = join(temporaryDirectory(), 'image');
    writeFileSync(image, IMAGE);
    const command = ['copy', image, join(disk.directory, 'disk'), '--json', '--retries', '0'];
    const full = await runCommand(command);
    expect(full.exitCode).toBe(1);
    const refusal = /^copyondemand: warning: .+ may need .+\ncopyondemand: COD_NO_SPACE: .+\n$/;
    expect(full.stderr).toMatch(refusal);
    expect(eventsOf(full).at(-1)).toMatchObject({ event: 'error', code: 'COD_NO_SPACE' });
    expect((await runCommand(command)).stderr).toMatch(refusal);
    disk.resize(40 * MIB);
    const again = await runCommand(command);
    expect(again).toMatchObject({ exitCode: 0, stderr: '' });
    expectBytes(new Uint8Array(readFileSync(join(disk.directory, 'disk'))), IMAGE);
    expect(readdirSync(disk.directory)).toEqual(['disk']);
  });

  test('a failed first attempt leaves no file that blocks the next attempt', async () => {
    const disk = smallDisk(BLOCK);
    await expect(open(disk.directory)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    disk.resize(40 * MIB);
    await finish(disk.directory, IMAGE);
  });

  test('`serve` that cannot begin names `--read-only`, which needs a copy', async () => {
    const disk = smallDisk(BLOCK);
    const image = join(temporaryDirectory(), 'image');
    writeFileSync(image, IMAGE);
    const serve = ['serve', image, join(disk.directory, 'disk'), '--socket', join(temporaryDirectory(), 's')];
    const full = await runCommand(serve);
    expect(full.exitCode).toBe(1);
    expect(full.stderr).toMatch(/^copyondemand: COD_NO_SPACE: .+ an existing copy with --read-only\n$/);
    const reading = await runCommand([...serve, '--read-only']);
    expect(reading.stderr).toMatch(/^copyondemand: COD_NOT_FOUND: .+\n$/);
    const usage = await runCommand([...serve, '--read-only', '--rate', '1M']);
    expect(usage).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('--read-only turns off') });
  });
});
