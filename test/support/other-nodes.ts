/** The other majors of Node that scripts/test-node-majors.mjs installed. */

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const folder = join(import.meta.dirname, '../../.ci/nodes/node_modules');

/** Each installed major with its program, the newest first. */
export function otherNodes(): { major: number; program: string }[] {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  return names
    .flatMap((name) => {
      const major = Number(/^node(\d+)$/.exec(name)?.[1]);
      return Number.isNaN(major) ? [] : [{ major, program: join(folder, name, 'bin', 'node') }];
    })
    .sort((one, other) => other.major - one.major);
}
