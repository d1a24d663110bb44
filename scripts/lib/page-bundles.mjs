/**
 * Bundles the entries that a page loads without a bundler: one minified file each, with roaring-wasm's browser build.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { buildSingleFiles } from './single-files.mjs';
import { makeSmaller } from './smaller.mjs';
import { StepError } from './steps.mjs';

/**
 * @param {readonly { source: string, bundle: string }[]} entries
 * @param {string} outdir
 */
export async function bundleForPages(entries, outdir) {
  await buildSingleFiles(entries, outdir, { platform: 'browser', plugins: [packedRoaring] });
  await Promise.all(entries.map(({ bundle }) => makeSmaller(join(outdir, bundle))));
}

const DATA = /"data:application\/octet-stream;base64,([A-Za-z0-9+/=]+)"/;
const INSTANTIATE = '.then((binary) => WebAssembly.instantiate(binary, imports))';
const INFLATE =
  '.then((packed) => new Response(new Blob([packed]).stream().pipeThrough(' +
  'new DecompressionStream("deflate-raw"))).arrayBuffer())';

/**
 * Compresses the wasm module in roaring-wasm, and inflates it where it is instantiated. A server cannot compress the
 * module well, because it is stored as base64: 93 kB. Compressed before the encoding it takes 73 kB.
 * @type {import('esbuild').Plugin}
 */
const packedRoaring = {
  name: 'packed-roaring',
  setup({ onLoad }) {
    onLoad({ filter: /roaring-wasm[\\/]browser[\\/]index\.mjs$/ }, async ({ path }) => {
      const text = await readFile(path, 'utf8');
      const module = DATA.exec(text)?.[1];
      if (module === undefined || text.split(INSTANTIATE).length !== 2)
        throw new StepError(`${path} has changed: its wasm module is not where the build expects it`, '', 1);
      const packed = deflateRawSync(Buffer.from(module, 'base64'), { level: 9, memLevel: 9 }).toString('base64');
      return { contents: text.replace(module, packed).replace(INSTANTIATE, INFLATE + INSTANTIATE), loader: 'js' };
    });
  },
};
