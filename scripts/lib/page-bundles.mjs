/**
 * Bundles the files that a page loads without a bundler: one minified file for each entry, with roaring-wasm's browser
 * build, and one for the reader of qcow2 images, which the worker imports when it needs it.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { deflateAsync } from '@gfx/zopfli';
import { buildSingleFiles } from './single-files.mjs';
import { makeSmaller } from './smaller.mjs';
import { root, StepError } from './steps.mjs';

/**
 * @param {readonly { source: string, bundle: string }[]} entries
 * @param {string} outdir
 */
export async function bundleForPages(entries, outdir) {
  const options = { platform: /** @type {const} */ ('browser'), plugins: [packedRoaring, ...ownPlugins] };
  for (const entry of entries)
    await buildSingleFiles([entry], outdir, { ...options, define: /worker/.test(entry.source) ? WITHOUT_PAGE : {} });
  await buildSingleFiles([QCOW2], outdir, { platform: 'browser' });
  await Promise.all([...entries, QCOW2].map(({ bundle }) => makeSmaller(join(outdir, bundle))));
}

/**
 * Globals that a worker lacks. roaring-wasm and our code look for them. For `process` a bundler would add a package
 * (Parcel 2.16), or print a warning.
 */
const WITHOUT_PAGE = {
  process: 'undefined',
  document: 'undefined',
  window: 'undefined',
  'globalThis.Buffer': 'undefined',
};

const QCOW2 = { source: 'src/sources/qcow2/source.ts', bundle: 'browser-qcow2.js' };

/**
 * Leaves the import of the reader of qcow2 images to the page.
 * @type {import('esbuild').Plugin}
 */
const qcow2Apart = {
  name: 'qcow2-apart',
  setup({ onResolve }) {
    onResolve({ filter: /\/qcow2\/source\.ts$/ }, ({ kind }) =>
      kind === 'dynamic-import' ? { path: `./${QCOW2.bundle}`, external: true } : undefined,
    );
  },
};

/**
 * Leaves out what block devices need, and sources that answer at once: a page has none. Nor does it make many copies
 * from one server.
 * @type {import('esbuild').Plugin}
 */
const withoutLocalDisks = {
  name: 'without-local-disks',
  setup({ onLoad }) {
    onLoad({ filter: /\/block-device-target\.ts$/ }, () => ({ contents: 'export const prepareDevice = undefined;' }));
    onLoad({ filter: /\/known-streams\.ts$/ }, () => ({ contents: 'export const shareStreams = undefined;' }));
    onLoad({ filter: /\/read-through\.ts$/ }, () => ({ contents: 'export const newReadThrough = undefined;' }));
  },
};

/**
 * Browsers do not count the listeners of a signal.
 * @type {import('esbuild').Plugin}
 */
const withoutListenerCount = {
  name: 'without-listener-count',
  setup({ onLoad }) {
    onLoad({ filter: /\/async\/shared-abort\.ts$/ }, () => ({
      contents: 'export const sharedAbort = () => new AbortController();',
    }));
  },
};

/**
 * Puts the wasm core at the beginning of the worker's file. In the middle of the code it takes 0.7 kB more with gzip,
 * because code and wasm share a block then, and so the lengths of their characters' codes.
 * @type {import('esbuild').Plugin}
 */
const coreFirst = {
  name: 'core-first',
  setup({ onLoad, onResolve }) {
    onLoad({ filter: /\/src\/browser-worker\.ts$/ }, async ({ path }) => ({
      contents: `import './wasm/core.ts';\n${await readFile(path, 'utf8')}`,
      loader: 'ts',
    }));
    onResolve({ filter: /\/wasm\/core\.ts$/ }, ({ path, resolveDir }) => ({
      path: resolve(resolveDir, path),
      sideEffects: true,
    }));
  },
};

/** The plugins that a bundle of our own code for pages needs. */
export const ownPlugins = [qcow2Apart, withoutLocalDisks, withoutListenerCount, coreFirst];

const DATA = /"data:application\/octet-stream;base64,([A-Za-z0-9+/=]+)"/;
const INSTANTIATE = '.then((binary) => WebAssembly.instantiate(binary, imports))';
const INFLATE =
  '.then((packed) => new Response(new Blob([packed]).stream().pipeThrough(' +
  'new DecompressionStream("deflate-raw"))).arrayBuffer())';

/**
 * Compresses the wasm module in roaring-wasm, and inflates it where it is instantiated. A server cannot compress the
 * module well, because it is stored as base64: 93 kB. Compressed before the encoding it takes 70 kB, 3 kB less than by
 * zlib.
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
      const packed = await packedOnce(Buffer.from(module, 'base64'));
      return { contents: text.replace(module, packed).replace(INSTANTIATE, INFLATE + INSTANTIATE), loader: 'js' };
    });
  },
};

/**
 * Compresses a module by Zopfli, which takes seconds, unless an earlier build has.
 * @param {Buffer} module
 * @returns {Promise<string>} base64
 */
async function packedOnce(module) {
  const digest = createHash('sha256').update(module).digest('hex');
  const path = join(root, 'node_modules/.cache/packed', digest);
  const kept = await readFile(path, 'utf8').catch(() => '');
  if (kept !== '') return kept;
  const packed = Buffer.from(await deflateAsync(module, {})).toString('base64');
  await mkdir(dirname(path), { recursive: true });
  await writeFile(`${path}.${process.pid}`, packed);
  await rename(`${path}.${process.pid}`, path);
  return packed;
}
