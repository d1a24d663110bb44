/** Times the core in a worker: a name prepares that case, `undefined` times it once more. */

import { coreTimer } from '../lib/core-timer.ts';

let timer: (() => Promise<number>) | undefined;

addEventListener('message', ({ data }: MessageEvent<string | undefined>) => {
  void (async () => {
    if (data !== undefined) timer = await coreTimer(data);
    postMessage(await timer!());
  })();
});
