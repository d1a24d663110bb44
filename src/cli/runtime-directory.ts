/** Where processes of one user leave notes for each other that need not survive a boot. */

import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { CodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';

/**
 * Makes the folder `name` in this user's runtime folder, unless it is there, and returns its path: below `XDG_RUNTIME_DIR`, or, where that is not set,
 * below `copyondemand-UID` in the system's folder for temporary files.
 * @throws {@link CodError} COD_TARGET_IO if it cannot be made, or belongs to somebody else, or others may write there.
 */
export function runtimeDirectory(name: string): string {
  const runtime = process.env['XDG_RUNTIME_DIR'];
  const base =
    runtime !== undefined && isAbsolute(runtime)
      ? join(runtime, 'copyondemand')
      : join(tmpdir(), `copyondemand-${userId() ?? 'user'}`);
  const path = join(base, name);
  for (const directory of [base, path]) makeOwn(directory);
  return path;
}

function makeOwn(path: string): void {
  try {
    fs.mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw ioError(`make the folder ${path}`, error);
  }
  // The folder for temporary files is everybody's: somebody may have been there first, with a link to elsewhere.
  const stats = fs.lstatSync(path);
  const user = userId();
  if (stats.isDirectory() && (user === undefined || (stats.uid === user && (stats.mode & 0o022) === 0))) return;
  throw new CodError(
    'COD_TARGET_IO',
    `${path} is not a folder that only this user may write to: remove it, or set XDG_RUNTIME_DIR`,
    {
      details: { path },
    },
  );
}

/** Undefined on Windows, where the folder for temporary files is the user's own. */
function userId(): number | undefined {
  return process.getuid?.();
}
