/** Bundles JavaScript that imports this package by name, as a user does, with the sources of this repository. */

import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { onTestFinished } from 'vitest';
import { NODE_BUNDLE } from './node-bundle.ts';

const root = join(import.meta.dirname, '../..');
let count = 0;

/**
 * Bundles a module for Node, where it finds its packages. The bundle is removed when the test ends.
 * @returns the bundle's path
 */
export async function bundleUser(contents: string): Promise<string> {
  const folder = join(root, 'node_modules/.cache/test-processes');
  mkdirSync(folder, { recursive: true });
  const outfile = join(folder, `user-${process.pid}-${count++}.mjs`);
  await build({
    ...NODE_BUNDLE,
    stdin: { contents, resolveDir: root, sourcefile: 'user.js' },
    alias: {
      'copyondemand/log': join(root, 'src/log.ts'),
      'copyondemand/memfs': join(root, 'src/memfs.ts'),
      'copyondemand/node': join(root, 'src/node.ts'),
      'copyondemand/testing': join(root, 'src/testing/index.ts'),
    },
    outfile,
    logLevel: 'error',
  });
  onTestFinished(() => rmSync(outfile, { force: true }));
  return outfile;
}
