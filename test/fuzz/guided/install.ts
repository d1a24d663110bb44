/** Installs the counters before the modules that count: the first import of a worker. */

import { workerData } from 'node:worker_threads';
import type { Job } from './engine.ts';
import { installRuntime, type Runtime } from './runtime.ts';

export const runtime: Runtime = installRuntime((workerData as Job).counters);
