/** File systems in files, mounted by loop devices, if this process may mount them. */

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { temporaryDirectory } from '../cli/temporary.ts';
import { toolPath } from './tools.ts';

export type VolumeType = 'ext4' | 'xfs' | 'btrfs';

const OPTIONS: Readonly<Record<VolumeType, readonly string[]>> = {
  ext4: ['-q', '-F', '-m', '0'],
  xfs: ['-q', '-f'],
  btrfs: ['-q', '-f'],
};

/** Runs a program and returns what it printed. */
export function runTool(program: string, ...args: string[]): string {
  return execFileSync(toolPath(program)!, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** The programs that {@link mountVolume} needs. */
export function volumeTools(type: VolumeType): string[] {
  return [`mkfs.${type}`, 'mount', 'umount', 'losetup'];
}

/** Why no volume can be mounted here, if so. */
export function obstacleToVolumes(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can mount a volume';
  if (!existsSync('/dev/loop-control')) return 'no loop devices';
  const found = spawnSync(toolPath('losetup') ?? 'losetup', ['-f']);
  return found.status === 0 ? undefined : 'no free loop device';
}

/** Makes a file system in a file or a block device. */
export function makeFileSystem(type: VolumeType, volume: string): void {
  runTool(`mkfs.${type}`, ...OPTIONS[type], volume);
}

/** Makes a file system and mounts it. It is unmounted when the test ends. `folder` holds the file `volume`. */
export function mountVolume(
  type: VolumeType,
  bytes: number,
  folder: string = temporaryDirectory(),
): { folder: string; volume: string; mounted: string } {
  const volume = join(folder, 'volume');
  const mounted = join(folder, 'mounted');
  mkdirSync(mounted);
  writeFileSync(volume, '');
  truncateSync(volume, bytes);
  makeFileSystem(type, volume);
  runTool('mount', '-o', 'loop', volume, mounted);
  onTestFinished(() => void spawnSync(toolPath('umount')!, ['-l', mounted]));
  return { folder, volume, mounted };
}

/**
 * Unmounts a volume everywhere: a process of another test may have begun a mount namespace meanwhile, which holds what
 * was mounted then. As long as it does, mounting the volume again would give the file system as it is.
 */
export async function unmount(mounted: string): Promise<void> {
  runTool('umount', mounted);
  for (let looks = 0; isMounted(mounted); looks++) {
    if (looks > 600) throw new Error(`${mounted} is still mounted in another namespace`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Whether a process sees something mounted there. */
function isMounted(mounted: string): boolean {
  return readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      return readFileSync(`/proc/${name}/mountinfo`, 'utf8').includes(` ${mounted} `);
    } catch {
      // The process has ended.
      return false;
    }
  });
}

/** Makes a block device that holds `content`. It ends with the test. */
export function makeBlockDevice(content: Uint8Array): string {
  const file = join(temporaryDirectory(), 'device');
  writeFileSync(file, content);
  const device = runTool('losetup', '--find', '--show', file).trim();
  onTestFinished(() => void spawnSync(toolPath('losetup')!, ['--detach', device]));
  return device;
}
