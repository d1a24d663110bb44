/** The file of the device's worker, with everything the worker needs. A bundler may have to be given it as an entry. */

import { runDeviceWorker } from './browser/worker.ts';

runDeviceWorker(globalThis as unknown as Parameters<typeof runDeviceWorker>[0]);
