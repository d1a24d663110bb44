/** Tests that need a program of the system: skipped where it is missing, but failing where CI could have installed it. */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe } from 'vitest';

/** Where a program is: `PATH`, and the folders of the system's own programs, which a user's `PATH` often leaves out. */
export function toolPath(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether the program `name`, or the file with that path, is on this machine.
 * @throws Error if it is not and must be: under `CI=true npm test` on a machine where the tests install what they need. The list of
 *   packages is in scripts/lib/system-packages.mjs.
 */
export function haveTool(name: string): boolean {
  const found = name.startsWith('/') ? existsSync(name) : toolPath(name) !== undefined;
  if (!found && process.env['COD_REQUIRE_TOOLS'] === '1') {
    throw new Error(
      `${name} is missing, and no test may be skipped in CI: add its package to scripts/lib/system-packages.mjs`,
    );
  }
  return found;
}

/** `describe` for tests that need the programs and files `tools`; its name says which are missing if they are skipped for it. */
export function describeWith(tools: readonly string[], name: string, body: () => void): void {
  const missing = tools.filter((tool) => !haveTool(tool));
  describe.skipIf(missing.length > 0)(missing.length > 0 ? `${name} (no ${missing.join(', ')} here)` : name, body);
}
