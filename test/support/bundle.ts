/** TypeScript for processes of their own, which Node 20 cannot run by itself. */

import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll } from 'vitest';
import { NODE_BUNDLE } from './node-bundle.ts';

/** Bundles the module `name` of this folder, within reach of the packages it needs; gone when the file's tests are over. Returns its path. */
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
