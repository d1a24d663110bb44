/**
 * Builds `dist`: AssemblyScript to wasm to base64 in TypeScript, then bundles, then declarations.
 *
 * - The library's entries are one bundle each, with shared chunks.
 * - An entry that a page loads is one minified file without imports, so that a static server is enough.
 * - The command is one minified file too, for a quick start. Its man page is made from its definitions.
 * - package.json is the only list of entries. For each export, `types` names the source and `default` the bundle:
 *   dist/testing/index.d.ts comes from src/testing/index.ts.
 * - Imports by condition stay imports in the bundles. src/package.json names their sources.
 * - The build runs beside `dist` and replaces it in one step, so that a program never finds a partial build.
 *
 * --if-stale: does nothing if `dist` was built from the current sources.
 */
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { build } from 'esbuild';
import ts from 'typescript';
import { bundleCommands, licencesOf } from './lib/command-bundles.mjs';
import { keepOwnSources } from './lib/own-source-maps.mjs';
import { bundleForPages } from './lib/page-bundles.mjs';
import { capture, fingerprintFile, isBuilt, root, StepError, say, script, sourceFingerprint } from './lib/steps.mjs';
import { runTs } from './run-ts.mjs';

/**
 * @typedef {Record<string, Record<string, string>>} Imports
 * @typedef {Record<string, string | { types: string, default: string }>} Exports
 * @type {{ version: string, man: [string], exports: Exports, imports: Imports, bin: Record<string, string> }}
 */
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
/** @type {{ imports: Imports }} */
const sourceManifest = JSON.parse(readFileSync(join(root, 'src', 'package.json'), 'utf8'));

/**
 * The entries of the library.
 * @type {{ source: string, bundle: string }[]}
 */
const entries = Object.values(manifest.exports)
  .filter((target) => typeof target !== 'string')
  .map(({ types, default: bundle }) => ({
    source: types.replace('./dist/', 'src/').replace(/\.d\.ts$/, '.ts'),
    bundle: bundle.replace('./dist/', ''),
  }));
/**
 * The modules that entries import by condition. src/package.json names the sources, package.json the bundles.
 * @type {{ source: string, bundle: string }[]}
 */
const conditional = Object.entries(manifest.imports).flatMap(([name, conditions]) =>
  Object.entries(conditions).map(([condition, bundle]) => {
    const source = sourceManifest.imports[name]?.[condition];
    if (source === undefined) throw new Error(`src/package.json has no ${name} for ${condition}`);
    return { source: source.replace('./', 'src/'), bundle: bundle.replace('./dist/', '') };
  }),
);
/** Whether a page loads the entry without a bundler. */
const isForPages = (/** @type {{ source: string }} */ { source }) => /^src\/browser(-worker)?\.ts$/.test(source);
/**
 * The bundle of the command.
 * @type {{ source: string, bundle: string }[]}
 */
const commands = [...new Set(Object.values(manifest.bin))]
  .map((path) => path.replace(/^(\.\/)?dist\//, ''))
  .map((bundle) => ({ source: `src/${bundle.replace(/\.js$/, '.ts')}`, bundle }));

/** @param {string} outdir */
async function bundle(outdir) {
  await build({
    absWorkingDir: root,
    entryPoints: [...entries.filter((entry) => !isForPages(entry)), ...conditional].map(({ source, bundle }) => ({
      in: source,
      out: bundle.replace(/\.js$/, ''),
    })),
    outdir,
    bundle: true,
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    format: 'esm',
    target: 'es2022',
    // Makes esbuild leave `node:` imports alone. bundleForPages rejects them in files for pages, and
    // test/system/package.test.ts checks the isomorphic entry.
    platform: 'node',
    packages: 'external',
    external: Object.keys(manifest.imports),
    sourcemap: true,
    // The package contains the sources, for the declaration maps.
    sourcesContent: false,
    logLevel: 'warning',
  });
}

/** @param {string} outdir */
async function bundleExecutables(outdir) {
  const packages = await bundleCommands(commands, outdir);
  writeFileSync(join(outdir, 'LICENSES.txt'), licencesOf(packages));
  for (const { bundle } of commands) {
    const path = join(outdir, bundle);
    if (!readFileSync(path, 'utf8').startsWith('#!'))
      throw new StepError(`src/${bundle.replace(/\.js$/, '.ts')} does not begin with #!`, '', 1);
    chmodSync(path, 0o755);
  }
}

/**
 * Writes the man page of the command, which package.json names.
 * @param {string} outdir
 */
async function describeCommand(outdir) {
  const { manPage } = await runTs(join(root, 'src/cli/man-page.ts'));
  writeFileSync(join(outdir, basename(manifest.man[0])), manPage(manifest.version));
}

/**
 * Declarations with `AsyncDisposable` need this reference, because the `lib` of a user may be es2022, which lacks the
 * type. TypeScript has the library file since 5.2.
 */
const DISPOSABLE = '/// <reference lib="esnext.disposable" />\n';
const needsDisposable = (/** @type {string | undefined} */ text) =>
  /\b(AsyncDisposable|asyncDispose)\b/.test(text ?? '');
/**
 * Adapts a declaration map to a file that has one more line at its beginning.
 * @param {string} text
 */
function oneLineDown(text) {
  const map = JSON.parse(text);
  return JSON.stringify({ ...map, mappings: `;${map.mappings}` });
}

/**
 * Emits the declarations of all modules that the entries reach, without checking types: `npm run check` does that.
 * @param {string} outdir
 */
function declare(outdir) {
  const configPath = join(root, 'tsconfig.json');
  const { options } = ts.parseJsonConfigFileContent(
    ts.readConfigFile(configPath, ts.sys.readFile).config,
    ts.sys,
    root,
  );
  const program = ts.createProgram(
    entries.map(({ source }) => join(root, source)),
    { ...options, noEmit: false, noCheck: true, emitDeclarationOnly: true, rootDir: join(root, 'src'), outDir: outdir },
  );
  // The compiler leaves `./x.ts` in declarations unchanged, and `dist` has no such file.
  const toJavaScript = (/** @type {string} */ text) =>
    text.replace(/((?:from|import) ?\(?["']\.{1,2}\/[^"']+)\.ts(?=["'])/g, '$1.js');
  /** @type {Map<string, string>} */
  const files = new Map();
  const { diagnostics } = program.emit(undefined, (path, text) => files.set(path, text));
  for (const [path, text] of files) {
    mkdirSync(dirname(path), { recursive: true });
    if (path.endsWith('.map'))
      writeFileSync(path, needsDisposable(files.get(path.slice(0, -4))) ? oneLineDown(text) : text);
    else writeFileSync(path, `${needsDisposable(text) ? DISPOSABLE : ''}${toJavaScript(text)}`);
  }
  const host = {
    getCanonicalFileName: (/** @type {string} */ name) => name,
    getCurrentDirectory: () => root,
    getNewLine: () => '\n',
  };
  if (diagnostics.length > 0)
    throw new StepError('TypeScript emitted no declarations', ts.formatDiagnostics(diagnostics, host), 1);
}

await script(async () => {
  if (process.argv.includes('--if-stale') && isBuilt()) return;
  const fingerprint = sourceFingerprint();
  const dist = join(root, 'dist');
  const fresh = join(root, `.dist-${process.pid}`);
  const old = `${fresh}-old`;
  try {
    await capture(process.execPath, [join(root, 'scripts', 'build-wasm.mjs')]);
    mkdirSync(fresh);
    await bundle(fresh);
    await bundleExecutables(fresh);
    await describeCommand(fresh);
    await bundleForPages(entries.filter(isForPages), fresh);
    keepOwnSources(fresh);
    declare(fresh);
    writeFileSync(join(fresh, basename(fingerprintFile)), fingerprint);
    try {
      renameSync(dist, old);
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT') throw error;
    }
    renameSync(fresh, dist);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
    rmSync(old, { recursive: true, force: true });
  }
  say(`dist: ${entries.length} entries and ${commands.length} command`);
});
