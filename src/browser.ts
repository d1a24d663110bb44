/**
 * A device in a web page. A worker owns the device, and the page uses it through messages.
 *
 * @packageDocumentation
 */

import { type BrowserDevice, type OpenBrowserDeviceOptions, openPageDevice } from './browser/page-device.ts';
import type { BrowserSource, ImageFormat } from './browser/source-description.ts';
import { inspectByWorker, type SourceInspection } from './browser/source-inspection.ts';

export type { DeviceOwner, WorkerOptions } from './browser/messages.ts';
export type { BrowserDevice, OpenBrowserDeviceOptions } from './browser/page-device.ts';
export type { BrowserSource, ImageFormat, SourceDescription, UrlSource } from './browser/source-description.ts';
export type { SourceInspection } from './browser/source-inspection.ts';
export { type CopyPlace, copyAsFile, removeCopy } from './browser/stored-copies.ts';
export type { ByteExtent } from './core/range-set.ts';
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
export { estimateStorage, persistStorage, type StorageEstimate } from './fs/opfs-quota.ts';
export type { Clock } from './platform/clock.ts';
export type { HeadersFunction } from './sources/http/location.ts';
export type { HttpSourceOptions } from './sources/http/source.ts';
export type { HttpRequest, HttpResponse, HttpTransport } from './sources/http/transport.ts';
export type { Retry, RetryReport, StallLimits } from './sources/retry.ts';

/**
 * Opens the copy of a source in the origin private file system: begins it, or resumes it after any crash.
 *
 * Tabs that open the same copy share one device. If the tab of the owning worker ends, a worker of another tab replaces
 * it.
 *
 * @throws {@link CodError} as `openDevice`, `httpSource` and `imageSource` of `copyondemand`; COD_LOCKED when another
 *   tab has the copy open and `tabs` is `'refuse'`; COD_SIZE_MISMATCH or COD_SOURCE_CHANGED when another tab has it
 *   open with another source; COD_UNSUPPORTED when the browser gives no storage, the worker cannot start, or a policy
 *   forbids WebAssembly; COD_CLOSED when the worker ended 4 times in a row.
 * @throws `TypeError` or `RangeError` when an option is wrong.
 * @throws the signal's reason when it is aborted.
 * @example
 * ```ts
 * import { openDevice } from 'copyondemand/browser';
 *
 * const device = await openDevice({ source: 'https://example.org/disk.raw', target: 'disk.raw' });
 * const sector = new Uint8Array(512);
 * await device.read(sector, 0); // at once: the device fetches what it does not have
 * await device.write(sector, 4096, { fua: true });
 * await device.hydrated;
 * await device.finish(); // the copy is an ordinary file of the origin now
 * ```
 */
export function openDevice(options: OpenBrowserDeviceOptions): Promise<BrowserDevice> {
  return openPageDevice(options, makeWorker);
}

/**
 * Returns the size of the disk in an image, and the name of its content if the source has one. Requests three short
 * ranges, and the header of a qcow2 image.
 *
 * @param options.format how the image is read, as for {@link openDevice}
 * @param options.worker starts the worker, as for {@link openDevice}
 * @throws {@link CodError} as `httpSource` and `imageSource` of `copyondemand`; COD_UNSUPPORTED when the worker cannot
 *   start.
 * @throws `TypeError` when `source` is not a source.
 * @example
 * ```ts
 * import { estimateStorage, inspectSource } from 'copyondemand/browser';
 *
 * const { size } = await inspectSource('https://example.org/disk.raw');
 * const { usageBytes, quotaBytes } = await estimateStorage();
 * if (usageBytes + size > quotaBytes) console.warn('the image may not fit');
 * ```
 */
export function inspectSource(
  source: BrowserSource,
  options: { readonly format?: ImageFormat; readonly worker?: () => Worker } = {},
): Promise<SourceInspection> {
  return inspectByWorker(source, options.format, options.worker ?? makeWorker);
}

function makeWorker(): Worker {
  return new Worker(new URL('./browser-worker.js', import.meta.url), { type: 'module' });
}
