/**
 * Test files of vitest that run in this process, again and again.
 *
 * Test files are bundles, and chunks have the sources that they share. All are compiled once. Chunks are evaluated for
 * each mutant, so that no state of the sources outlives it, and a mutant in a constant is active from the start. The
 * bundle of a test file is evaluated for each run of its tests. Packages are shared.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import vm from 'node:vm';
import { getFn, startTests } from '@vitest/runner';
import { build } from 'esbuild';
import fc from 'fast-check';
import { isSlow, SETUP, TEST_ENVIRONMENT, testFiles } from './tests.mjs';

/** The seed of the random tests, so that a mutant has the same fate in each run. */
const SEED = 1;
/** No test is cut off by vitest: the runner of the mutants notices the endless ones. */
const TIMEOUT_MS = 3_600_000;
/**
 * Stryker's instructions at each place: they look up the running test and the active mutant by their names. Tests that
 * go through bytes take most of their time there, so arrays of numbers are used instead.
 */
const COUNTS = /stryCov_9fa48\d*\(((?:"\d+"(?:, )?)+)\)/g;
const CHOICES = /stryMutAct_9fa48\d*\("(\d+)"\)/g;

/** How often each mutant's place was reached. Shared with the bundles. */
export const reached = new Uint32Array(2 ** 16);
/** The number of the active mutant, or -1. Shared with the bundles, and with other threads. */
export const active = new Int32Array(new SharedArrayBuffer(4)).fill(-1);

/** @param {string} code */
function withNumbers(code) {
  const quick = code
    .replace(COUNTS, (_, ids) => `(${ids.replace(/"(\d+)"/g, '$reached[$1]++')})`)
    .replace(CHOICES, (call, id) => `($active[0] === ${id} && ${call})`);
  return quick === code ? code : `const { $reached, $active } = globalThis.$mutants;\n${quick}`;
}

/** Returns a path for what all processes of a run share. Stryker changes the folder after it has loaded this module. */
export const sharedPath = (/** @type {string} */ name) => resolve('.mutants', name);

const BUNDLES = () => sharedPath('bundles');
const bundleOf = (/** @type {string} */ file) => join(BUNDLES(), file.replace(/\.ts$/, '.js'));

/**
 * Sources look for files beside them, not beside their bundle.
 * @type {import('esbuild').Plugin}
 */
const ownUrls = {
  name: 'own-urls',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const url = `globalThis.$mutants.$urlOf(${JSON.stringify(relative('.', path))})`;
      return { contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', url), loader: 'ts' };
    });
  },
};

/** Returns the processor time of this process so far. */
export function cpuMs() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** @param {any} task */
function nameOf(task) {
  const names = [];
  for (let at = task; at && at !== at.file; at = at.suite) names.unshift(at.name);
  return names.join(' ');
}

/** @param {any} task */
const idOf = (task) => `${relative('.', task.file.filepath)}#${nameOf(task)}`;

/**
 * Returns the file of a test.
 * @param {string} id
 */
export const fileOf = (id) => id.slice(0, id.indexOf('#'));

/**
 * Skips what is not chosen.
 * @param {any} suite
 * @param {ReadonlySet<string> | undefined} chosen
 * @returns {boolean} whether a test is left
 */
function choose(suite, chosen) {
  let isLeft = false;
  for (const task of suite.tasks) {
    const runs = task.type === 'suite' ? choose(task, chosen) : chosen ? chosen.has(idOf(task)) : !isSlow(idOf(task));
    if (!runs) task.mode = 'skip';
    isLeft ||= runs && task.mode !== 'skip' && task.mode !== 'todo';
  }
  if (!isLeft) suite.mode = 'skip';
  return isLeft;
}

/**
 * Returns the error of a suite that failed outside of its tests.
 * @param {any} suite
 * @returns {string | undefined}
 */
function suiteFailure(suite) {
  const own = suite.result?.errors?.[0]?.message;
  if (own !== undefined) return own;
  for (const task of suite.tasks) {
    const failure = task.type === 'suite' ? suiteFailure(task) : undefined;
    if (failure !== undefined) return failure;
  }
  return undefined;
}

/**
 * What happens around a test. `before` returns whether the test may run, and what ends it if it hangs. `after` gets its
 * processor time.
 * @typedef {{
 *   before(id: string): boolean,
 *   hangs: Promise<never>,
 *   after(id: string, ms: number, failure: string | undefined): void,
 * }} Hooks
 */

export class BundledTests {
  /** @type {Map<string, { code: string, cachedData: Buffer }>} */
  #compiled = new Map();
  /** @type {Map<string, vm.Module>} */
  #chunks = new Map();
  /** @type {Map<string, vm.Module>} */
  #packages = new Map();
  /** @type {typeof import('vitest')} */
  #vitest;

  /** @param {typeof import('vitest')} vitest */
  constructor(vitest) {
    this.#vitest = vitest;
  }

  static async open() {
    Object.assign(process.env, TEST_ENVIRONMENT, { NODE_ENV: 'test', VITEST: 'true' });
    // vitest reads this of its worker.
    Object.defineProperty(globalThis, '__vitest_worker__', {
      value: { config: { expect: { poll: {} }, snapshotOptions: {} }, environment: { name: 'node' }, filepath: '' },
    });
    const $urlOf = (/** @type {string} */ path) => pathToFileURL(resolve(path)).href;
    Object.assign(globalThis, { $mutants: { $reached: reached, $active: active, $urlOf } });
    mkdirSync(sharedPath(''), { recursive: true });
    // A random test that fails has found the mutant, with the first values.
    fc.configureGlobal({ seed: SEED, endOnFailure: true });
    await BundledTests.#build();
    const tests = new BundledTests(await import('vitest'));
    await tests.#load(SETUP);
    return tests;
  }

  /** Makes the bundles, unless another process of the run has. */
  static async #build() {
    if (existsSync(BUNDLES())) return;
    const partial = `${BUNDLES()}.${process.pid}`;
    const { outputFiles } = await build({
      absWorkingDir: resolve('.'),
      entryPoints: [SETUP, ...testFiles()],
      outdir: partial,
      outbase: '.',
      write: false,
      bundle: true,
      splitting: true,
      chunkNames: 'chunks/[name]-[hash]',
      format: 'esm',
      platform: 'node',
      target: 'node20',
      packages: 'external',
      plugins: [ownUrls],
      logLevel: 'error',
    });
    for (const { path, text } of outputFiles) {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, withNumbers(text));
    }
    try {
      renameSync(partial, BUNDLES());
    } catch {
      // Another process was faster.
      rmSync(partial, { recursive: true });
    }
  }

  /**
   * @param {string} path of a bundle or chunk
   * @returns {{ code: string, cachedData: Buffer }}
   */
  #compile(path) {
    const known = this.#compiled.get(path);
    if (known !== undefined) return known;
    const code = readFileSync(path, 'utf8');
    /** @type {any} */
    const module = new vm.SourceTextModule(code, { identifier: path });
    const compiled = { code, cachedData: module.createCachedData() };
    this.#compiled.set(path, compiled);
    return compiled;
  }

  /**
   * @param {string} path
   * @returns {vm.SourceTextModule}
   */
  #module(path) {
    return new vm.SourceTextModule(this.#compile(path).code, {
      identifier: path,
      cachedData: this.#compile(path).cachedData,
      importModuleDynamically: async (specifier) => {
        const module = await this.#imported(specifier, path);
        await this.#evaluate(module);
        return module;
      },
    });
  }

  /** @param {vm.Module} module */
  async #evaluate(module) {
    if (module.status === 'unlinked')
      await module.link((specifier, { identifier }) => this.#imported(specifier, identifier));
    await module.evaluate();
  }

  /**
   * @param {string} specifier
   * @param {string} from the importing bundle or chunk
   * @returns {Promise<vm.Module>}
   */
  async #imported(specifier, from) {
    if (specifier.startsWith('.')) {
      const path = resolve(dirname(from), specifier);
      const chunk = this.#chunks.get(path) ?? this.#module(path);
      this.#chunks.set(path, chunk);
      return chunk;
    }
    const isOwn = specifier.startsWith('#');
    const found = isOwn ? pathToFileURL(createRequire(resolve('package.json')).resolve(specifier)).href : specifier;
    const known = this.#packages.get(found);
    if (known) return known;
    const namespace = await import(found);
    const names = Object.keys(namespace);
    const module = new vm.SyntheticModule(names, () => {
      for (const name of names) module.setExport(name, namespace[name]);
    });
    await module.link(() => {
      throw new Error('a package has no imports of its own here');
    });
    await module.evaluate();
    this.#packages.set(found, module);
    return module;
  }

  /** @param {string} file */
  #load(file) {
    return this.#evaluate(this.#module(bundleOf(file)));
  }

  /** Forgets all state of the sources. */
  renew() {
    this.#chunks.clear();
  }

  /**
   * Runs the chosen tests of a file, or all but the slow ones.
   * @param {string} file
   * @param {ReadonlySet<string> | undefined} chosen
   * @param {Hooks} hooks
   * @returns {Promise<string | undefined>} the error of the file or of a suite, outside of its tests
   */
  async run(file, chosen, { before, hangs, after }) {
    let startedAt = 0;
    /** @type {any} */
    const runner = {
      pool: 'forks',
      config: {
        root: resolve('.'),
        setupFiles: [],
        sequence: { hooks: 'stack', setupFiles: 'list', shuffle: false },
        testTimeout: TIMEOUT_MS,
        hookTimeout: TIMEOUT_MS,
        // The limit holds for the process, and a test that hangs keeps its place.
        maxConcurrency: 1e9,
        passWithNoTests: true,
        retry: 0,
        tags: [],
      },
      importFile: () => this.#load(file),
      onCollected: (/** @type {any[]} */ files) => {
        for (const one of files) choose(one, chosen);
      },
      onBeforeRunTask: (/** @type {any} */ test) => {
        if (test.mode === 'skip' || test.mode === 'todo') return;
        if (!before(idOf(test))) test.mode = 'skip';
        startedAt = cpuMs();
      },
      onBeforeTryTask: (/** @type {any} */ test) => {
        this.#vitest.expect.setState({ assertionCalls: 0, currentTestName: nameOf(test) });
      },
      // vitest collects no tests while one runs, so one that hangs must end.
      runTask: (/** @type {any} */ test) => Promise.race([getFn(test)(), hangs]),
      onAfterRunTask: (/** @type {any} */ test) => {
        const failure = test.result?.state === 'fail' ? String(test.result.errors?.[0]?.message) : undefined;
        after(idOf(test), cpuMs() - startedAt, failure);
      },
      extendTaskContext: (/** @type {any} */ context) => Object.assign(context, { expect: this.#vitest.expect }),
    };
    const [result] = await startTests([resolve(file)], runner);
    return suiteFailure(result);
  }

  /** Undoes what a test that did not end has left. */
  restore() {
    this.#vitest.vi.restoreAllMocks();
    this.#vitest.vi.useRealTimers();
  }

  /** Returns a digest of the test files and all sources that they use. */
  digest() {
    const hash = createHash('sha256');
    const names = /** @type {string[]} */ (readdirSync(BUNDLES(), { recursive: true }));
    for (const name of names.filter((each) => each.endsWith('.js')).sort())
      hash.update(name).update(readFileSync(join(BUNDLES(), name)));
    return hash.digest('hex').slice(0, 16);
  }
}
