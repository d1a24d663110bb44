/** Copies that do not fit on their disk. */

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { lackOfRoom } from '../../src/cli/room.ts';
import { bytesSource, type Device, openDevice, type Source, type SourceExtent } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { eventsOf, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { canMountDisks, smallDisk } from '../support/small-disk.ts';

const MIB = 2 ** 20;
const WARNING = new RegExp(
  '^copyondemand: warning: .*/disk: the disk has [0-9.]+ MiB free, and the rest of the copy may need [0-9.]+ MiB; ' +
    'if the disk is full, the copy waits for room$',
  'm',
);

/** Writes an image of 20 MiB, and returns its path. */
function makeImage(): string {
  const image = join(temporaryDirectory(), 'image');
  writeFileSync(image, seededRandom(1).fill(new Uint8Array(20 * MIB)));
  return image;
}

/** Starts a command, and waits until stderr has the warning. */
async function warned(args: readonly string[]): Promise<ReturnType<typeof startCommand>> {
  const running = startCommand(args);
  let stderr = '';
  await new Promise<void>((resolve, reject) => {
    running.child.stderr!.on('data', (text: string) => {
      stderr += text;
      if (WARNING.test(stderr)) resolve();
    });
    void running.result.then((result) => reject(new Error(JSON.stringify(result))));
  });
  return running;
}

describe.skipIf(!canMountDisks())('on a small disk', () => {
  test('copy warns at the start with both numbers, waits, and completes when there is room', async () => {
    const disk = smallDisk(6 * MIB);
    const running = await warned(['copy', makeImage(), join(disk.directory, 'disk')]);
    disk.resize(40 * MIB);
    const { exitCode, stderr } = await running.result;
    expect(exitCode).toBe(0);
    expect(stderr.match(/warning/g)).toHaveLength(1);
  });

  test('serve warns too, also of the rest of a copy, and with --json by an event', async () => {
    const disk = smallDisk(6 * MIB);
    const [image, target] = [makeImage(), join(disk.directory, 'disk')];
    const socket = join(temporaryDirectory(), 's');
    const running = await warned(['serve', image, target, '--socket', socket]);
    running.child.kill('SIGTERM');
    expect((await running.result).exitCode).toBe(0);
    const again = await warned(['serve', image, target, '--socket', socket, '--json']);
    again.child.kill('SIGTERM');
    const message = expect.stringMatching(/disk has .+ free, and the rest of the copy may need/) as unknown;
    expect(eventsOf(await again.result)).toContainEqual({ event: 'warning', message });
  });

  describe('the rest of a copy', () => {
    const SIZE = 20 * MIB;

    /** Opens a copy without a background copy, whose source knows where it has zeros. */
    async function openCopy(directory: string, zeros: readonly SourceExtent[] | undefined): Promise<[Device, string]> {
      const bytes = bytesSource(new Uint8Array(SIZE).fill(1), { identity: 'image' });
      const source: Source = {
        size: SIZE,
        read: (into, offset) => bytes.read(into, offset),
        close: () => bytes.close(),
        ...(zeros !== undefined && { extents: async () => zeros }),
      };
      const target = join(directory, 'disk');
      const device = await openDevice({ source, fileSystem: nodeFileSystem('.'), target, hydrate: false });
      onTestFinished(() => device.close().catch(() => undefined));
      return [device, target];
    }

    const { signal } = new AbortController();

    test('needs no room for zeros that the source knows', async () => {
      const disk = smallDisk(8 * MIB);
      const zeros = [
        { length: 15 * MIB, zero: true },
        { length: 5 * MIB, zero: false },
      ];
      expect(await lackOfRoom(...(await openCopy(disk.directory, zeros)), signal)).toBeUndefined();
      expect(await lackOfRoom(...(await openCopy(smallDisk(4 * MIB).directory, zeros)), signal)).toContain(
        'need 5 MiB',
      );
    });

    test('needs no room for what is copied', async () => {
      const disk = smallDisk(12 * MIB);
      const [device, target] = await openCopy(disk.directory, undefined);
      expect(await lackOfRoom(device, target, signal)).toContain('need 20 MiB');
      await device.hydrateRange(0, 5 * MIB);
      await expect.poll(() => device.status().syncedBlocks * device.blockSize).toBe(5 * MIB);
      expect(await lackOfRoom(device, target, signal)).toContain('need 15 MiB');
      disk.resize(22 * MIB);
      expect(await lackOfRoom(device, target, signal)).toBeUndefined();
    });

    test('needs no room in a target that is allocated', async () => {
      const disk = smallDisk(22 * MIB);
      const [device, target] = await openCopy(disk.directory, undefined);
      execFileSync('fallocate', ['--keep-size', '--length', String(15 * MIB), target]);
      disk.resize(17 * MIB);
      expect(await lackOfRoom(device, target, signal)).toContain('need 5 MiB');
      disk.resize(22 * MIB);
      expect(await lackOfRoom(device, target, signal)).toBeUndefined();
    });
  });
});
