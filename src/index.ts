/**
 * The isomorphic part of copyondemand: devices and sources for Node and browsers.
 *
 * @packageDocumentation
 */

import { Diagnostics } from './device/diagnostics.ts';
import { type OpenDeviceOptions, openDeviceIn } from './device/open.ts';
import type { Device } from './device/types.ts';
import { type RemoveCopyOptions, type RemovedCopy, removeCopyIn } from './log/removal.ts';
import { systemEnvironment } from './platform/environment.ts';

export type { ByteExtent } from './core/range-set.ts';
export type { DeviceMessage, DurabilityMessage, SourceMessage } from './device/diagnostics.ts';
export type { OpenDeviceOptions } from './device/open.ts';
export { type ReadExtent, ReadRecorder } from './device/read-recorder.ts';
export type {
  CallCount,
  Device,
  DeviceEvent,
  DeviceExtent,
  DeviceState,
  DeviceStatus,
  HydrateOptions,
  TransferCount,
} from './device/types.ts';
export { CodError, type CodErrorCode, type CodErrorJson, isCodError } from './errors.ts';
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
export { type Inspection, inspectMetadata } from './log/inspect.ts';
export type { MetadataFile } from './log/recovered-state.ts';
export type { RemoveCopyOptions, RemovedContents, RemovedCopy } from './log/removal.ts';
export type { FileKind } from './log/slots.ts';
export type { Clock, Environment } from './platform/clock.ts';
export { blobSource } from './sources/blob.ts';
export { bytesSource } from './sources/bytes.ts';
export { grownSource } from './sources/grown.ts';
export type { HeadersFunction, UrlFunction } from './sources/http/location.ts';
export { type HttpSourceOptions, httpSource } from './sources/http/source.ts';
export type { HttpRequest, HttpResponse, HttpTransport } from './sources/http/transport.ts';
export { type ImageSourceOptions, imageSource } from './sources/image.ts';
export {
  type CreateManifestOptions,
  createManifest,
  type Manifest,
  type ReadManifestOptions,
  readManifest,
} from './sources/manifest.ts';
export type { Qcow2File } from './sources/qcow2/chain.ts';
export { type Qcow2SourceOptions, qcow2Source } from './sources/qcow2/source.ts';
export type { Retry, RetryReport, StallLimits } from './sources/retry.ts';
export type { S3Credentials } from './sources/s3/signature.ts';
export { type S3CredentialsFunction, type S3SourceOptions, s3Source } from './sources/s3/source.ts';
export type { Seed } from './sources/seeded.ts';
export type { Source, SourceExtent } from './sources/source.ts';
export { type VerifiedSourceOptions, verifiedSource } from './sources/verified.ts';

/**
 * Opens the copy of a source: begins it, or resumes it after any crash. When the promise resolves, the copy's metadata
 * is durable and the background copy runs.
 *
 * - A new target has the permissions of a file that is copied, and its owner may read and write it.
 * - Metadata is for its owner only.
 * - A file that is not ours at one of these names, such as a symbolic link to a metadata file, is never changed.
 *
 * @throws {@link CodError} COD_EXISTS when the target exists and is no copy, or a file that is not ours has the name of
 *   a metadata file; COD_LOCKED when the target has an owner; COD_SIZE_MISMATCH when source and copy differ in size, or
 *   the source is empty; COD_SOURCE_CHANGED when the copy has another identity; COD_CORRUPT when metadata is damaged or
 *   the target is missing or too short; COD_VERSION; COD_POISONED when a sync failed; COD_NOT_FOUND when there is no
 *   copy to read with `readOnly`, or no directory; COD_NO_SPACE or COD_TARGET_IO when the file system fails;
 *   COD_NO_MEMORY.
 * @throws `TypeError` or `RangeError` when an option is wrong.
 * @throws the signal's reason when it is aborted.
 * @example
 * ```ts
 * import { httpSource, openDevice } from 'copyondemand';
 * import { nodeFileSystem } from 'copyondemand/node';
 *
 * const source = await httpSource('https://example.org/disk.raw');
 * const device = await openDevice({ source, fileSystem: nodeFileSystem(), target: 'disk.raw' });
 * const sector = new Uint8Array(512);
 * await device.read(sector, 0); // at once: the device fetches what it does not have
 * await device.write(sector, 4096);
 * await device.flush(); // the write survives power loss
 * await device.hydrated;
 * await device.finish(); // disk.raw is an ordinary file now
 * await source.close();
 * ```
 */
export function openDevice(options: OpenDeviceOptions): Promise<Device> {
  const environment = options.environment ?? systemEnvironment;
  return openDeviceIn(environment, options, { diagnostics: new Diagnostics(options.target, environment.clock) });
}

/**
 * Abandons a copy: removes its target and its metadata, and nothing else. What users wrote to the copy is lost.
 *
 * A crash leaves the copy as it was, a copy of which nothing is copied, or nothing; repeat the call after a crash. When
 * the promise resolves, the bytes are gone. A power cut may bring back names, but only of empty files.
 *
 * - Metadata that is damaged, or whose target is missing, is removed too.
 * - On Node, if the target is a symbolic link, the file that it names becomes empty and the link is removed.
 *
 * @throws {@link CodError} COD_NOT_FOUND when there is no copy, or the target has no metadata, as a complete image has
 *   none; COD_LOCKED when the copy is in use; COD_EXISTS when a file at a name of the metadata is not ours; COD_VERSION
 *   when a newer version wrote the metadata. Nothing is removed then.
 * @throws {@link CodError} COD_POISONED, COD_TARGET_IO when the file system fails.
 * @throws `TypeError` when `target` is no file name.
 * @throws the signal's reason when it is aborted.
 * @example
 * ```ts
 * import { bytesSource, openDevice, removeCopy } from 'copyondemand';
 * import { memfsFileSystem } from 'copyondemand/memfs';
 *
 * const fileSystem = memfsFileSystem();
 * const source = bytesSource(new Uint8Array(2 ** 20));
 * const device = await openDevice({ source, fileSystem, target: 'disk.raw', hydrate: false });
 * await device.write(new Uint8Array(4096).fill(1), 8192);
 * await device.close();
 *
 * const { files, contents } = await removeCopy({ fileSystem, target: 'disk.raw' });
 * console.log(files[0], contents?.modifiedBytes); // disk.raw 4096
 * ```
 */
export function removeCopy(options: RemoveCopyOptions): Promise<RemovedCopy> {
  return removeCopyIn(options.environment ?? systemEnvironment, options);
}
