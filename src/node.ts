/**
 * The part of copyondemand that needs Node: files of the local machine, AWS's credentials, and proxies.
 *
 * @packageDocumentation
 */

export { type ControlOptions, type CopyControl, controlOf } from './control/client.ts';
export { nodeFileSystem } from './control/node-file-system.ts';
export type { CopyFailure, CopyStatus } from './control/status.ts';
export type { CallCount, DeviceEvent, DeviceState, TransferCount } from './device/types.ts';
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
export type { NodeFileSystemOptions } from './fs/node.ts';
export type { HeartbeatMessage } from './fs/node-lock.ts';
export { fileSource } from './sources/file.ts';
export { type HttpTls, type HttpTransportOptions, httpTransport } from './sources/http/node-http-transport.ts';
export type { HttpRequest, HttpResponse, HttpTransport } from './sources/http/transport.ts';
export { type AwsCredentialsOptions, awsCredentials } from './sources/s3/node-aws.ts';
export type { S3Credentials } from './sources/s3/signature.ts';
export type { Source, SourceExtent } from './sources/source.ts';
