/**
 * A volume loses what was not synced while the machine keeps running: a file system on a loop device that is shut down
 * without its journal, or restored from a snapshot of one moment. The logs were written back, and the target was not.
 * Flushed writes are there, and no byte reads as anything but the source or a write.
 */

import { spawnSync } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { bundleForNode } from '../support/bundle.ts';
import { ByteHistory } from '../support/byte-history.ts';
import { mountVolume, obstacleToVolumes, runTool as run, unmount, volumeTools } from '../support/loop-volume.ts';
import { type LostVolumeOrder, lostVolumeWrites } from '../support/lost-volume-load.ts';
import { describeWith } from '../support/tools.ts';

const SIZE = 256 * 4096;
const VOLUME_BYTES = 512 * 2 ** 20;
const SEEDS = 5;

/** FS_IOC_SHUTDOWN without the journal. btrfs has no such call. */
const SHUT_DOWN =
  "import fcntl,struct,sys,os; fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587D,struct.pack('I',2))";

const LOSSES = [
  ['ext4', 'shut down'],
  ['ext4', 'restored from a snapshot'],
  ['xfs', 'shut down'],
  ['xfs', 'restored from a snapshot'],
  ['btrfs', 'restored from a snapshot'],
] as const;

const reason = obstacleToVolumes();

describe.skipIf(reason !== undefined)(reason === undefined ? 'a lost volume' : `a lost volume (${reason})`, () => {
  for (const [type, loss] of LOSSES) {
    describeWith([...volumeTools(type), 'python3', 'sync'], `of ${type}`, () => {
      test(`${loss} keeps every flushed write, and shows no byte but a write's or the source's`, async () => {
        const program = await bundleForNode('lost-volume-user.ts');
        let lost = 0;
        for (let seed = 1; seed <= SEEDS; seed++) {
          const { folder, volume, mounted } = mountVolume(type, VOLUME_BYTES);
          const image = join(folder, 'image');
          // Never zero, so that lost bytes are detected.
          const content = seededRandom(seed)
            .fill(new Uint8Array(SIZE))
            .map((byte) => byte | 1);
          writeFileSync(image, content);
          const order: LostVolumeOrder = { source: image, directory: mounted, size: SIZE, seed };
          const killed = spawnSync(process.execPath, [program, JSON.stringify(order)], { encoding: 'utf8' });
          expect([killed.signal, killed.stderr]).toEqual(['SIGKILL', '']);
          const logs = readdirSync(mounted).filter((name) => name.startsWith('disk.wil'));
          for (const name of logs) run('sync', '-d', join(mounted, name));
          if (loss === 'shut down') run('python3', '-c', SHUT_DOWN, mounted);
          else run('cp', '--sparse=always', volume, `${volume}.snapshot`);
          await unmount(mounted);
          run('mount', '-o', 'loop', loss === 'shut down' ? volume : `${volume}.snapshot`, mounted);

          const history = new ByteHistory(content);
          const { flushed, unflushed } = lostVolumeWrites(order);
          const bytesOf = ({ length, seed }: { length: number; seed: number }): Uint8Array =>
            seededRandom(seed).fill(new Uint8Array(length));
          for (const write of flushed) history.acknowledge(history.begin(write.offset, bytesOf(write)));
          history.beginFlush()();
          const expected = content.slice();
          for (const write of [...flushed, ...unflushed]) expected.set(bytesOf(write), write.offset);
          for (const write of unflushed) history.acknowledge(history.begin(write.offset, bytesOf(write)));

          const source = await fileSource(image);
          const device = await openDevice({
            source,
            fileSystem: nodeFileSystem(mounted),
            target: 'disk',
            hydrate: false,
          });
          const found = new Uint8Array(SIZE);
          await device.read(found, 0);
          await device.close();
          await source.close();
          expect(history.violation(found, 'durable'), `seed ${seed}`).toBeUndefined();
          if (Buffer.compare(found, expected) !== 0) lost++;
          await unmount(mounted);
        }
        expect(lost, 'volumes that lost unflushed writes').toBeGreaterThan(0);
      });
    });
  }
});
