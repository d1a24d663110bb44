/**
 * Finds the programs that tests need. A test without its program is skipped, or fails in a CI that could install it.
 */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe } from 'vitest';

/** Returns the path of a program. Looks into `PATH` and the system folders, which a user's `PATH` often lacks. */
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
 * Whether the program `name`, or the file at that path, is on this machine.
 * @throws Error when it is missing under `CI=true npm test`, on a machine where the tests can install programs.
 *   scripts/lib/system-packages.mjs lists their packages.
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

/**
 * `describe` for tests that need the programs and files `tools`. If some are missing, the tests are skipped, and the
 * name lists the missing ones.
 */
export function describeWith(
  tools: readonly string[],
  name: string,
  body: () => void,
  { retry = 0 }: { retry?: number } = {},
): void {
  const missing = tools.filter((tool) => !haveTool(tool));
  const title = missing.length > 0 ? `${name} (missing: ${missing.join(', ')})` : name;
  describe.skipIf(missing.length > 0)(title, { retry }, body);
}

/**
 * {@link describeWith} for tests that look at a page as a user does. A busy machine draws late and loses a click now
 * and then, so a test may fail once. The last lines of .ci/run name such tests. What a device promises is tested
 * elsewhere, and there no test may fail.
 */
export function describePage(tools: readonly string[], name: string, body: () => void): void {
  describeWith(tools, name, body, { retry: 1 });
}
