/** Runs unit tests with a planted bug: with the patches that COD_PLANTED_PATCHES holds as JSON. */

import { join } from 'node:path';
import type { Plugin } from 'vitest/config';
import { type Patch, patched } from '../crash/patched-build.ts';

/** Patches the sources as they are loaded. Without COD_PLANTED_PATCHES it does nothing. */
export function plantedPatches(): Plugin[] {
  const given = process.env['COD_PLANTED_PATCHES'];
  if (given === undefined) return [];
  const patches = JSON.parse(given) as Patch[];
  return [
    {
      name: 'planted-patches',
      enforce: 'pre',
      transform(code, id) {
        const here = patches.filter(({ file }) => id === join(process.cwd(), file));
        return here.length === 0 ? undefined : { code: patched(code, here), map: null };
      },
    },
  ];
}
