/**
 * Storage in memory, for deterministic tests: over a memfs volume.
 *
 * @packageDocumentation
 */

export { type MemfsFileSystemOptions, type MemfsVolume, memfsFileSystem } from './fs/memfs.ts';
