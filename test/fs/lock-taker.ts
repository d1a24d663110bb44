/** A process that takes and releases the lock it is told to, for node-lock.test.ts. Reports `'locked'`, `'released'` or an error's code. */

import { nodeFileSystem } from '../../src/fs/node.ts';

let release: (() => Promise<void>) | undefined;

process.on('message', (request: { take: string } | 'release') => {
  void answer(request).then(
    (report) => process.send?.(report),
    (error: unknown) => process.send?.((error as { code?: string }).code ?? String(error)),
  );
});

async function answer(request: { take: string } | 'release'): Promise<string> {
  if (request === 'release') {
    await release?.();
    return 'released';
  }
  release = await nodeFileSystem().lock?.(request.take);
  return 'locked';
}
