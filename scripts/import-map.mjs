/**
 * The imports between the folders of `src`, as a picture in docs/ARCHITECTURE.md.
 *
 *   node scripts/import-map.mjs           writes the picture
 *   node scripts/import-map.mjs --check   fails if the picture is not current
 *
 * Fails if a folder imports from its own layer or from a higher one. {@link LAYERS} is the only list of layers.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cruise } from 'dependency-cruiser';
import { root, StepError, say, script } from './lib/steps.mjs';

/** Folders, and `entries` for the files in `src` itself, from the top down. */
const LAYERS = [
  ['cli', 'web'],
  ['entries'],
  ['browser', 'control', 'nbd/server', 'nbd/client'],
  ['device', 'nbd'],
  ['log', 'testing'],
  ['core'],
  ['wasm', 'fs', 'sources'],
  ['platform'],
  ['async', 'errors.ts'],
];
const BEGIN = '<!-- imports: made by scripts/import-map.mjs -->';
const END = '<!-- /imports -->';

/** @param {string} path from the root */
function folderOf(path) {
  const parts = path.split('/').slice(1);
  if (parts[0] === 'errors.ts') return 'errors.ts';
  // The command and the page are users of the entries; the worker's file is part of `browser`.
  if (parts.length === 1) return 'entries';
  return parts[0] === 'nbd' && parts.length > 2 ? `nbd/${parts[1]}` : /** @type {string} */ (parts[0]);
}

/** Every pair of folders of which the first imports the second. */
async function importsBetweenFolders() {
  const { output } = await cruise(['src'], {
    baseDir: root,
    includeOnly: '^src/',
    exclude: { path: '^src/wasm/generated/' },
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
  });
  if (typeof output === 'string') throw new StepError('dependency-cruiser gave no modules', output, 1);
  /** @type {Map<string, Set<string>>} */
  const imports = new Map();
  for (const { source, dependencies } of output.modules) {
    const from = folderOf(source);
    for (const { resolved } of dependencies) {
      const to = folderOf(resolved);
      if (from !== to) imports.set(from, (imports.get(from) ?? new Set()).add(to));
    }
  }
  return imports;
}

/** @param {Map<string, Set<string>>} imports */
function checkLayers(imports) {
  const layer = (/** @type {string} */ folder) => LAYERS.findIndex((folders) => folders.includes(folder));
  const wrong = [];
  for (const [from, targets] of imports) {
    if (layer(from) < 0) wrong.push(`${from} has no layer: add it to LAYERS`);
    for (const to of targets)
      if (layer(to) <= layer(from)) wrong.push(`${from} must not import ${to}, which is not in a lower layer`);
  }
  if (wrong.length > 0) throw new StepError('imports must go from higher to lower layers', wrong.join('\n'), 1);
}

/**
 * Leaves out what follows from other arrows.
 * @param {Map<string, Set<string>>} imports
 */
function direct(imports) {
  /** @type {(from: string, to: string) => boolean} */
  const reaches = (from, to) => [...(imports.get(from) ?? [])].some((next) => next === to || reaches(next, to));
  return [...imports].flatMap(([from, targets]) =>
    [...targets]
      .filter((to) => ![...targets].some((other) => other !== to && reaches(other, to)))
      .map((to) => /** @type {const} */ ([from, to])),
  );
}

/** @param {Map<string, Set<string>>} imports */
function picture(imports) {
  const id = (/** @type {string} */ folder) => folder.replace(/\W/g, '_');
  const arrows = direct(imports).map(([from, to]) => `  ${id(from)} --> ${id(to)}`);
  return [
    BEGIN,
    '```mermaid',
    'flowchart TD',
    ...LAYERS.flat().map((folder) => `  ${id(folder)}["${folder}"]`),
    ...arrows.sort(),
    '```',
    END,
  ].join('\n');
}

await script(async () => {
  const imports = await importsBetweenFolders();
  checkLayers(imports);
  const name = 'docs/ARCHITECTURE.md';
  const path = join(root, name);
  const text = readFileSync(path, 'utf8');
  const [start, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (start < 0 || end < start) throw new StepError(`${name} does not contain ${BEGIN}`, '', 1);
  const renewed = text.slice(0, start) + picture(imports) + text.slice(end + END.length);
  if (renewed === text) return;
  if (process.argv.includes('--check')) {
    throw new StepError(`the import diagram in ${name} is out of date: run node scripts/import-map.mjs`, '', 1);
  }
  writeFileSync(path, renewed);
  say(`${name}: import diagram updated`);
});
