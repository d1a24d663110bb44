/**
 * `node sum-results.mjs FOLDER BROKEN`: prints the last lines of .ci/run: each test that failed, or that passed when it
 * was repeated, and the sum.
 *
 * Reads vitest's JSON reports in FOLDER. BROKEN is the number of failed steps. The exit code is 1 if anything failed or
 * no test passed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

/** The lines of a failure that are repeated. The whole stands further up. */
const MESSAGE_LINES = 12;

/**
 * Prints the failed and repeated tests of a report of vitest, so that they stand together after an hour's output.
 * @param {string} run the name of the report
 * @param {{ name: string, status: string, message: string, assertionResults: {
 *   fullName: string, status: string, failureMessages: string[] }[] }[]} testResults
 */
function printFailures(run, testResults) {
  for (const { name: path, status, message, assertionResults } of testResults) {
    const file = `${run}: ${relative(process.cwd(), path)}`;
    const failed = assertionResults.filter((test) => test.status === 'failed');
    const repeated = assertionResults.filter((test) => test.status === 'passed' && test.failureMessages.length > 0);
    for (const test of repeated) print('passed when repeated', `${file}: ${test.fullName}`, test.failureMessages);
    for (const test of failed) print('failed', `${file}: ${test.fullName}`, test.failureMessages);
    if (status === 'failed' && failed.length === 0) print('failed', file, [message]);
  }
}

/** @type {(what: string, test: string, messages: readonly string[]) => void} */
function print(what, test, messages) {
  console.log(`== ${what}: ${test}`);
  for (const line of messages.join('\n').split('\n').slice(0, MESSAGE_LINES)) console.log(`     ${line}`);
}

const [folder = '.', broken = '0'] = process.argv.slice(2);
let passed = 0;
let failed = 0;
let skipped = 0;
for (const name of readdirSync(folder)) {
  const report = JSON.parse(readFileSync(join(folder, name), 'utf8'));
  passed += report.numPassedTests;
  // A file that cannot be loaded is a failed suite without a failed test.
  failed += report.success ? report.numFailedTests : Math.max(report.numFailedTests, 1);
  skipped += report.numPendingTests + report.numTodoTests;
  printFailures(name, report.testResults);
}
// No report shows the failure of a check, of an installation, or of the test runner itself.
failed = Math.max(failed, Number(broken), passed === 0 ? 1 : 0);
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 ? 1 : 0;
