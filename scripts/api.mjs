/**
 * `npm run api [-- --check]`: writes docs/API.md, a reference of all exports from their docstrings, and
 * docs/api/*.api.md, the exports of each entry with their signatures.
 *
 * - The reports come from the declarations in `dist`. A report without an entry is removed.
 * - A type in a signature that its entry does not export is an error.
 * - An export or a member without a docstring is an error, and so is a warning of typedoc.
 * - --check: writes nothing, and fails if a file is out of date.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { CompilerState, Extractor, ExtractorConfig } from '@microsoft/api-extractor';
import { apiDocument } from './lib/api-document.mjs';
import { ensureBuilt, root, StepError, say, script } from './lib/steps.mjs';

const docs = join(root, 'docs');
const folder = join(docs, 'api');
const document = 'API.md';
/** @type {{ name: string, exports: Record<string, string | { types: string }> }} */
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/**
 * The entries, and the declarations of their exports.
 * @type {[entry: string, path: string][]}
 */
const entries = Object.entries(manifest.exports).flatMap(([subpath, target]) =>
  typeof target === 'string' ? [] : [[`${manifest.name}${subpath.slice(1)}`, join(root, target.types)]],
);

/**
 * Writes the reports into the folder `reports` and returns the problems.
 * @param {string} reports
 */
function report(reports) {
  const configs = entries.map(([entry, path]) =>
    ExtractorConfig.prepare({
      packageJsonFullPath: join(root, 'package.json'),
      configObjectFullPath: undefined,
      configObject: {
        projectFolder: root,
        mainEntryPointFilePath: path,
        newlineKind: 'lf',
        compiler: {
          overrideTsconfig: {
            compilerOptions: {
              target: 'es2022',
              module: 'nodenext',
              lib: ['es2022', 'dom'],
              types: ['node'],
              strict: true,
              skipLibCheck: true,
            },
            files: entries.map(([, each]) => each),
          },
        },
        apiReport: {
          enabled: true,
          includeForgottenExports: false,
          reportFolder: reports,
          reportTempFolder: reports,
          reportFileName: entry.replaceAll('/', '-'),
        },
        docModel: { enabled: false },
        dtsRollup: { enabled: false },
        tsdocMetadata: { enabled: false },
        messages: {
          extractorMessageReporting: {
            default: { logLevel: /** @type {any} */ ('none') },
            'ae-forgotten-export': { logLevel: /** @type {any} */ ('error') },
          },
          tsdocMessageReporting: { default: { logLevel: /** @type {any} */ ('none') } },
        },
      },
    }),
  );
  /** @type {string[]} */
  const problems = [];
  // All entries share one program: a program for each entry takes nine times as long.
  const compilerState = CompilerState.create(/** @type {ExtractorConfig} */ (configs[0]));
  for (const [index, config] of configs.entries()) {
    Extractor.invoke(config, {
      compilerState,
      localBuild: true,
      messageCallback: (message) => {
        message.handled = true;
        if (message.category !== 'console' && /** @type {string} */ (message.logLevel) === 'error')
          problems.push(`${entries[index]?.[0]}: ${message.text}`);
      },
    });
  }
  return problems;
}

/**
 * Returns the exports and members without a docstring.
 * @param {Map<string, string>} reports
 */
function undocumented(reports) {
  return [...reports].flatMap(([name, text]) =>
    [...text.matchAll(/\(undocumented\)\n\s*(.*)/g)].map(([, declaration]) => `${name}: ${declaration}`),
  );
}

/**
 * Returns the reports in a folder by name.
 * @param {string} from
 */
function read(from) {
  const names = readdirSync(from).filter((name) => name.endsWith('.api.md'));
  return new Map(names.map((name) => [name, readFileSync(join(from, name), 'utf8')]));
}

/** The entries with exports, and their modules in src, in the order of package.json. */
function documented() {
  return entries
    .map(([entry, path]) => ({ entry, module: relative(join(root, 'dist'), path).replace(/\.d\.ts$/, '') }))
    .filter(({ module }) => module !== 'browser-worker');
}

await script(async () => {
  const isCheck = process.argv.includes('--check');
  await ensureBuilt();
  const fresh = mkdtempSync(join(tmpdir(), 'cod-api-'));
  try {
    const problems = report(fresh);
    if (problems.length > 0) throw new StepError('types in public signatures are not exported', problems.join('\n'), 1);
    const now = read(fresh);
    const bare = undocumented(now);
    if (bare.length > 0) throw new StepError('exports or members have no docstring', bare.join('\n'), 1);
    mkdirSync(folder, { recursive: true });
    const old = read(folder);
    const written = join(docs, document);
    if (existsSync(written)) old.set(document, readFileSync(written, 'utf8'));
    now.set(document, await apiDocument(documented()));
    const differing = [...new Set([...old.keys(), ...now.keys()])].filter((name) => old.get(name) !== now.get(name));
    if (isCheck && differing.length > 0)
      throw new StepError(`out of date: ${differing.join(', ')}; run \`npm run api\` and review the difference`, '', 1);
    for (const name of differing) {
      const text = now.get(name);
      const path = join(name === document ? docs : folder, name);
      if (text === undefined) rmSync(path);
      else writeFileSync(path, text);
    }
    say(`docs/API.md and docs/api: ${now.size} files, ${differing.length} changed`);
  } finally {
    rmSync(fresh, { recursive: true });
  }
});
