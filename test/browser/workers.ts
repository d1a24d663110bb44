/** The workers that setup.ts bundles. */

import { inject } from 'vitest';

/** Starts a worker by the name of its module. */
export function bundledWorker(name: 'browser-worker' | 'opfs-worker' | 'suite-worker'): Worker {
  return new Worker(`${inject('workersPath')}/${name}.js`, { type: 'module' });
}
