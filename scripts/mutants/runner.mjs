/**
 * Stryker's plugin that runs tests, in its own process.
 *
 * @stryker-mutator/vitest-runner starts a thread and loads all modules again for each mutant, which takes 1 s of a
 * processor (2026). Evaluating a bundle takes 0.1 s.
 *
 * - The tests that run a mutant judge it, until one fails: first the last killers of its file, then the tests that have
 *   the name of its file, then the fastest.
 * - A mutant survives when it has passed the tests of {@link BUDGET_MS}: slower ones do not judge it.
 * - A mutant is found too if a test waits for nothing, or takes many times as long as before. A thread ends the process
 *   of a mutant whose loop never returns.
 * - Results are kept at once, and are used again while neither sources nor tests have changed. So a run that was
 *   interrupted resumes.
 */
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { declareClassPlugin, PluginKind } from '@stryker-mutator/api/plugin';
import { active, BundledTests, cpuMs, fileOf, reached } from './bundled-tests.mjs';
import { testFiles } from './tests.mjs';

/** The processor time of the tests that have the name of a mutant's source, and of the others. */
const OWN_BUDGET_MS = 15_000;
const BUDGET_MS = 4000;
/** What a test file takes before its first test. */
const FILE_MS = 20;
/** Tests of so much time are taken together, by file: the fast tests of all files come before the slow ones. */
const ROUND_MS = 2000;
/** How many killers are remembered for each file, and how fast they are. */
const KILLERS = 4;
const FAST_MS = 500;
/** A test during which the event loop is idle for so long hangs. */
const IDLE_MS = 2500;
const TICK_MS = 250;
/** Less activity in a tick is that of the tick itself. */
const ACTIVE_MS = 15;
/** The event loop notices a test that does not end, unless it has not turned for so much processor time. */
const STUCK_MS = 1000;
/** The hooks of a test that hangs may take so long. */
const GRACE_MS = 2000;
/** How the message of the error begins that ends a test that hangs. */
const HANGS = 'the test hangs: ';
/** A test may take so many times its usual processor time, and so much more. */
const SLOWER = 10;
const SLACK_MS = 5000;

/** Every so many mutants one is judged. */
const SAMPLE = Number(process.env['COD_MUTANT_SAMPLE'] ?? 1);

/** @type {typeof globalThis & { __stryker__?: any }} */
const world = globalThis;
/** Returns what Stryker's instrumented code shares with its runner. */
const shared = () => (world.__stryker__ ??= {});

/**
 * Divides tests into runs of one file each, in the order in which they run: the last killers, the tests of the source,
 * and the others.
 * @param {readonly string[]} ids
 * @param {readonly string[]} killers
 * @param {(id: string) => number} timeOf
 * @param {string} source
 */
function inRuns(ids, killers, timeOf, source) {
  const first = killers.filter((id) => timeOf(id) < FAST_MS && ids.includes(id));
  const runs = first.map((id) => new Set([id]));
  const own = `/${basename(source, '.ts')}.test.ts`;
  let ownMs = 0;
  const fastest = [...ids].sort((a, b) => timeOf(a) - timeOf(b));
  const ofSource = new Set(
    fastest.filter((id) => {
      if (!fileOf(id).endsWith(own)) return false;
      ownMs += timeOf(id);
      return ownMs <= OWN_BUDGET_MS;
    }),
  );
  if (ofSource.size > 0) runs.push(ofSource);
  /** @type {Map<string, Set<string>>} */
  let round = new Map();
  let roundMs = 0;
  let totalMs = 0;
  for (const id of fastest.filter((one) => !first.includes(one) && !ofSource.has(one))) {
    if (roundMs > ROUND_MS) {
      runs.push(...round.values());
      round = new Map();
      roundMs = 0;
    }
    const ms = timeOf(id) + (round.has(fileOf(id)) ? 0 : FILE_MS);
    if (totalMs > 0 && totalMs + ms > BUDGET_MS) break;
    totalMs += ms;
    roundMs += ms;
    round.set(fileOf(id), (round.get(fileOf(id)) ?? new Set()).add(id));
  }
  return [...runs, ...round.values()];
}

/**
 * Rejects when a test hangs or does not end. A process that waits for its turn on a busy machine is not idle: its event
 * loop is active.
 * @param {AbortSignal} signal
 * @param {() => number} limitMs the processor time at which the running test has taken too long
 * @returns {Promise<never>}
 */
function hanging(signal, limitMs) {
  return new Promise((_, reject) => {
    let idleMs = 0;
    let last = performance.eventLoopUtilization();
    const timer = setInterval(() => {
      const now = performance.eventLoopUtilization();
      const isIdle =
        now.active - last.active < ACTIVE_MS &&
        !process.getActiveResourcesInfo().some((resource) => resource.startsWith('FSReq'));
      idleMs = isIdle ? idleMs + TICK_MS : 0;
      last = now;
      if (idleMs >= IDLE_MS) reject(new Error(`${HANGS}waits forever`));
      if (cpuMs() > limitMs()) reject(new Error(`${HANGS}does not end`));
    }, TICK_MS);
    signal.addEventListener('abort', () => clearInterval(timer));
  });
}

/**
 * Rejects as `hangs` does, but later.
 * @param {Promise<never>} hangs
 * @returns {Promise<never>}
 */
async function late(hangs) {
  try {
    return await hangs;
  } catch (error) {
    await sleep(GRACE_MS);
    throw error;
  }
}

/**
 * Adds to `counts` how often each place was reached since the last call.
 * @param {Record<string, number>} counts
 */
function moveReached(counts) {
  for (const [id, count] of reached.entries()) if (count > 0) counts[id] = (counts[id] ?? 0) + count;
  reached.fill(0);
}

/**
 * A mutant in a constant runs when its file is loaded, before any test. The tests that run other mutants of its file
 * judge it.
 * @param {{ static: Record<string, number>, perTest: Record<string, Record<string, number>> }} coverage
 */
function withConstants({ static: constants, perTest }) {
  /** @type {Map<string, ReadonlySet<string>>} */
  const neighbours = new Map();
  for (const folder of ['src/core', 'src/device', 'src/log']) {
    for (const name of readdirSync(folder)) {
      const text = readFileSync(join(folder, name), 'utf8');
      const ids = new Set([...text.matchAll(/stryMutAct_9fa48\("(\d+)"\)/g)].map(([, id = '']) => id));
      for (const id of ids) neighbours.set(id, ids);
    }
  }
  for (const hits of Object.values(perTest)) {
    const own = Object.keys(hits);
    for (const id of Object.keys(constants)) {
      if (!(id in hits) && own.some((other) => neighbours.get(id)?.has(other))) hits[id] = 1;
    }
  }
  return { static: {}, perTest };
}

/** What is kept of runs over the same sources and tests, for all processes. */
class Kept {
  /** The file with a line for each mutant. */
  results;
  #first;
  /** @type {Map<string, any>} */
  #known = new Map();

  /** @param {string} digest of sources and tests */
  constructor(digest) {
    const folder = join(process.env['COD_MUTANT_OUTPUT'] ?? resolve('.mutants'), 'kept');
    mkdirSync(folder, { recursive: true });
    this.results = join(folder, `${digest}.jsonl`);
    this.#first = join(folder, `${digest}.json`);
    const lines = existsSync(this.results) ? readFileSync(this.results, 'utf8').split('\n') : [];
    // A process that was killed may have left the last line cut short.
    for (const line of lines.filter((one) => one.endsWith('}'))) {
      const { id, ...result } = JSON.parse(line);
      this.#known.set(id, result);
    }
  }

  /** @returns {{ times: Record<string, number>, run: any } | undefined} the run without a mutant */
  get first() {
    return existsSync(this.#first) ? JSON.parse(readFileSync(this.#first, 'utf8')) : undefined;
  }

  /** @param {{ times: Record<string, number>, run: any }} first */
  keepFirst(first) {
    writeFileSync(this.#first, JSON.stringify(first));
  }

  /** @param {string} id of a mutant */
  result(id) {
    return this.#known.get(id);
  }

  /**
   * @param {string} id
   * @param {any} result
   */
  keep(id, result) {
    appendFileSync(this.results, `${JSON.stringify({ id, ...result })}\n`);
    return result;
  }
}

/** What a thread runs beside the tests. Keeps that a mutant does not end, and ends the process. */
const WATCH = `
  const { workerData } = require('node:worker_threads');
  const { appendFileSync } = require('node:fs');
  const { active, limits, path } = workerData;
  setInterval(() => {
    const { user, system } = process.cpuUsage();
    if (active[0] < 0 || (user + system) / 1000 < limits[0]) return;
    const result = { id: String(active[0]), status: 'timeout', reason: 'never returns' };
    appendFileSync(path, JSON.stringify(result) + '\\n');
    process.kill(process.pid, 'SIGKILL');
  }, ${TICK_MS});
`;

class Runner {
  /** @type {BundledTests | undefined} */
  #tests;
  /** @type {Kept | undefined} */
  #kept;
  /** @type {Record<string, number> | undefined} */
  #times;
  /** @type {Map<string, string[]>} */
  #killers = new Map();
  #isSpent = false;
  /** The processor time at which the process is ended. */
  #limits = new Float64Array(new SharedArrayBuffer(8)).fill(Number.POSITIVE_INFINITY);

  capabilities() {
    return { reloadEnvironment: true };
  }

  async init() {
    // A mutant may leave promises that fail later, while another one is judged.
    process.on('unhandledRejection', () => undefined);
    process.on('uncaughtException', () => undefined);
    this.#tests = await BundledTests.open();
  }

  async #open() {
    const tests = /** @type {BundledTests} */ (this.#tests);
    if (this.#kept === undefined) {
      this.#kept = new Kept(tests.digest());
      const workerData = { active, limits: this.#limits, path: this.#kept.results };
      new Worker(WATCH, { eval: true, workerData, execArgv: [] }).unref();
    }
    return { tests, kept: this.#kept };
  }

  /** @returns {Promise<any>} */
  async dryRun() {
    const { tests, kept } = await this.#open();
    if (kept.first !== undefined) return kept.first.run;
    /** @type {{ static: Record<string, number>, perTest: Record<string, Record<string, number>> }} */
    const coverage = { static: {}, perTest: {} };
    reached.fill(0);
    /** @type {Record<string, number>} */
    const times = {};
    /** @type {unknown[]} */
    const results = [];
    for (const file of testFiles()) {
      tests.renew();
      const failure = await tests.run(file, undefined, {
        hangs: new Promise(() => undefined),
        before() {
          // Until now no test was running: constants.
          moveReached(coverage.static);
          return true;
        },
        after(id, timeSpentMs, failureMessage) {
          moveReached((coverage.perTest[id] ??= {}));
          times[id] = timeSpentMs;
          const status = failureMessage === undefined ? 0 : 1;
          results.push({ id, name: id, timeSpentMs, fileName: resolve(file), status, failureMessage });
        },
      });
      tests.restore();
      if (failure !== undefined) return { status: 'error', errorMessage: `${file}: ${failure}` };
    }
    const run = { status: 'complete', tests: results, mutantCoverage: withConstants(coverage) };
    kept.keepFirst({ times, run });
    return run;
  }

  /**
   * @param {any} options
   * @returns {Promise<any>}
   */
  async mutantRun(options) {
    // Stryker starts another process, and asks that one.
    if (this.#isSpent) process.exit(1);
    const { kept } = await this.#open();
    const { id } = options.activeMutant;
    if (Number(id) % SAMPLE !== 0) return { status: 'error', errorMessage: 'not in the sample' };
    return kept.result(id) ?? kept.keep(id, await this.#judge(options));
  }

  /**
   * @param {any} options
   * @returns {Promise<any>}
   */
  async #judge({ testFilter = [], hitLimit, activeMutant, sandboxFileName }) {
    const { tests, kept } = await this.#open();
    const times = (this.#times ??= kept.first?.times ?? {});
    const killers = this.#killers.get(sandboxFileName) ?? [];
    const ns = shared();
    this.#limits[0] = Number.POSITIVE_INFINITY;
    active[0] = Number(activeMutant.id);
    Object.assign(ns, { activeMutant: activeMutant.id, hitCount: 0, hitLimit });
    let nrOfTests = 0;
    let limitMs = 0;
    const limit = (/** @type {number} */ usualMs) => {
      limitMs = cpuMs() + SLACK_MS + SLOWER * usualMs;
      this.#limits[0] = limitMs + STUCK_MS;
    };
    /** @type {{ id: string, failureMessage: string } | undefined} */
    let killed;
    const watching = new AbortController();
    const hangs = hanging(watching.signal, () => limitMs);
    const judge = async () => {
      tests.renew();
      for (const run of inRuns(testFilter, killers, (id) => times[id] ?? 0, sandboxFileName)) {
        const [first = ''] = run;
        limit(ROUND_MS);
        const failure = await tests.run(fileOf(first), run, {
          hangs,
          before(id) {
            limit(times[id] ?? 0);
            return killed === undefined;
          },
          after(id, _, failureMessage) {
            nrOfTests++;
            limit(ROUND_MS);
            if (failureMessage !== undefined) killed ??= { id, failureMessage };
          },
        });
        if (failure !== undefined) killed ??= { id: first, failureMessage: failure };
        if (killed !== undefined || ns.hitCount > hitLimit) return;
      }
    };
    let reason = '';
    try {
      await Promise.race([judge(), late(hangs)]);
    } catch (error) {
      reason = String(error);
      // Outside of a test: what is left of it could disturb the next mutant.
      this.#isSpent = true;
    }
    watching.abort();
    tests.restore();
    const isEndless = ns.hitCount > hitLimit;
    active[0] = -1;
    Object.assign(ns, { activeMutant: undefined, hitCount: undefined, hitLimit: undefined });
    if (isEndless) return { status: 'timeout', reason: 'runs too often' };
    if (killed?.failureMessage.startsWith(HANGS)) reason = killed.failureMessage;
    if (reason !== '') return { status: 'timeout', reason };
    if (killed === undefined) return { status: 'survived', nrOfTests };
    const { id, failureMessage } = /** @type {{ id: string, failureMessage: string }} */ (killed);
    this.#killers.set(sandboxFileName, [id, ...killers.filter((one) => one !== id)].slice(0, KILLERS));
    return { status: 'killed', killedBy: [id], failureMessage: failureMessage.slice(0, 300), nrOfTests };
  }
}

const injectable = Object.assign(Runner, { inject: /** @type {[]} */ ([]) });
export const strykerPlugins = [
  declareClassPlugin(PluginKind.TestRunner, 'in-process', /** @type {any} */ (injectable)),
];
