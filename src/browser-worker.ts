/** The file of the device's worker, with all its imports. Some bundlers need it as an entry. */

import { runDeviceWorker } from './browser/worker.ts';

runDeviceWorker(globalThis as unknown as Parameters<typeof runDeviceWorker>[0]);
