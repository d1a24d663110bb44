/**
 * What copyondemand needs of Node: files of this machine.
 *
 * @packageDocumentation
 */

export { type NodeFileSystemOptions, nodeFileSystem } from './fs/node.ts';
export { fileSource } from './sources/file.ts';
