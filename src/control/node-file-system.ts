/** The file system of the machine, whose copies answer while a device has them open. */

import type { FileSystem } from '../fs/file-system.ts';
import { localFileSystem, type NodeFileSystemOptions } from '../fs/node.ts';
import { OwnedCopy } from './owner.ts';
import { controlServer } from './server.ts';

/**
 * Opens the file system of the machine. Names are paths relative to `directory`. The call reads the boot's name
 * and does no other I/O.
 *
 * `sync` is `fdatasync`, and at the first sync of each open file also `fsync` of its directory. On Linux `fdatasync`
 * covers a changed size too (fdatasync(2)). After a write of 4 KiB on ext4 it took 0.25 ms, and `fsync` 0.33 ms (2026).
 * `bootId` is known on Linux only.
 *
 * Symbolic links are followed unless an option of `open` forbids it. `lock` makes the file `<name>.lock`, for its owner
 * only, beside the file that a link leads to. It rejects with COD_EXISTS if anything but a regular file has that name.
 * A block device can be opened too, on Linux. For writing it is opened for this program alone, else COD_LOCKED. It has
 * no `lock`: the metadata of a copy on it needs a prefix elsewhere.
 * `clone` works on file systems with reflinks, such as xfs and btrfs.
 * While a device is open, `controlOf` and `copyondemand status` of the same user reach it by a socket beside the lock.
 * The owner of a copy keeps 256 KiB of the disk back in `<name>.lock.spare`.
 * An owner that removes a file moves it aside first, to `<copy>.lock.<16 hex>.moved<rest>`. If it is killed then,
 * `open` with `readOnly` still finds the file.
 *
 * @param directory path of an existing directory. Default: the working directory at the time of the call.
 * @example
 * ```ts
 * import { nodeFileSystem } from 'copyondemand/node';
 *
 * const file = await nodeFileSystem('.').open('notes', { create: true });
 * await file.write(new Uint8Array(512).fill(7), 0);
 * await file.sync(); // data, size and name are durable
 * console.log(await file.size()); // 512
 * await file.close();
 * ```
 */
export function nodeFileSystem(directory = '.', options: NodeFileSystemOptions = {}): FileSystem {
  return localFileSystem(directory, options, {
    control: (owner, paths) => controlServer(new OwnedCopy(owner, paths)),
  });
}
