/**
 * What copyondemand needs of Node: files of this machine.
 *
 * @packageDocumentation
 */

export type { File, FileSystem, Lease } from './fs/file-system.ts';
export { type NodeFileSystemOptions, nodeFileSystem } from './fs/node.ts';
export { fileSource } from './sources/file.ts';
export type { Source, SourceExtent } from './sources/source.ts';
