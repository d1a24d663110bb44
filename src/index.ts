/**
 * The isomorphic part of copyondemand: devices and sources for Node and browsers.
 *
 * @packageDocumentation
 */

import { type OpenDeviceOptions, openDeviceIn } from './device/open.ts';
import type { Device } from './device/types.ts';
import { systemEnvironment } from './platform/environment.ts';

export type { ByteExtent } from './core/range-set.ts';
export type { OpenDeviceOptions } from './device/open.ts';
export { type ReadExtent, ReadRecorder } from './device/read-recorder.ts';
export type {
  Device,
  DeviceEvent,
  DeviceExtent,
  DeviceState,
  DeviceStatus,
  HydrateOptions,
} from './device/types.ts';
export { CodError, type CodErrorCode, type CodErrorJson, isCodError } from './errors.ts';
export type { File, FileSystem, Lease } from './fs/file-system.ts';
export { type Inspection, inspectMetadata } from './log/inspect.ts';
export type { MetadataFile } from './log/recovered-state.ts';
export type { FileKind } from './log/slots.ts';
export type { Clock, Environment } from './platform/clock.ts';
export { blobSource } from './sources/blob.ts';
export { bytesSource } from './sources/bytes.ts';
export { type HttpSourceOptions, httpSource } from './sources/http/source.ts';
export type { HttpRequest, HttpResponse, HttpTransport } from './sources/http/transport.ts';
export type { Retry } from './sources/retry.ts';
export type { Source, SourceExtent } from './sources/source.ts';

/**
 * Opens the copy of a source: begins it, or resumes it after any crash.
 *
 * @throws {@link CodError} COD_EXISTS when the target exists and is no copy; COD_LOCKED when it has an owner;
 *   COD_SIZE_MISMATCH or COD_SOURCE_CHANGED when it is a copy of another source; COD_CORRUPT; COD_VERSION; the errors
 *   of the file system. `TypeError`, `RangeError` for wrong options.
 *
 * @example
 * const device = await openDevice({ source: bytesSource(image), fileSystem: memfsFileSystem(), target: 'disk.raw' });
 * await device.read(new Uint8Array(512), 0);
 * await device.hydrated;
 * await device.finish();
 */
export function openDevice(options: OpenDeviceOptions): Promise<Device> {
  return openDeviceIn(options.environment ?? systemEnvironment, options);
}
