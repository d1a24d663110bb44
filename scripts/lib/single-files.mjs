/** Bundles entries into one minified file each. */
import { build } from 'esbuild';
import { root } from './steps.mjs';

/**
 * Bundles each entry into one file in `outdir`.
 * @param {readonly { source: string, bundle: string }[]} entries
 * @param {string} outdir
 * @param {import('esbuild').BuildOptions} options
 * @returns the bundled files, relative to the root
 */
export async function buildSingleFiles(entries, outdir, options) {
  const { metafile } = await build({
    ...options,
    absWorkingDir: root,
    entryPoints: entries.map(({ source, bundle }) => ({ in: source, out: bundle.replace(/\.js$/, '') })),
    outdir,
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    metafile: true,
    sourcemap: true,
    sourcesContent: false,
    logLevel: 'warning',
  });
  return Object.keys(metafile.inputs);
}
