/**
 * The base of all scripts: steps that print only on failure, and checks that skip a step that is already done. This
 * module may import only Node's own modules: it runs before the npm packages are installed.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../', import.meta.url));

/** The build writes a digest of its inputs here. The package does not contain this file. */
export const fingerprintFile = join(root, 'dist', '.fingerprint');

/** @param {string} text */
export function say(text) {
  process.stderr.write(`${text}\n`);
}

/** A command that did not start, or whose exit code was not 0. `output` is its captured output, if any. */
export class StepError extends Error {
  /**
   * @param {string} message
   * @param {string} output
   * @param {number} exitCode
   */
  constructor(message, output, exitCode) {
    super(message);
    this.output = output;
    this.exitCode = exitCode;
  }
}

/** @type {NodeJS.Signals[]} */
const forwardedSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
/**
 * The signal that interrupted a step. No step starts after it.
 * @type {NodeJS.Signals | undefined}
 */
let interruption;

/**
 * Runs a command to its end and returns its exit code: 128 + n after signal n. Signals to this process are forwarded to
 * the command, and no further command starts after one.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, onOutput?: (chunk: Buffer) => void }} [options] with `onOutput`, it
 *   receives stdout and stderr in order of arrival, and stdin is empty; without it the command inherits all three
 * @returns {Promise<number>}
 */
export function run(command, args, { cwd = root, env = process.env, onOutput } = {}) {
  return new Promise((resolve, reject) => {
    if (interruption) throw new StepError(`interrupted by ${interruption}`, '', 128 + constants.signals[interruption]);
    const child = spawn(command, args, { cwd, env, stdio: onOutput ? ['ignore', 'pipe', 'pipe'] : 'inherit' });
    const forward = (/** @type {NodeJS.Signals} */ signal) => {
      interruption = signal;
      child.kill(signal);
    };
    for (const signal of forwardedSignals) process.on(signal, forward);
    const settle = () => {
      for (const signal of forwardedSignals) process.off(signal, forward);
    };
    if (onOutput) {
      child.stdout?.on('data', onOutput);
      child.stderr?.on('data', onOutput);
    }
    child.on('error', (error) => {
      settle();
      reject(new StepError(`${command} cannot start: ${error.message}`, '', 1));
    });
    child.on('close', (code, signal) => {
      settle();
      resolve(code ?? 128 + (signal ? constants.signals[signal] : 0));
    });
  });
}

/**
 * Runs a command and returns its output, without printing it.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<string>} stdout and stderr
 * @throws {StepError} with the output, when the exit code is not 0
 */
export async function capture(command, args, options = {}) {
  /** @type {Buffer[]} */
  const chunks = [];
  const exitCode = await run(command, args, { ...options, onOutput: (chunk) => chunks.push(chunk) });
  const output = Buffer.concat(chunks).toString();
  if (exitCode !== 0) throw new StepError(`${command} ${args.join(' ')}: exit code ${exitCode}`, output, exitCode);
  return output;
}

const PARENT_CHECK_MS = 100;

/**
 * Ends this process with SIGTERM when its parent has ended. For scripts that npm runs: npm starts a shell and signals
 * only the shell. Debian's `sh` stays the script's parent, and SIGTERM ends the shell but does not reach the script.
 */
function endWithParent() {
  if (process.env['npm_lifecycle_event'] === undefined || process.platform === 'win32') return;
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    process.kill(process.pid, 'SIGTERM');
  }, PARENT_CHECK_MS);
  timer.unref();
}

/**
 * Runs the body of a script and sets the exit code: the result of `main`, or 0 without one. Prints a failed step with
 * its output. If npm runs the script, the script also ends when the shell of npm ends.
 * @param {() => Promise<number | undefined | void>} main
 */
export async function script(main) {
  endWithParent();
  try {
    process.exitCode = (await main()) ?? 0;
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    if (error.output) process.stderr.write(error.output.endsWith('\n') ? error.output : `${error.output}\n`);
    say(error.message);
    process.exitCode = error.exitCode || 1;
  }
}

/**
 * @param {string} path
 * @returns {Record<string, { version?: string, optional?: boolean, link?: boolean }> | undefined}
 */
function lockedPackages(path) {
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).packages : undefined;
}

/**
 * Whether node_modules matches package-lock.json. Optional packages may be missing, such as those of other platforms.
 */
function isInstalled() {
  const installed = lockedPackages(join(root, 'node_modules', '.package-lock.json'));
  if (!installed) return false;
  const wanted = lockedPackages(join(root, 'package-lock.json')) ?? {};
  return Object.entries(wanted).every(([path, { version, optional, link }]) => {
    if (path === '' || link) return true;
    const found = installed[path];
    return found ? found.version === version : optional === true;
  });
}

/**
 * Installs the npm packages that package-lock.json names, unless they are there.
 *
 * `npm ci` refuses a lock file without entries for the optional packages of other platforms, and some registries lack
 * those. `npm install --no-save` follows the lock file too, and does not change it.
 */
export async function ensureInstalled() {
  if (isInstalled()) return;
  say('installing npm packages …');
  await capture('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error']);
}

/** The inputs of the build. A missing one is ignored. */
const buildInputs = [
  'assembly',
  'src',
  'scripts/build.mjs',
  'scripts/build-wasm.mjs',
  'scripts/lib',
  'package.json',
  'package-lock.json',
  'tsconfig.base.json',
  'tsconfig.json',
  'asconfig.json',
];

/**
 * Returns a digest of the names and contents of all inputs of the build. It ignores times, because a checkout changes
 * the times of unchanged files.
 * @returns {string}
 */
export function sourceFingerprint() {
  const hash = createHash('sha256');
  const visit = (/** @type {string} */ path) => {
    const entry = statSync(path, { throwIfNoEntry: false });
    if (entry?.isDirectory()) {
      if (path === join(root, 'src', 'wasm', 'generated')) return;
      for (const name of readdirSync(path).sort()) visit(join(path, name));
    } else if (entry) {
      hash.update(`${relative(root, path).split(sep).join('/')}\0${entry.size}\0`).update(readFileSync(path));
    }
  };
  for (const input of buildInputs) visit(join(root, input));
  return hash.digest('hex');
}

/** The outputs of the build outside `dist`. The tests of the core use its debug build. */
const builtBesideDist = [
  'src/wasm/generated/core-bytes.ts',
  'src/wasm/generated/interface.ts',
  'build/debug/core.wasm',
  'build/release/core.wasm',
];

/** Whether all outputs of the build exist and come from the current sources. */
export function isBuilt() {
  if (!builtBesideDist.every((path) => existsSync(join(root, path)))) return false;
  return existsSync(fingerprintFile) && readFileSync(fingerprintFile, 'utf8') === sourceFingerprint();
}

/** Builds, unless `dist` comes from the current sources. */
export async function ensureBuilt() {
  if (isBuilt()) return;
  say('building …');
  await capture(process.execPath, [join(root, 'scripts', 'build.mjs')]);
}
