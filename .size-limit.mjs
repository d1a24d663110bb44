/**
 * Limits of the two files that a page loads for a device: one for the page, one for its worker. The reader of qcow2
 * images is a third file, which is loaded for such an image only.
 *
 * 1. Both files together, compressed with gzip: at most 40.3 kB more than roaring-wasm alone.
 * 2. Our own code in both files. The worker file compresses roaring-wasm better than its package does, so limit 1 alone
 *    would let our code grow unnoticed.
 */
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { ownPlugins } from './scripts/lib/page-bundles.mjs';
import { makeSmaller } from './scripts/lib/smaller.mjs';

const BESIDE_ROARING_BYTES = 40_300;
const OWN_BYTES = 68_500;

const root = fileURLToPath(new URL('.', import.meta.url));
const ownFolder = 'node_modules/.cache/size';
/** @type {import('esbuild').BuildOptions} */
const options = {
  absWorkingDir: root,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  platform: 'browser',
};

const roaring = await build({
  ...options,
  stdin: { contents: "export * from 'roaring-wasm/browser'", resolveDir: root },
  write: false,
});
const roaringBytes = roaring.outputFiles.reduce(
  (sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length,
  0,
);
await build({
  ...options,
  entryPoints: ['src/browser.ts', 'src/browser-worker.ts'],
  external: ['roaring-wasm'],
  plugins: ownPlugins,
  // As in the worker.
  define: { 'globalThis.Buffer': 'undefined' },
  outdir: ownFolder,
});
await Promise.all(['browser', 'browser-worker'].map((name) => makeSmaller(`${root}${ownFolder}/${name}.js`)));

export default [
  {
    name: `page and worker (roaring-wasm alone: ${roaringBytes} B)`,
    path: ['dist/browser.js', 'dist/browser-worker.js'],
    gzip: true,
    limit: `${roaringBytes + BESIDE_ROARING_BYTES} B`,
  },
  {
    name: 'our own code in page and worker',
    path: [`${ownFolder}/browser.js`, `${ownFolder}/browser-worker.js`],
    gzip: true,
    limit: `${OWN_BYTES} B`,
  },
];
