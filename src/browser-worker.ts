/**
 * The script of the device's worker, with all its imports. It exports nothing. Bundlers that do not find the worker by
 * themselves need it as an entry.
 *
 * @example
 * ```ts
 * import { openDevice } from 'copyondemand/browser';
 *
 * const device = await openDevice({
 *   source: 'https://example.org/disk.raw',
 *   target: 'disk.raw',
 *   worker: () => new Worker(new URL('copyondemand/browser-worker', import.meta.url), { type: 'module' }),
 * });
 * await device.close();
 * ```
 *
 * @packageDocumentation
 */

import { runDeviceWorker } from './browser/worker.ts';

runDeviceWorker(globalThis as unknown as Parameters<typeof runDeviceWorker>[0]);
