/** Bytes of a disk that can be written. */

import { type Bytes, partOf, VolumeError } from './bytes.ts';

export interface WritableBytes extends Bytes {
  /** Writes at any offset. Later reads return the bytes; they are durable after {@link WritableBytes.flush}. */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  flush(): Promise<void>;
}

/** Returns bytes [start, start + size) of `whole`, cut at the end of `whole`. */
export function writablePartOf(whole: WritableBytes, start: number, size: number): WritableBytes {
  const part = partOf(whole, start, size);
  return {
    ...part,
    write: async (offset, bytes) => {
      if (offset < 0 || offset > part.size - bytes.length)
        throw new VolumeError(`${bytes.length} bytes at ${offset} are beyond the volume (${part.size} bytes)`);
      await whole.write(start + offset, bytes);
    },
    flush: () => whole.flush(),
  };
}
