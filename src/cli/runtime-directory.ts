/** The directory in which processes of one user exchange files that need not survive a reboot. */

import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { CodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';

/**
 * Makes the directory `name` in this user's runtime directory unless it exists, and returns its path.
 * The runtime directory is `$XDG_RUNTIME_DIR/copyondemand`. Without that variable it is `copyondemand-UID` in the
 * system's temporary directory.
 * @throws {@link CodError} COD_TARGET_IO if the directory cannot be made, has another owner, or is writable by others.
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
    if (errnoOf(error) !== 'EEXIST') throw ioError(`create the directory ${path}`, error);
  }
  // The temporary directory is shared: another user may have made this path before, as a link to another place.
  const stats = fs.lstatSync(path);
  const user = userId();
  if (stats.isDirectory() && (user === undefined || (stats.uid === user && (stats.mode & 0o022) === 0))) return;
  throw new CodError(
    'COD_TARGET_IO',
    `${path} is not a directory that only this user can write to: remove it or set XDG_RUNTIME_DIR`,
    {
      details: { path },
    },
  );
}

/** Undefined on Windows, where each user has a temporary directory. */
function userId(): number | undefined {
  return process.getuid?.();
}
