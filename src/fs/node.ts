/** Storage on the machine's disks, over `node:fs`. */

import * as fs from 'node:fs';
import type { Socket } from 'node:net';
import { dirname, resolve } from 'node:path';
import { CodError, isCodError } from '../errors.ts';
import { blockDeviceBytes } from '../platform/block-device.ts';
import { errnoOf } from '../platform/errno.ts';
import { HoleReader, STAT_BLOCK_BYTES } from '../platform/hole-reader.ts';
import { nodeEventLoop } from '../platform/node-event-loop.ts';
import { contentsOfDevice } from './device-contents.ts';
import type { File, FileSystem, LeaseOwner, OpenOptions } from './file-system.ts';
import { type BlockDevice, fsAdapter } from './fs-adapter.ts';
import { attempt } from './lock-owner.ts';
import { movedFrom } from './moved-names.ts';
import { assertNotOwned, lockFile } from './node-lock.ts';
import { bootId, type Machine } from './node-process.ts';

const { COPYFILE_EXCL, COPYFILE_FICLONE_FORCE } = fs.constants;

/** Options of `nodeFileSystem`. */
export interface NodeFileSystemOptions {
  /**
   * Opens files for reading only, creates none, and has no `lock`. Every change rejects with COD_READ_ONLY. Default:
   * false.
   */
  readonly readOnly?: boolean;
  /**
   * Writes of 128 KiB or more bypass the page cache where the system can (`O_DIRECT`, on Linux). This takes less CPU
   * time and no memory from other programs, but later reads wait for the disk. Default: false.
   */
  readonly direct?: boolean;
}

/** Paths of a copy's target, and of its metadata without the suffixes. */
export interface CopyPaths {
  readonly target: string;
  readonly metadata: string;
}

/** Returns what serves the connections to the socket of a lock. */
export type ControlOf = (owner: LeaseOwner, paths: CopyPaths) => (socket: Socket, token: string) => void;

/**
 * As `nodeFileSystem` of `copyondemand/node`.
 * @param control default: an owner answers no client
 * @param machine the machine on which locks are taken
 */
export function localFileSystem(
  directory: string,
  options: NodeFileSystemOptions,
  { machine, control }: { readonly machine?: Machine; readonly control?: ControlOf } = {},
): FileSystem {
  const base = resolve(directory);
  const pathOf = (name: string): string => resolve(base, name);
  const files = fsAdapter({
    fs,
    flags: {
      // O_NONBLOCK, since opening a FIFO would block until its other end is opened. It has no effect on regular files,
      // and is absent on Windows.
      readOnly: fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0),
      readWrite: fs.constants.O_RDWR | (fs.constants.O_NONBLOCK ?? 0),
      create: fs.constants.O_CREAT,
      exclusive: fs.constants.O_EXCL,
      // Absent on Windows.
      noFollow: fs.constants.O_NOFOLLOW ?? 0,
    },
    resolve: pathOf,
    pool: {
      loop: nodeEventLoop,
      read,
      write,
      openDirect: options.direct ? openDirect : undefined,
      holesOf: (fd) => new HoleReader(fd),
    },
    sync: (fd) => new Promise((done, fail) => fs.fdatasync(fd, (error) => (error ? fail(error) : done()))),
    syncName,
    readOnly: options.readOnly,
    bootId: bootId(),
    deviceOf,
    lock: (path, how) => {
      const owner = how?.owner;
      const serve = owner && control?.(owner, { target: pathOf(owner.target), metadata: path });
      return lockFile(path, { ...how, machine, serve, resolve: pathOf });
    },
    clone: (from, to) => fs.promises.copyFile(from, to, COPYFILE_EXCL | COPYFILE_FICLONE_FORCE),
    assertNotOwned,
  });
  return {
    ...files,
    open: (name, how) =>
      how?.readOnly || options.readOnly ? openToRead(files, name, how, pathOf(name)) : files.open(name, how),
    freeBytes: async (name) => {
      const path = pathOf(name);
      // A block device has all of its room.
      if (!(await fs.promises.stat(path)).isFile()) return Number.POSITIVE_INFINITY;
      const { bavail, bsize } = await fs.promises.statfs(path);
      return bavail * bsize;
    },
    allocatedBytes: async (name) => (await fs.promises.stat(pathOf(name))).blocks * STAT_BLOCK_BYTES,
    volumeBytes: async (name) => {
      const { blocks, bsize } = await fs.promises.statfs(pathOf(name));
      return blocks * bsize;
    },
  };
}

/**
 * @throws {@link CodError} COD_LOCKED if another program has the device: a file system that is mounted, swap, another
 * volume, or a program that opened it with O_EXCL (open(2))
 */
function deviceOf(fd: number, path: string, readOnly: boolean): BlockDevice | undefined {
  const stats = fs.fstatSync(fd, { bigint: true });
  if (!stats.isBlockDevice()) return undefined;
  const device = { fd, bytes: blockDeviceBytes(stats.rdev), contents: contentsOfDevice };
  if (readOnly) return device;
  try {
    const claimed = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_EXCL);
    fs.closeSync(fd);
    return { ...device, fd: claimed };
  } catch (cause) {
    if (errnoOf(cause) !== 'EBUSY') throw cause;
    const message = `${path} is in use: unmount it, or stop the program that has opened it`;
    throw new CodError('COD_LOCKED', message, { cause, details: { path } });
  }
}

/** Opens a file. An owner that was killed may hold it aside; an empty one in its place says nothing. */
async function openToRead(files: FileSystem, name: string, how: OpenOptions | undefined, path: string): Promise<File> {
  const [file] = await Promise.allSettled([files.open(name, how)]);
  const isThere = file.status === 'fulfilled';
  if (isThere ? (await file.value.size()) > 0 : !isCodError(file.reason, 'COD_NOT_FOUND')) return settledValue(file);
  const aside = attempt(`look for ${path}`, () => movedFrom(path));
  if (aside === undefined) return settledValue(file);
  if (isThere) await file.value.close();
  return files.open(aside, how);
}

function settledValue<T>(settled: PromiseSettledResult<T>): T {
  if (settled.status === 'rejected') throw settled.reason;
  return settled.value;
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

/** Opens the file by its descriptor, since its name may belong to another file by now. */
function openDirect(fd: number): number | undefined {
  const { O_DIRECT, O_WRONLY } = fs.constants;
  if (O_DIRECT === undefined) return undefined;
  try {
    return fs.openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_DIRECT);
  } catch {
    // The file system has no direct writes, or there is no /proc. The page cache serves as well.
    return undefined;
  }
}

/** Syncs the directory of a file: a sync of the file itself does not make its name durable. */
async function syncName(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  try {
    // Another owner may have moved the name aside for a moment, and puts it back.
    const file = await fs.promises.realpath(path).catch(() => path);
    const directory = await fs.promises.open(dirname(file), 'r');
    await directory.sync().finally(() => directory.close());
  } catch (error) {
    if (!NO_NAME_TO_SYNC.has(errnoOf(error) ?? '')) throw error;
  }
}

/** The file was removed meanwhile, or a file system on a network or FUSE cannot sync a directory. */
const NO_NAME_TO_SYNC: ReadonlySet<string> = new Set(['ENOENT', 'EINVAL', 'ENOTSUP']);
