/** Options for bundling TypeScript for Node 20, which cannot run it. Packages are not bundled. */

import type { BuildOptions } from 'esbuild';

export const NODE_BUNDLE: BuildOptions = {
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  packages: 'external',
};
