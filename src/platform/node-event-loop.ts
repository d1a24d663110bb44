/** Node's event loop, for calls that are made inside its turns. */

import type { EventLoop } from './inline-calls.ts';

/** Taken once: the global is a getter, which is felt where the clock is looked at twice for each call to a file. */
const { performance } = globalThis;

export const nodeEventLoop: EventLoop = { now: () => performance.now(), turn: () => new Promise(setImmediate) };
