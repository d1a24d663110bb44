/** Bundles of the commands: each one minified file with the packages in it that only take time to find and link, a quarter of the time to the first byte. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildSingleFiles } from './single-files.mjs';
import { root, StepError } from './steps.mjs';

/**
 * @param {readonly { source: string, bundle: string }[]} entries
 * @param {string} outdir
 * @returns the names of the packages that are in them
 */
export async function bundleCommands(entries, outdir) {
  const files = await buildSingleFiles(entries, outdir, {
    platform: 'node',
    // For the packages that are CommonJS.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    plugins: [required, onlyTheClient],
  });
  const packages = files.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]);
  return [...new Set(packages)].filter((name) => name !== undefined).sort();
}

/**
 * The licences of packages, as they must go with copies of them.
 * @param {readonly string[]} packages
 */
export function licencesOf(packages) {
  const texts = packages.map((name) => {
    const folder = join(root, 'node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const file = ['LICENSE', 'LICENSE.md', 'LICENSE.txt', 'LICENSE-MIT.txt', 'license']
      .map((candidate) => join(folder, candidate))
      .find(existsSync);
    if (file === undefined) throw new StepError(`${folder} has no licence file`, '', 1);
    return `${name} ${version}, ${license}\n\n${readFileSync(file, 'utf8').trim()}\n`;
  });
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

/**
 * Node's own modules are loaded by `require` when they are first used.
 * An import loads all of them at the start and wraps each in a module of its own.
 * Exception: node:fs. It is loaded anyway, and the getters of a required module slow down reads and writes of a block.
 * @type {import('esbuild').Plugin}
 */
const required = {
  name: 'required',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path, namespace }) =>
      namespace === 'required' || path === 'node:fs' ? { path, external: true } : { path, namespace: 'required' },
    );
    onLoad({ filter: /.*/, namespace: 'required' }, ({ path }) => ({
      contents: `module.exports = require('${path}');`,
      loader: 'js',
    }));
  },
};

/**
 * Of undici only its client is in the command, without HTTP/2, which src/sources/http/node-transport.ts does not offer.
 * Loading the rest takes three times as long.
 * The path is private to undici; package-lock.json pins the version that is bundled.
 * @type {import('esbuild').Plugin}
 */
const onlyTheClient = {
  name: 'only-the-client',
  setup({ onLoad }) {
    onLoad({ filter: /node_modules[\\/]undici[\\/]index\.js$/ }, () => ({
      contents: "module.exports = { Client: require('./lib/dispatcher/client.js') };",
      loader: 'js',
    }));
    onLoad({ filter: /undici[\\/]lib[\\/]dispatcher[\\/]client-h2\.js$/ }, () => ({
      contents: "module.exports = () => { throw new Error('HTTP/2 is not offered'); };",
      loader: 'js',
    }));
  },
};
