/**
 * What every script of this folder stands on: quiet steps, and the tests for "already done" that let them be left out.
 * Only Node's own modules may be imported here: on a bare machine this runs before anything is installed.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../', import.meta.url));

/** Written into `dist` by the build: a digest of all that the build was made from. Not shipped. */
export const fingerprintFile = join(root, 'dist', '.fingerprint');

/** @param {string} text */
export function say(text) {
  process.stderr.write(`${text}\n`);
}

/** A command that ended otherwise than with 0, or did not start. `output` is what it had to say, if it was captured. */
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
/** The signal that ended a step: none is begun after it. @type {NodeJS.Signals | undefined} */
let interruption;

/**
 * Runs a command to its end and returns its exit code, 128 + n after signal n. Signals sent to this process are passed on to it; no
 * further command is started after one.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, onOutput?: (chunk: Buffer) => void }} [options] with `onOutput`, stdout and stderr go
 *   there, in the order of arrival, and stdin is empty; without it all three are this process's own.
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
      reject(new StepError(`${command} does not start: ${error.message}`, '', 1));
    });
    child.on('close', (code, signal) => {
      settle();
      resolve(code ?? 128 + (signal ? constants.signals[signal] : 0));
    });
  });
}

/**
 * Runs a command without showing what it prints.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<string>} what it printed
 * @throws {StepError} with its output, if it does not end with 0.
 */
export async function capture(command, args, options = {}) {
  /** @type {Buffer[]} */
  const chunks = [];
  const exitCode = await run(command, args, { ...options, onOutput: (chunk) => chunks.push(chunk) });
  const output = Buffer.concat(chunks).toString();
  if (exitCode !== 0) throw new StepError(`${command} ${args.join(' ')}: exit code ${exitCode}`, output, exitCode);
  return output;
}

/**
 * The body of a script: its exit code is what `main` returns (nothing: 0); a failed step is shown with its output.
 * @param {() => Promise<number | undefined | void>} main
 */
export async function script(main) {
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

/** Whether node_modules holds what package-lock.json names. Optional packages, such as those of other platforms, may be missing. */
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
 * Installs the npm packages that package-lock.json names, unless they are there. Not by `npm ci`: that refuses a lock file without
 * entries for the other platforms' optional packages, which some registries do not carry. With --no-save the lock file is obeyed alike,
 * and left as it is.
 */
export async function ensureInstalled() {
  if (isInstalled()) return;
  say('installing npm packages …');
  await capture('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error']);
}

/** What the build reads. A name that is not there does not count. */
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
 * A digest of the names and contents of all that the build reads. Contents, not times: a checkout touches what it does not change.
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

/** What the build leaves behind beside `dist`. The debug build of the core is for its tests. */
const builtBesideDist = [
  'src/wasm/generated/core-bytes.ts',
  'src/wasm/generated/interface.ts',
  'build/debug/core.wasm',
  'build/release/core.wasm',
];

/** Whether everything is there that a build makes, and from the sources as they are now. */
export function isBuilt() {
  if (!builtBesideDist.every((path) => existsSync(join(root, path)))) return false;
  return existsSync(fingerprintFile) && readFileSync(fingerprintFile, 'utf8') === sourceFingerprint();
}

/** Builds, unless `dist` is that of the present sources. */
export async function ensureBuilt() {
  if (isBuilt()) return;
  say('building …');
  await capture(process.execPath, [join(root, 'scripts', 'build.mjs')]);
}
