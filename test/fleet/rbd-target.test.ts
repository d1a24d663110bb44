/**
 * A target on a block device of Ceph. This kernel may have neither rbd nor nbd, so QEMU's storage daemon has the
 * device: it exports it as a file over FUSE, and a loop device over this file has an ext4.
 */

import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { type JsonEvent, startCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { CEPH_TOOLS, Ceph, RBD_DRIVER } from '../support/ceph.ts';
import { obstacleToVolumes, volumeTools } from '../support/loop-volume.ts';
import { mustRun, runProgram, startProgram } from '../support/programs.ts';
import { describeWith } from '../support/tools.ts';

const MiB = 2 ** 20;
const DEVICE_BYTES = 256 * MiB;
const IMAGE = seededRandom(23).fill(new Uint8Array(64 * MiB));
const PATH = '/images/disk.raw';
const TOOLS = [...CEPH_TOOLS, ...volumeTools('ext4'), 'qemu-storage-daemon', 'e2fsck'];
const obstacle =
  obstacleToVolumes() ??
  (existsSync('/dev/fuse') ? undefined : 'no /dev/fuse') ??
  (RBD_DRIVER === undefined ? 'no QEMU driver for RBD' : undefined);

describeWith(TOOLS, `a file system on RBD${obstacle === undefined ? '' : ` (${obstacle})`}`, () => {
  let ceph: Ceph;

  beforeAll(async () => {
    if (obstacle !== undefined) return;
    ceph = await Ceph.start({ accessKeyId: 'AKTEST', secretAccessKey: 'SKTEST' });
    await ceph.put('/images', new Uint8Array());
    await ceph.put(PATH, IMAGE, 'public-read');
  });

  afterAll(() => ceph?.stop());

  /** Mounts a new ext4 on a device of RBD until the end of the test. */
  async function mountDevice(): Promise<{ loop: string; mounted: string }> {
    const folder = temporaryDirectory();
    const [file, mounted] = [join(folder, 'device'), join(folder, 'mounted')];
    await ceph.createBlockDevice('volume', DEVICE_BYTES);
    writeFileSync(file, '');
    mkdirSync(mounted);
    const daemon = startProgram(
      'qemu-storage-daemon',
      ...['--blockdev', `driver=rbd,node-name=volume,pool=rbd,image=volume,conf=${ceph.configuration}`],
      ...['--export', `type=fuse,id=volume,node-name=volume,mountpoint=${file},writable=on`],
    );
    let loop = '';
    onTestFinished(async () => {
      await runProgram('umount', mounted);
      if (loop !== '') await runProgram('losetup', '--detach', loop);
      daemon.child.kill('SIGTERM');
      await daemon.outcome;
    });
    while (statSync(file).size !== DEVICE_BYTES) {
      expect(daemon.child.exitCode).toBeNull();
      await sleep(50);
    }
    loop = (await mustRun('losetup', '--find', '--show', file)).trim();
    await mustRun('mkfs.ext4', '-q', loop);
    await mustRun('mount', loop, mounted);
    return { loop, mounted };
  }

  test.skipIf(obstacle !== undefined)('holds a copy that survives the loss of the OSD in the middle', async () => {
    const { loop, mounted } = await mountDevice();
    const target = join(mounted, 'disk.raw');
    let losing: Promise<unknown> | undefined;
    const onLine = (line: string): void => {
      const { event, bytes } = JSON.parse(line) as JsonEvent & { bytes?: number };
      if (event === 'progress' && bytes! >= 8 * MiB) losing ??= ceph.kill('osd.0').then(() => ceph.revive('osd.0'));
    };
    const args = ['copy', ceph.origin + PATH, target, '--json', '--rate', '8M'];
    const result = await startCommand(args, { onLine }).result;
    expect(losing).toBeDefined();
    await losing;
    expect(result.exitCode, result.stderr).toBe(0);
    expectBytes(readFileSync(target), IMAGE);
    await mustRun('umount', mounted);
    await mustRun('e2fsck', '-f', '-n', loop);
    await mustRun('mount', loop, mounted);
    expectBytes(readFileSync(target), IMAGE);
  });
});
