/** Runs tests with other versions of packages: those in the folder that COD_TEST_PACKAGES names. */

import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { Plugin } from 'vitest/config';

/** Resolves packages from that folder first. Without COD_TEST_PACKAGES it does nothing. */
export function otherPackages(): Plugin[] {
  const given = process.env['COD_TEST_PACKAGES'];
  if (given === undefined) return [];
  const folder = realpathSync(given);
  return [
    {
      name: 'other-packages',
      enforce: 'pre',
      async resolveId(id, _importer, options) {
        const [name = ''] = /^(@[^/]+\/)?[a-z][^/]*/.exec(id) ?? [];
        if (name === '' || !existsSync(join(folder, 'node_modules', name))) return undefined;
        // Vite resolves from the folder of an existing file.
        const found = await this.resolve(id, join(folder, 'package.json'), { ...options, skipSelf: true });
        if (!found?.id.startsWith(folder)) throw new Error(`${id} resolves to ${found?.id}, outside ${folder}`);
        return found;
      },
    },
  ];
}
