/**
 * The isomorphic part of copyondemand: what runs alike in Node and in browsers.
 *
 * @packageDocumentation
 */

import type { LocalDevice } from './device/device.ts';
import { type OpenDeviceOptions, openDeviceIn } from './device/open.ts';
import { systemEnvironment } from './platform/environment.ts';

export type { SyncedBlocks } from './core/block-map.ts';
export type { Geometry } from './core/geometry.ts';
export type { ByteExtent } from './core/range-set.ts';
export type { Device, DeviceExtent, DeviceState, DeviceStatus, LocalDevice } from './device/device.ts';
export type { HydrateOptions } from './device/hydrator.ts';
export type { Environment, OpenDeviceOptions } from './device/open.ts';
export { type ReadExtent, ReadRecorder } from './device/read-recorder.ts';
export { CodError, type CodErrorCode, type CodErrorJson, isCodError } from './errors.ts';
export type { File, FileSystem } from './fs/file-system.ts';
export { type Inspection, inspectMetadata } from './log/inspect.ts';
export type { MetadataFile } from './log/recovered-state.ts';
export type { FileKind } from './log/slots.ts';
export type { Clock } from './platform/clock.ts';
export { blobSource } from './sources/blob.ts';
export { bytesSource } from './sources/bytes.ts';
export { type HttpSourceOptions, httpSource } from './sources/http/source.ts';
export type { HttpRequest, HttpResponse, HttpTransport } from './sources/http/transport.ts';
export type { Retry } from './sources/retry.ts';
export type { Source, SourceExtent } from './sources/source.ts';

/**
 * Opens the copy of a source: begins it, or goes on where it was, whatever happened in between.
 *
 * @throws {@link CodError} COD_EXISTS if the target exists and is nobody's copy; COD_LOCKED if somebody has it; COD_SIZE_MISMATCH or COD_SOURCE_CHANGED if it is
 *   a copy of something else; COD_CORRUPT, COD_VERSION; what the file system says. `TypeError`, `RangeError` for wrong options.
 */
export function openDevice(options: OpenDeviceOptions): Promise<LocalDevice> {
  return openDeviceIn(options.environment ?? systemEnvironment, options);
}
