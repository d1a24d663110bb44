/** A file system over OPFS for tests in a page, which cannot use OPFS itself: a worker executes each call. */

import { CodError, type CodErrorJson } from '../../src/errors.ts';
import type { File, FileSystem } from '../../src/fs/file-system.ts';
import { freshDirectory } from './directories.ts';
import type { FileCall } from './opfs-worker.ts';
import { bundledWorker } from './workers.ts';

export interface RemoteFiles extends FileSystem {
  readonly directory: FileSystemDirectoryHandle;
  /** Terminates the worker immediately, as a browser does. */
  terminate(): void;
}

/** Opens `directory`, or a new empty directory. */
export async function remoteFiles(
  options: { directory?: FileSystemDirectoryHandle; bootId?: string | undefined } = {},
): Promise<RemoteFiles> {
  const directory = options.directory ?? (await freshDirectory());
  const worker = bundledWorker('opfs-worker');
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: unknown): void }>();
  let count = 0;
  worker.onmessage = ({
    data: { id, value, error },
  }: MessageEvent<{ id: number; value?: unknown; error?: CodErrorJson | Error }>) => {
    const { resolve, reject } = waiting.get(id)!;
    waiting.delete(id);
    if (error === undefined) resolve(value);
    else reject('code' in error && error.name === 'CodError' ? CodError.fromJSON(error as CodErrorJson) : error);
  };
  worker.onerror = ({ message }) => {
    for (const { reject } of waiting.values()) reject(new Error(message));
  };
  const ask = (call: FileCall): Promise<unknown> =>
    new Promise((resolve, reject) => {
      waiting.set(++count, { resolve, reject });
      worker.postMessage({ id: count, call });
    });
  await ask({ kind: 'start', directory, bootId: options.bootId });

  const handle = (file: number): File => ({
    size: () => ask({ kind: 'size', file }) as Promise<number>,
    read: async (into, offset) =>
      into.set((await ask({ kind: 'read', file, offset, length: into.length })) as Uint8Array),
    write: (from, offset) => ask({ kind: 'write', file, offset, bytes: from.slice() }) as Promise<void>,
    truncate: (size) => ask({ kind: 'truncate', file, size }) as Promise<void>,
    sync: () => ask({ kind: 'sync', file }) as Promise<void>,
    close: () => ask({ kind: 'close', file }) as Promise<void>,
  });
  return {
    directory,
    open: async (name, options = {}) => handle((await ask({ kind: 'open', name, options })) as number),
    remove: (name) => ask({ kind: 'remove', name }) as Promise<void>,
    ...(options.bootId === undefined ? {} : { bootId: options.bootId }),
    terminate: () => worker.terminate(),
  };
}
