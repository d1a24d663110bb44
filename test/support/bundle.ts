/** Bundles TypeScript for child processes: Node 20 cannot run it. */

import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll } from 'vitest';
import { NODE_BUNDLE } from './node-bundle.ts';

/**
 * Bundles the module `name` of this folder, where it finds its packages. The bundle is removed after the file's tests.
 * @returns the bundle's path
 */
export async function bundleForNode(name: string): Promise<string> {
  const folder = join(import.meta.dirname, '../../node_modules/.cache/test-processes');
  mkdirSync(folder, { recursive: true });
  const outfile = join(folder, `${name.replace('.ts', '')}-${process.pid}.mjs`);
  await build({
    ...NODE_BUNDLE,
    entryPoints: [join(import.meta.dirname, name)],
    outfile,
    logLevel: 'error',
  });
  afterAll(() => rmSync(outfile, { force: true }));
  return outfile;
}
