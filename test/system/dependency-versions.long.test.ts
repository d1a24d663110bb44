/** The lowest and the newest supported version of each package that users may install beside this package. */

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { otherNodes } from '../support/other-nodes.ts';
import { userEnvironment } from '../support/packed-package.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
  dependencies: Record<string, string>;
  peerDependencies: Record<string, string>;
};
const ranges = { ...manifest.dependencies, ...manifest.peerDependencies };

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cod-versions-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Installs `spec` into a new folder. */
async function install(
  name: string,
  spec: string,
): Promise<{ place: string; version: string; node: string | undefined }> {
  const place = join(folder, `${name}-${spec.replaceAll(/\W+/g, '-')}`);
  await mkdir(place);
  await writeFile(join(place, 'package.json'), '{ "private": true }');
  const args = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error', `${name}@${spec}`];
  await run('npm', args, { cwd: place }).catch((error: { stderr?: string }) => {
    throw new Error(
      `npm cannot install ${name}@${spec}; this test needs the npm registry or a filled cache: ${error.stderr}`,
    );
  });
  const installed = JSON.parse(await readFile(join(place, 'node_modules', name, 'package.json'), 'utf8')) as {
    version: string;
    engines?: { node?: string };
  };
  return { place, version: installed.version, node: installed.engines?.node };
}

/** Runs unit tests with the packages of `place`. The error contains the failed tests. */
async function runTests(place: string, files: readonly string[], node = process.execPath): Promise<void> {
  const args = [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', '--project', 'unit', ...files];
  const found = await run(node, args, { cwd: root, env: { COD_TEST_PACKAGES: place, NO_COLOR: '1' } }).catch(
    (error: { stdout: string; stderr: string }) => {
      throw new Error(`${error.stdout}\n${error.stderr}`);
    },
  );
  expect(found.stdout).toMatch(/Tests +\d+ passed/);
}

function run(
  command: string,
  args: readonly string[],
  { cwd, env }: { cwd: string; env?: Record<string, string> },
): Promise<{ stdout: string; stderr: string }> {
  return promisify(execFile)(command, args, { cwd, env: { ...userEnvironment(), ...env }, maxBuffer: 1 << 24 });
}

/** Whether a Node of `version` satisfies `>=x.y.z`. */
function suffices(version: string, wanted: string | undefined): boolean {
  const [major = 0, minor = 0] =
    /^>=(\d+)\.(\d+)/
      .exec(wanted ?? '')
      ?.slice(1)
      .map(Number) ?? [];
  const [hasMajor = 0, hasMinor = 0] = version.split('.').map(Number);
  return hasMajor > major || (hasMajor === major && hasMinor >= minor);
}

/** The lowest version of a range, and the last part of the range, whose newest version npm installs. */
function ends(name: string): [lowest: string, newest: string] {
  const range = ranges[name]!;
  return [/\d+\.\d+\.\d+/.exec(range)![0], range.split('||').at(-1)!.trim()];
}

const suites: [name: string, files: string[]][] = [
  ['roaring-wasm', ['test/core/block-map.test.ts', 'test/core/golden.test.ts']],
  ['memfs', ['test/fs/memfs.test.ts']],
  ['undici', ['test/sources/http.test.ts', 'test/sources/sources.test.ts']],
];

describe.each(suites)('%s', (name, files) => {
  const [lowest, newest] = ends(name);
  const tested = new Set<string>();

  test.each([
    ['lowest', lowest],
    ['newest', newest],
  ])('the %s version, %s, passes the tests of its users', async (_, spec) => {
    const { place, version, node } = await install(name, spec);
    if (tested.has(version)) return;
    tested.add(version);
    if (suffices(process.versions.node, node)) {
      await runTests(place, files);
      return;
    }
    // undici 8 does not run in Node 20, where requests use fetch.
    await runTests(place, ['test/sources/sources.test.ts']);
    const [other] = otherNodes();
    if (other !== undefined) await runTests(place, files, other.program);
  });
});
