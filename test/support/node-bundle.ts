/** How tests bundle TypeScript for Node 20, which cannot run it by itself. Packages stay outside. */

import type { BuildOptions } from 'esbuild';

export const NODE_BUNDLE: BuildOptions = {
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  packages: 'external',
};
