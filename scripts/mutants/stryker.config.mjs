/**
 * Stryker's configuration. scripts/test-mutants.mjs runs Stryker and says what is mutated, tests.mjs says which tests
 * judge, and runner.mjs runs them.
 */
import { fileURLToPath } from 'node:url';

const plugins = ['runner.mjs', 'messages.mjs'].map((name) => fileURLToPath(new URL(name, import.meta.url)));
const output = process.env['COD_MUTANT_OUTPUT'] ?? 'build/mutants';

/** @type {import('@stryker-mutator/api/core').PartialStrykerOptions} */
const options = {
  testRunner: 'in-process',
  plugins,
  testRunnerNodeArgs: ['--experimental-vm-modules', '--no-warnings'],
  coverageAnalysis: 'perTest',
  // The wording of errors decides nothing. All other mutators of Stryker are used.
  ignorers: ['error-messages'],
  concurrency: Number(process.env['COD_MUTANT_WORKERS'] ?? 2),
  // For loops that neither Stryker's limit of hits nor the runner ends.
  timeoutMS: 20_000,
  timeoutFactor: 2,
  dryRunTimeoutMinutes: 60,
  disableTypeChecks: false,
  tempDirName: `${output}/sandboxes`,
  ignorePatterns: ['.mutants', 'bench', 'build/mutants*', 'dist', 'docs/page', 'examples', 'src/web', 'test/system'],
  incremental: true,
  incrementalFile: `${output}/incremental.json`,
  reporters: ['json', 'progress-append-only'],
  jsonReporter: { fileName: `${output}/report.json` },
  allowConsoleColors: false,
};
export default options;
