/**
 * Writes what recovery believed once more, before a checkpoint says that it is durable: after a failed sync the page
 * cache may hold bytes that no disk has, and that no further sync would write.
 */

import { type Done, rightAfter } from '../async/done.ts';
import type { Checkpointer } from './checkpointer.ts';
import type { Extent } from './proof.ts';

const PIECE_BYTES = 2 ** 20;

interface Storage {
  read(into: Uint8Array, offset: number): Done;
  write?(from: Uint8Array, offset: number): Done;
}

/** @param owner of the copy: it looks at its lock before each write */
export async function writeAgain(owner: Checkpointer, storage: Storage, proved: readonly Extent[]): Promise<void> {
  for (const { offset, length } of proved) {
    for (let at = offset; at < offset + length; at += PIECE_BYTES) {
      const bytes = new Uint8Array(Math.min(PIECE_BYTES, offset + length - at));
      await storage.read(bytes, at);
      await rightAfter(
        () => owner.fenceIfOld(),
        () => storage.write?.(bytes, at),
      );
      await owner.clock.turn?.();
    }
  }
}
