/** SHA-256 of files. */

import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';

const PIECE_BYTES = 2 ** 22;

/** How a file is hashed. */
export interface HashOptions {
  readonly signal?: AbortSignal;
  /** Called with the bytes hashed so far. */
  readonly onProgress?: (bytes: number) => void;
  /** May change a piece before it is hashed. */
  readonly patch?: (piece: Uint8Array, offset: number) => void;
}

/** The digest of the file at `path`, in lower-case hex. The next piece is read while one is hashed. */
export async function sha256OfFile(path: string, { signal, onProgress, patch }: HashOptions = {}): Promise<string> {
  const hash = createHash('sha256');
  const file = await open(path, 'r');
  try {
    const buffers = [Buffer.allocUnsafeSlow(PIECE_BYTES), Buffer.allocUnsafeSlow(PIECE_BYTES)];
    const readAt = (offset: number, buffer: Buffer) => {
      const reading = file.read(buffer, 0, buffer.length, offset);
      reading.catch(() => {});
      return reading;
    };
    let next = readAt(0, buffers[0]!);
    for (let offset = 0, turn = 0; ; turn++) {
      const { bytesRead, buffer } = await next;
      if (bytesRead === 0) return hash.digest('hex');
      signal?.throwIfAborted();
      const piece = buffer.subarray(0, bytesRead);
      next = readAt(offset + bytesRead, buffers[(turn + 1) % 2]!);
      patch?.(piece, offset);
      hash.update(piece);
      offset += bytesRead;
      onProgress?.(offset);
    }
  } finally {
    await file.close();
  }
}
