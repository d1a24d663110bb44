/** Digests of files. */

import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';

const PIECE_BYTES = 2 ** 22;

/** Options of {@link hashOfFile}. */
export interface HashOptions {
  readonly signal?: AbortSignal;
  /** Hashes no more than so many bytes. */
  readonly bytes?: number;
  /** Called with the number of bytes hashed so far. */
  readonly onProgress?: (bytes: number) => void;
  /** Called with each piece before it is hashed. May change it. */
  readonly patch?: (piece: Uint8Array, offset: number) => void;
}

/** As {@link hashOfFile}, with SHA-256. */
export function sha256OfFile(path: string, options: HashOptions = {}): Promise<string> {
  return hashOfFile('sha256', path, options);
}

/** Returns the digest of the file at `path` in lower-case hex. Reads the next piece while one is hashed. */
export async function hashOfFile(
  algorithm: 'sha256' | 'sha512',
  path: string,
  { signal, bytes = Number.POSITIVE_INFINITY, onProgress, patch }: HashOptions = {},
): Promise<string> {
  const hash = createHash(algorithm);
  const file = await open(path, 'r');
  try {
    const buffers = [Buffer.allocUnsafeSlow(PIECE_BYTES), Buffer.allocUnsafeSlow(PIECE_BYTES)];
    const readAt = (offset: number, buffer: Buffer) => {
      const reading = file.read(buffer, 0, Math.min(buffer.length, bytes - offset), offset);
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
