// Runs a TypeScript module, which Node 20 cannot do by itself: `import { runTs } from '../scripts/run-ts.mjs'` or
// `node scripts/run-ts.mjs <entry.ts> [arguments]`. esbuild bundles the module into node_modules/.cache, without
// packages.
import { mkdir } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const cache = fileURLToPath(new URL('../node_modules/.cache/run-ts/', import.meta.url));

/**
 * Bundles the module `entry` and imports the bundle. Resolves to its exports.
 *
 * @param {string | URL} entry a path or file URL
 */
export async function runTs(entry) {
  const path = entry instanceof URL ? fileURLToPath(entry) : entry;
  // Each process has its own file, so that concurrent runs do not overwrite each other's.
  const outfile = `${cache}${basename(path, '.ts')}-${process.pid}.mjs`;
  await mkdir(cache, { recursive: true });
  await build({
    entryPoints: [path],
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    sourcemap: 'inline',
    logLevel: 'error',
  });
  return import(pathToFileURL(outfile).href);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [entry] = process.argv.splice(2, 1);
  if (entry === undefined) {
    console.error('usage: node scripts/run-ts.mjs <entry.ts> [arguments]');
    process.exit(2);
  }
  await runTs(entry);
}
