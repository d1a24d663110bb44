/**
 * What a page loads for a device is one page file and one worker file: compressed as a server does it, at most 30 kB more than roaring-wasm takes by itself. Beside
 * that, what of them is our own, since the worker file has roaring-wasm packed tighter than it comes.
 */
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const BESIDE_ROARING_BYTES = 30_000;
const OWN_BYTES = 51_000;

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
  outdir: ownFolder,
});

export default [
  {
    name: `page and worker, beside the ${roaringBytes} B of roaring-wasm by itself`,
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
