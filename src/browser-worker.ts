/** The worker's file: all that a device needs, in one. A page starts it by itself; bundlers that do not see that are given it as an entry. */

import { runDeviceWorker } from './browser/worker.ts';

runDeviceWorker(globalThis as unknown as Parameters<typeof runDeviceWorker>[0]);
