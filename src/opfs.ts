/**
 * Storage in the origin private file system of a browser. For dedicated workers.
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
export { type OpfsFileSystemOptions, opfsDirectory, opfsFileSystem } from './fs/opfs.ts';
export { estimateStorage, persistStorage, type StorageEstimate } from './fs/opfs-quota.ts';
