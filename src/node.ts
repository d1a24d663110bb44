/**
 * What copyondemand needs of Node: files of this machine, and HTTP over sockets.
 *
 * @packageDocumentation
 */

export { type NodeFileSystemOptions, nodeFileSystem } from './fs/node.ts';
export { fileSource } from './sources/file.ts';
export { httpSource } from './sources/http/node.ts';
export type { HttpSourceOptions } from './sources/http/source.ts';
