/** The files that checks of texts read. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const IGNORED_FOLDERS = new Set(['.git', 'node_modules', 'dist', 'build', 'coverage']);

/**
 * Returns the paths of all tracked files, relative to the folder. A folder without git is read as a whole.
 * @param {string} folder
 */
export function trackedFiles(folder) {
  // Inside the work tree of another repository, `git ls-files` would list that repository's files.
  if (existsSync(join(folder, '.git'))) {
    const options = { cwd: folder, encoding: /** @type {const} */ ('utf8'), maxBuffer: 2 ** 26 };
    return execFileSync('git', ['ls-files', '-z'], options).split('\0').filter(Boolean);
  }
  /** @type {string[]} */
  const files = [];
  const visit = (/** @type {string} */ prefix) => {
    for (const entry of readdirSync(join(folder, prefix), { withFileTypes: true })) {
      const path = `${prefix}${entry.name}`;
      if (entry.isFile()) files.push(path);
      else if (entry.isDirectory() && !IGNORED_FOLDERS.has(entry.name)) visit(`${path}/`);
    }
  };
  visit('');
  return files;
}
