/** A process for node-lock.test.ts. Takes and releases a lock on demand. Reports 'locked', 'released' or a code. */

import { nodeFileSystem } from '../../src/control/node-file-system.ts';
import type { Lease } from '../../src/fs/file-system.ts';

let lease: Lease | undefined;

process.on('message', (request: { take: string } | 'release') => {
  void answer(request).then(
    (report) => process.send?.(report),
    (error: unknown) => process.send?.((error as { code?: string }).code ?? String(error)),
  );
});

async function answer(request: { take: string } | 'release'): Promise<string> {
  if (request === 'release') {
    await lease?.release();
    return 'released';
  }
  lease = await nodeFileSystem().lock?.(request.take);
  return 'locked';
}
