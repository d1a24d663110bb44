import { realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { ioError } from '../platform/errno.ts';

/** Returns the directory of a path, without symbolic links. @throws {@link CodError} COD_NOT_FOUND; COD_TARGET_IO */
export function directoryOf(path: string): string {
  try {
    return realpathSync(dirname(path));
  } catch (cause) {
    throw ioError(`find the directory of ${path}`, cause, { path });
  }
}
