/** The demo's range server over a file. */

import { type FileHandle, open } from 'node:fs/promises';
import { type RangeServer, type RangeServerOptions, startRangeServer } from '../../src/cli/demo/range-server.ts';

/** Serves the file at `path`, with an ETag made of its size and modification time. */
export async function serveFile(
  path: string,
  options: Pick<RangeServerOptions, 'bytesPerSecond' | 'latencyMs' | 'headers' | 'port'> = {},
): Promise<RangeServer> {
  const file = await open(path, 'r');
  const { size, mtimeMs } = await file.stat();
  const server = await startRangeServer({
    ...options,
    size,
    etag: `"${size}-${mtimeMs}"`,
    read: (into, offset) => fill(file, into, offset),
  });
  const { close } = server;
  server.close = async () => {
    await close();
    await file.close();
  };
  return server;
}

async function fill(file: FileHandle, into: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done);
    if (bytesRead === 0) throw new Error(`the file ends at ${offset + done}`);
    done += bytesRead;
  }
}
