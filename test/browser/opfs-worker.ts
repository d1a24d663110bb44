/** A dedicated worker that executes the calls of remote-files.ts over OPFS. */

import { CodError } from '../../src/errors.ts';
import type { File, FileSystem, OpenOptions } from '../../src/fs/file-system.ts';
import { opfsFileSystem } from '../../src/fs/opfs.ts';

export type FileCall =
  | { readonly kind: 'start'; readonly directory: FileSystemDirectoryHandle; readonly bootId: string | undefined }
  | { readonly kind: 'open'; readonly name: string; readonly options: OpenOptions }
  | { readonly kind: 'remove'; readonly name: string }
  | { readonly kind: 'size' | 'sync' | 'close'; readonly file: number }
  | { readonly kind: 'read'; readonly file: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'write'; readonly file: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'truncate'; readonly file: number; readonly size: number };

let fileSystem: FileSystem;
const files: File[] = [];

async function run(call: FileCall): Promise<unknown> {
  switch (call.kind) {
    case 'start':
      fileSystem = opfsFileSystem(call.directory, call.bootId === undefined ? {} : { bootId: call.bootId });
      return undefined;
    case 'open':
      return files.push(await fileSystem.open(call.name, call.options)) - 1;
    case 'remove':
      return fileSystem.remove(call.name);
    case 'read': {
      const bytes = new Uint8Array(call.length);
      await files[call.file]!.read(bytes, call.offset);
      return bytes;
    }
    case 'write':
      return files[call.file]!.write(call.bytes, call.offset);
    case 'truncate':
      return files[call.file]!.truncate(call.size);
    default:
      return files[call.file]![call.kind]();
  }
}

self.addEventListener('message', async ({ data: { id, call } }: MessageEvent<{ id: number; call: FileCall }>) => {
  try {
    postMessage({ id, value: await run(call) });
  } catch (error) {
    postMessage({ id, error: error instanceof CodError ? error.toJSON() : error });
  }
});
