/**
 * The part of copyondemand that needs Node: files of the local machine, and AWS's credentials.
 *
 * @packageDocumentation
 */

export { type ControlOptions, type CopyControl, controlOf } from './control/client.ts';
export type { CopyFailure, CopyStatus } from './control/status.ts';
export type { CallCount, DeviceEvent, DeviceState, TransferCount } from './device/types.ts';
export type { File, FileSystem, Image, Lease, LeaseOptions, LeaseOwner, OpenOptions } from './fs/file-system.ts';
export { type NodeFileSystemOptions, nodeFileSystem } from './fs/node.ts';
export { fileSource } from './sources/file.ts';
export { type AwsCredentialsOptions, awsCredentials } from './sources/s3/node-aws.ts';
export type { S3Credentials } from './sources/s3/signature.ts';
export type { Source, SourceExtent } from './sources/source.ts';
