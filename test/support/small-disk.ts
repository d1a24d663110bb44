/** A small disk that fills up quickly: a tmpfs, if this process may mount one. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

function run(program: string, ...args: string[]): boolean {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0;
}

function mount(bytes: number): string | undefined {
  const directory = mkdtempSync(join(tmpdir(), 'cod-disk-'));
  if (run('mount', '-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', directory)) return directory;
  rmdirSync(directory);
  return undefined;
}

function unmount(directory: string): void {
  if (run('umount', directory)) rmdirSync(directory);
}

/** Whether {@link smallDisk} works: only on Linux as root, and not in every container. */
export function canMountDisks(): boolean {
  const directory = process.platform === 'linux' && process.getuid?.() === 0 ? mount(2 ** 20) : undefined;
  if (directory !== undefined) unmount(directory);
  return directory !== undefined;
}

/** Mounts a directory with room for `bytes`. It is unmounted when the test ends. */
export function smallDisk(bytes: number): { directory: string; resize(bytes: number): void } {
  const directory = mount(bytes);
  if (directory === undefined) throw new Error('no file system can be mounted here');
  onTestFinished(() => unmount(directory));
  return {
    directory,
    resize: (bytes) => {
      if (!run('mount', '-o', `remount,size=${bytes}`, directory)) throw new Error(`${directory} cannot be resized`);
    },
  };
}
