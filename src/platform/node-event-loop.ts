/** Node's event loop, for synchronous calls to files. */

import type { EventLoop } from './inline-calls.ts';

/** Read once: the global is a getter, which is noticeable at two clock reads for each call to a file. */
const { performance } = globalThis;

export const nodeEventLoop: EventLoop = { now: () => performance.now(), turn: () => new Promise(setImmediate) };
