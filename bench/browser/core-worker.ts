/** Times the core in a worker. A message with a name prepares that case; `undefined` times the prepared case again. */

import { coreTimer } from '../lib/core-timer.ts';

let timer: (() => Promise<number>) | undefined;

addEventListener('message', ({ data }: MessageEvent<string | undefined>) => {
  void (async () => {
    if (data !== undefined) timer = await coreTimer(data);
    postMessage(await timer!());
  })();
});
