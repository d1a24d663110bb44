/**
 * `npm run sbom`: prints a software bill of materials in CycloneDX: the packages that a user installs with this one,
 * and those that are bundled in the command.
 *
 * npm knows the installed ones. For npm the bundled ones are development dependencies; dist/LICENSES.txt lists them.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { capture, ensureBuilt, ensureInstalled, root, script } from './lib/steps.mjs';

/**
 * @typedef {{ name: string, version: string, 'bom-ref': string, scope?: string }} Component
 * @typedef {{ ref: string, dependsOn: string[] }} Dependency
 * @typedef {{ metadata: { component: Component }, components: Component[], dependencies: Dependency[] }} Bill
 */

/**
 * Returns npm's bill of materials.
 * @param {...string} args
 * @returns {Promise<Bill>}
 */
async function npmBill(...args) {
  return JSON.parse(await capture('npm', ['sbom', '--sbom-format=cyclonedx', '--package-lock-only', ...args]));
}

await script(async () => {
  await ensureInstalled();
  await ensureBuilt();
  const licences = readFileSync(join(root, 'dist', 'LICENSES.txt'), 'utf8');
  const bundled = new Set(
    [...licences.matchAll(/^(\S+) (\d\S*), /gm)].map(([, name, version]) => `${name}@${version}`),
  );
  const bill = await npmBill();
  const installed = new Set((await npmBill('--omit=dev', '--omit=optional', '--omit=peer')).components.map(nameOf));
  const components = bill.components.filter((each) => installed.has(nameOf(each)) || bundled.has(nameOf(each)));
  const missing = [...bundled].filter((name) => !components.some((each) => nameOf(each) === name));
  if (missing.length > 0) throw new Error(`package-lock.json has no ${missing.join(', ')}`);
  const kept = new Set(components.map((each) => each['bom-ref']));
  const dependencies = bill.dependencies
    .filter(({ ref }) => kept.has(ref) || !bill.components.some((each) => each['bom-ref'] === ref))
    .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter((other) => kept.has(other)) }));
  const required = components.map((each) => ({ ...each, scope: 'required' }));
  // npm names the package by its folder.
  bill.metadata.component.name = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).name;
  console.log(JSON.stringify({ ...bill, components: required, dependencies }, undefined, 2));
});

/** @param {Component} component */
function nameOf({ name, version }) {
  return `${name}@${version}`;
}
