/** The package as its users get it: packed, and installed into a folder of theirs. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const root = join(import.meta.dirname, '../..');

/** The environment of a user: without the variables of the npm and the vitest that run the tests, and of the tests. */
export function userEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_|INIT_CWD$|NODE_OPTIONS$|VITEST|COD_)/i.test(name)),
  );
}

/** Runs a line of a shell in a user's folder. Resolves to its stdout; rejects if its exit code is not 0. */
export async function runLine(line: string, folder: string): Promise<string> {
  const { stdout } = await promisify(execFile)('sh', ['-c', line], {
    cwd: folder,
    env: userEnvironment(),
    maxBuffer: 1 << 24,
  });
  return stdout;
}

/** Starts a line of a shell in a user's folder, in a process group of its own. stdout is piped. */
export function startLine(line: string, folder: string): ChildProcess {
  return spawn('sh', ['-c', `exec ${line}`], {
    cwd: folder,
    env: userEnvironment(),
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
}

/** Packs the package into `folder`. Resolves to the path of the tarball, and the paths of the files in it. */
export async function packInto(folder: string): Promise<{ tarball: string; files: string[] }> {
  const packed = JSON.parse(await runLine(`npm pack --json --pack-destination '${folder}'`, root)) as unknown;
  const [made] = (Array.isArray(packed) ? packed : Object.values(packed as object)) as {
    filename: string;
    files: { path: string }[];
  }[];
  return { tarball: join(folder, made!.filename), files: made!.files.map(({ path }) => path) };
}
