/** The package as users get it: packed, installed into an empty folder, imported, bundled and compiled against. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { otherNodes } from '../support/other-nodes.ts';
import { packInto, userEnvironment } from '../support/packed-package.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
  name: string;
  version: string;
  bin: Record<string, string>;
  exports: Record<string, string | object>;
  imports: Record<string, { default: string }>;
  devDependencies: Record<string, string>;
};
const entries = Object.entries(manifest.exports)
  .filter(([, target]) => typeof target === 'object')
  .map(([subpath]) => `${manifest.name}${subpath.slice(1)}`);
/** Not importable: this entry is a worker. */
const worker = `${manifest.name}/browser-worker`;
const modules = entries.filter((entry) => entry !== worker);

const INSTALL = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];

let folder: string;
let packedFiles: string[];

/** Runs a program in the consumer's folder and returns its stdout. */
async function run(command: string, args: readonly string[], cwd = folder): Promise<string> {
  const { stdout } = await promisify(execFile)(command, args, { cwd, env: userEnvironment(), maxBuffer: 1 << 24 });
  return stdout;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'copyondemand-consumer-'));
  const { tarball, files } = await packInto(folder);
  packedFiles = files;
  await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  const memfs = `memfs@${manifest.devDependencies['memfs']}`;
  await run('npm', [...INSTALL, tarball, memfs]);
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

test('the tarball contains the build, its sources and the licence, and no development files', () => {
  expect(packedFiles).toEqual(
    expect.arrayContaining(['package.json', 'LICENSE', 'NOTICE', 'dist/index.js', 'dist/index.d.ts', 'src/index.ts']),
  );
  expect(
    packedFiles.filter(
      (path) =>
        !/^(dist|src|docs)\/|^(package\.json|LICENSE|NOTICE|(CHANGELOG|README|SECURITY|SUPPORT)\.md)$/.test(path),
    ),
  ).toEqual([]);
  expect(packedFiles.filter((path) => /fingerprint|neutral-globals|^src\/package\.json/.test(path))).toEqual([]);
});

test('every source of a source map is in the tarball', async () => {
  for (const path of packedFiles.filter((each) => each.endsWith('.map'))) {
    const text = await readFile(join(folder, 'node_modules', manifest.name, path), 'utf8');
    const { sources, mappings } = JSON.parse(text) as { sources: string[]; mappings: string };
    // A file that only exports another one has no code.
    if (sources.length > 0) expect(mappings.length, path).toBeGreaterThan(0);
    const names = sources.map((source) => join(dirname(path), source));
    expect(names.filter((name) => !packedFiles.includes(name))).toEqual([]);
  }
});

describe('every export can be imported', () => {
  const nodes = [
    [`Node ${process.versions.node}`, process.execPath] as const,
    ...otherNodes().map(({ major, program }) => [`Node ${major}`, program] as const),
  ];
  for (const [name, program] of nodes) {
    test(`by ${name}`, async () => {
      const entries = JSON.stringify(modules);
      const script = `for (const entry of ${entries}) console.log(entry, Object.keys(await import(entry)).length > 0);`;
      const lines = (await run(program, ['--input-type=module', '-e', script])).trim().split('\n');
      expect(lines).toEqual(modules.map((entry) => `${entry} true`));
    });
  }
});

test('npx runs the command, which has one name', async () => {
  expect(await run('npx', ['--no-install', 'copyondemand', '--version'])).toBe(`${manifest.version}\n`);
  expect(Object.keys(manifest.bin)).toEqual(['copyondemand']);
});

test('the command bundles its packages with their licences, and copies', async () => {
  // Only dependencies are installed here, so these packages must be in the bundle.
  for (const name of ['commander', 'cli-progress'])
    expect(existsSync(join(folder, 'node_modules', name)), name).toBe(false);
  const licences = await readFile(join(folder, 'node_modules', manifest.name, 'dist', 'LICENSES.txt'), 'utf8');
  for (const name of ['undici', 'commander', 'cli-progress', 'roaring-wasm'])
    expect(licences).toMatch(new RegExp(`^${name} [0-9.]+, `, 'm'));
  await writeFile(join(folder, 'image'), Buffer.alloc(100_000, 'abc'));
  await run('npx', ['--no-install', 'copyondemand', 'copy', '--quiet', 'image', 'copied']);
  expect((await readFile(join(folder, 'copied'))).equals(await readFile(join(folder, 'image')))).toBe(true);
});

test.each(['index.js', 'log.js'])('the isomorphic entry %s and its chunks import no Node module', async (entry) => {
  const seen = new Set<string>();
  const visit = async (path: string): Promise<void> => {
    if (seen.has(path)) return;
    seen.add(path);
    const text = await readFile(path, 'utf8');
    expect(text, path).not.toMatch(/['"]node:/);
    for (const [, next] of text.matchAll(/(?:from|import)\s*\(?["']([.#][^"']+)["']/g))
      await visit(next!.startsWith('#') ? join(installed, manifest.imports[next!]!.default) : join(path, '..', next!));
  };
  const installed = join(folder, 'node_modules', manifest.name);
  await visit(join(installed, 'dist', entry));
  expect(seen.size).toBeGreaterThan(0);
  if (entry === 'index.js') expect(seen).toContain(join(installed, 'dist', 'http-transport', 'web.js'));
});

test('a bundle for browsers needs no configuration, and runs without the globals of Node', async () => {
  const { outputFiles } = await build({
    stdin: {
      contents: `import { openDevice } from '${manifest.name}'; globalThis.result = typeof openDevice;`,
      resolveDir: folder,
    },
    bundle: true,
    platform: 'browser',
    format: 'esm',
    write: false,
    logLevel: 'silent',
  });
  const bundle = join(folder, 'bundle.mjs');
  await writeFile(bundle, outputFiles[0]!.text);
  // Removes Node's own globals, so that the bundle runs as in a page.
  const script = `delete globalThis.Buffer; globalThis.process = undefined;
    await import(${JSON.stringify(bundle)}); console.log(globalThis.result);`;
  expect((await run(process.execPath, ['--input-type=module', '-e', script])).trim()).toBe('function');
});

test('a page loads one file for itself, one for the worker, and another for qcow2 images only', async () => {
  const imports: Record<string, string[]> = {
    'browser.js': ['"./browser-worker.js"'],
    'browser-worker.js': ['import("./browser-qcow2.js")'],
    'browser-qcow2.js': [],
  };
  for (const [name, expected] of Object.entries(imports)) {
    const { metafile } = await build({
      entryPoints: [join(folder, 'node_modules', manifest.name, 'dist', name)],
      bundle: true,
      platform: 'browser',
      format: 'esm',
      metafile: true,
      write: false,
      logLevel: 'silent',
    });
    expect(Object.keys(metafile.inputs).length, name).toBe(name === 'browser-worker.js' ? 2 : 1);
    const text = await readFile(join(folder, 'node_modules', manifest.name, 'dist', name), 'utf8');
    const found = [...text.matchAll(/(?:import\()?["']\.{1,2}\/[^"']*["']\)?/g)].map(([each]) => each);
    expect(found, name).toEqual(expected);
  }
});

test.each(modules.filter((entry) => /log|opfs|browser|testing/.test(entry)).concat(worker))(
  'a bundle for browsers with %s needs no configuration',
  async (entry) => {
    const { warnings, outputFiles } = await build({
      stdin: { contents: `import * as all from '${entry}'; console.log(all);`, resolveDir: folder },
      bundle: true,
      platform: 'browser',
      format: 'esm',
      write: false,
      logLevel: 'silent',
    });
    expect(warnings).toEqual([]);
    expect(outputFiles[0]!.text).not.toMatch(/['"]node:/);
  },
);

/** Entries whose declarations use no type of Node. */
const neutral = entries.filter((entry) => !/\/(node|nbd)$/.test(entry));

describe.each([
  ['6.0', join(root, 'node_modules', 'typescript', 'bin', 'tsc')],
  ['5.7', undefined],
])('the types compile in a strict consumer with TypeScript %s', (version, program) => {
  let compiler = program;
  beforeAll(async () => {
    if (compiler !== undefined) return;
    const place = join(folder, `typescript-${version}`);
    await mkdir(place);
    await writeFile(join(place, 'package.json'), '{ "private": true }');
    await run('npm', [...INSTALL, `typescript@~${version}.0`], place);
    compiler = join(place, 'node_modules', 'typescript', 'bin', 'tsc');
  });

  describe.each([
    ['nodenext', 'nodenext'],
    ['esnext', 'bundler'],
  ])('and module %s', (module, moduleResolution) => {
    test.each([
      ['all entries in Node', entries, { types: ['node'], skipLibCheck: true }],
      ['neutral entries without any types of Node', neutral, { types: [], skipLibCheck: false }],
    ])('%s', async (name, imported, options) => {
      const project = join(folder, `${version} ${module} ${name}`);
      await mkdir(project);
      const imports = imported.map(
        (entry, index) => `import * as entry${index} from '${entry}';\nexport { entry${index} };`,
      );
      await writeFile(
        join(project, 'main.ts'),
        `${imports.join('\n')}
import { openDevice } from '${manifest.name}';
export const open: (options: never) => Promise<unknown> = openDevice;
`,
      );
      const compilerOptions = {
        module,
        moduleResolution,
        target: 'es2022',
        lib: ['es2022', 'dom'],
        strict: true,
        exactOptionalPropertyTypes: true,
        noEmit: true,
        typeRoots: [join(root, 'node_modules', '@types')],
        ...options,
      };
      await writeFile(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }));
      const output = await run(process.execPath, [compiler!, '-p', project]).catch(
        (error: { stdout: string }) => error.stdout,
      );
      expect(output).toBe('');
    });
  });
});
