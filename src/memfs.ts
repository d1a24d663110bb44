/**
 * Storage in memory, over a memfs volume. For deterministic tests.
 *
 * @packageDocumentation
 */

export type {
  File,
  FileSystem,
  Image,
  Lease,
  LeaseOptions,
  LeaseOwner,
  NameWatch,
  OpenOptions,
} from './fs/file-system.ts';
export type { FsLike as MemfsVolume } from './fs/fs-adapter.ts';
export { type MemfsFileSystemOptions, memfsFileSystem } from './fs/memfs.ts';
