/** Storage on this machine's disks: files by `node:fs`. */

import * as fs from 'node:fs';
import { dirname, resolve } from 'node:path';
import { errnoOf } from '../platform/errno.ts';
import { nodeEventLoop } from '../platform/node-event-loop.ts';
import type { FileSystem } from './file-system.ts';
import { fsAdapter } from './fs-adapter.ts';
import { lockFile } from './node-lock.ts';
import { bootId } from './node-process.ts';

/** How {@link nodeFileSystem} behaves. */
export interface NodeFileSystemOptions {
  /** Opens files for reading, creates none, takes no lock and rejects every change with COD_TARGET_IO. Default: false. */
  readonly readOnly?: boolean;
  /**
   * Long writes go past the page cache where the system can (`O_DIRECT`, on Linux): for a copy that nobody reads yet. It takes less processor time, and no memory
   * from other programs; who reads it afterwards waits for the disk. Default: false.
   */
  readonly direct?: boolean;
}

/**
 * The file system of this machine; names are paths relative to `directory`, by default the working directory at the time of the call.
 *
 * `sync` is `fdatasync`, which on Linux covers a changed size too (fdatasync(2); 0.25 ms after a write of 4 KiB on
 * ext4 where `fsync` took 0.33, 2026), and, once for every open file, `fsync` of its directory.
 * `bootId` is known on Linux only. Reads the boot's name when called, nothing else.
 */
export function nodeFileSystem(directory = '.', options: NodeFileSystemOptions = {}): FileSystem {
  const base = resolve(directory);
  return fsAdapter({
    fs,
    flags: {
      // Opening a FIFO would wait for its other end; regular files know no difference. Absent on Windows.
      readOnly: fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0),
      readWrite: fs.constants.O_RDWR | (fs.constants.O_NONBLOCK ?? 0),
      create: fs.constants.O_CREAT,
    },
    resolve: (name) => resolve(base, name),
    pool: {
      loop: nodeEventLoop,
      read,
      write,
      openDirect: options.direct ? openDirect : undefined,
    },
    sync: (fd) => new Promise((done, fail) => fs.fdatasync(fd, (error) => (error ? fail(error) : done()))),
    syncName,
    readOnly: options.readOnly,
    bootId: bootId(),
    lock: lockFile,
  });
}

function read(fd: number, into: Uint8Array, position: number): Promise<number> {
  return new Promise((done, fail) => {
    fs.read(fd, into, 0, into.length, position, (error, count) => (error ? fail(error) : done(count)));
  });
}

function write(fd: number, from: Uint8Array, position: number): Promise<number> {
  return new Promise((done, fail) => {
    fs.write(fd, from, 0, from.length, position, (error, count) => (error ? fail(error) : done(count)));
  });
}

/** By way of the descriptor: its name may be another file's by now. */
function openDirect(fd: number): number | undefined {
  const { O_DIRECT, O_WRONLY } = fs.constants;
  if (O_DIRECT === undefined) return undefined;
  try {
    return fs.openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_DIRECT);
  } catch {
    // The file system has no such writes, or there is no /proc: the page cache does as well.
    return undefined;
  }
}

/** Node's sync of a file covers the file, not its name: that is its directory's data. */
async function syncName(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  try {
    const directory = await fs.promises.open(dirname(await fs.promises.realpath(path)), 'r');
    await directory.sync().finally(() => directory.close());
  } catch (error) {
    if (!NO_NAME_TO_SYNC.has(errnoOf(error) ?? '')) throw error;
  }
}

/** The file was removed meanwhile; or the file system, on a network or FUSE, knows no sync of a directory. */
const NO_NAME_TO_SYNC: ReadonlySet<string> = new Set(['ENOENT', 'EINVAL', 'ENOTSUP']);
