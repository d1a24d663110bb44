/**
 * Makes the links of README.md absolute while the package is packed, since the registry's page has no other files.
 *
 * - `node scripts/pack-readme.mjs [FOLDER]` (prepack): keeps README.md as `README.md.kept`, and writes the other one in
 *   its place. Without `repository` in package.json the links stay.
 * - `node scripts/pack-readme.mjs --restore [FOLDER]` (postpack): puts README.md back.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './lib/steps.mjs';

const { values: options, positionals } = parseArgs({
  options: { restore: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const folder = positionals[0] ?? root;
const readme = join(folder, 'README.md');
const kept = `${readme}.kept`;
/** @type {{ version: string, repository?: string | { url: string } }} */
const { version, repository } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));

/** The address of a file of this version on GitHub or a similar site, from `git+https://github.com/owner/name.git`. */
function baseUrl() {
  const url = typeof repository === 'string' ? repository : repository?.url;
  if (url === undefined) return undefined;
  const address = url
    .replace(/^github:/, 'https://github.com/')
    .replace(/^git\+/, '')
    .replace(/\.git$/, '');
  return `${address}/blob/v${version}/`;
}

/**
 * @param {string} text
 * @param {string} base
 */
function withAbsoluteLinks(text, base) {
  return text
    .replace(/(!\[[^\]]*\]\()(?![a-z]+:|#)([^)\s]+)/g, `$1${base.replace('/blob/', '/raw/')}$2`)
    .replace(/((?<!!)\[[^\]]*\]\()(?![a-z]+:|#)([^)\s]+)/g, `$1${base}$2`);
}

// A pack that was interrupted has left the kept file.
if (existsSync(kept)) renameSync(kept, readme);
const base = baseUrl();
if (!options.restore && base !== undefined) {
  const text = readFileSync(readme, 'utf8');
  writeFileSync(kept, text);
  writeFileSync(readme, withAbsoluteLinks(text, base));
}
