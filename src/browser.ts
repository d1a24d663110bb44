/**
 * A device in a web page: a worker has it, the page has the same interface over messages.
 *
 * @packageDocumentation
 */

import { type BrowserDevice, type OpenBrowserDeviceOptions, openPageDevice } from './browser/page-device.ts';

export type { DeviceOwner, WorkerOptions } from './browser/messages.ts';
export type { BrowserDevice, OpenBrowserDeviceOptions } from './browser/page-device.ts';
export type { BrowserSource, SourceDescription, UrlSource } from './browser/source-description.ts';
export { type CopyPlace, copyAsFile, inspectSource, removeCopy } from './browser/stored-copies.ts';
export type { SyncedBlocks } from './core/block-map.ts';
export type { Geometry } from './core/geometry.ts';
export type { ByteExtent } from './core/range-set.ts';
export type { Device, DeviceState, DeviceStatus } from './device/device.ts';
export type { HydrateOptions } from './device/hydrator.ts';
export { CodError, type CodErrorCode, type CodErrorJson, isCodError } from './errors.ts';
export { estimateStorage, persistStorage, type StorageEstimate } from './fs/opfs-quota.ts';
export type { Clock } from './platform/clock.ts';
export type { HttpSourceOptions } from './sources/http/source.ts';
export type { HttpRequest, HttpResponse, HttpTransport } from './sources/http/transport.ts';
export type { Retry } from './sources/retry.ts';

/**
 * Opens the copy of a source in the origin private file system: begins it, or goes on where it was, whatever happened in between. If another tab has it open, both
 * share it, and the one that stays takes over.
 *
 * @throws {@link CodError} as `openDevice` of `copyondemand`; COD_LOCKED if another tab has it and `tabs` is `'refuse'`; COD_NOT_FOUND if the worker's
 *   file cannot be loaded. `TypeError`, `RangeError` for wrong options. The signal's reason.
 */
export function openDevice(options: OpenBrowserDeviceOptions): Promise<BrowserDevice> {
  return openPageDevice(options, () => new Worker(new URL('./browser-worker.js', import.meta.url), { type: 'module' }));
}
