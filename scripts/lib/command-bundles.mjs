/**
 * Bundles the commands: one minified file each, including their packages. Finding and linking the packages at run time
 * takes a quarter of the time to the first byte.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildSingleFiles } from './single-files.mjs';
import { root, StepError } from './steps.mjs';

/**
 * Bundles the commands into `outdir`.
 * @param {readonly { source: string, bundle: string }[]} entries
 * @param {string} outdir
 * @returns the names of the bundled packages
 */
export async function bundleCommands(entries, outdir) {
  const files = await buildSingleFiles(entries, outdir, {
    platform: 'node',
    // Some packages are CommonJS and call `require`.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    plugins: [required, onlyTheClient],
  });
  const packages = files.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]);
  return [...new Set(packages)].filter((name) => name !== undefined).sort();
}

/**
 * Returns the licences of packages, which must accompany copies of them.
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
 * Loads Node's own modules by `require` when they are first used. An import would load all of them at the start and
 * wrap each in a module of its own. Exception: node:fs. The command loads it anyway, and the getters of a required
 * module slow down reads and writes of a block.
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
 * Bundles only undici's client, without HTTP/2, which src/sources/http/node-transport.ts does not offer. Loading the
 * rest takes three times as long. The path is private to undici; package-lock.json pins the bundled version.
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
