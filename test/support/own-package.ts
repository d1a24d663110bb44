/** Bundles JavaScript that imports this package by name, as a user does, with the sources of this repository. */

import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { onTestFinished } from 'vitest';
import { NODE_BUNDLE } from './node-bundle.ts';

const root = join(import.meta.dirname, '../..');
let count = 0;

/** The entries of the package: the name that users import, and the path of the source. */
export const ENTRIES: ReadonlyMap<string, string> = new Map(
  Object.entries(
    (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { exports: Record<string, { types?: string }> })
      .exports,
  ).flatMap(([subpath, { types }]) =>
    types === undefined
      ? []
      : [[`copyondemand${subpath.slice(1)}`, join(root, types.replace('./dist/', 'src/').replace('.d.ts', '.ts'))]],
  ),
);

/**
 * Bundles a module of JavaScript or TypeScript for Node, where it finds its packages. The bundle is removed when the
 * test ends.
 * @returns the bundle's path
 */
export async function bundleUser(contents: string): Promise<string> {
  const folder = join(root, 'node_modules/.cache/test-processes');
  mkdirSync(folder, { recursive: true });
  const outfile = join(folder, `user-${process.pid}-${count++}.mjs`);
  await build({
    ...NODE_BUNDLE,
    stdin: { contents, resolveDir: root, sourcefile: 'user.ts', loader: 'ts' },
    alias: Object.fromEntries(ENTRIES),
    outfile,
    logLevel: 'error',
  });
  onTestFinished(() => rmSync(outfile, { force: true }));
  return outfile;
}
