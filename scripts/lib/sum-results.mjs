/**
 * `node sum-results.mjs FOLDER BROKEN`: the last line of .ci/run, from vitest's JSON reports in FOLDER and the number of steps that
 * broke. Ends with 1 if anything failed, or if nothing was tested.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

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
}
// A broken step whose failure no report shows: a check, an installation, a crash of the test runner.
failed = Math.max(failed, Number(broken), passed === 0 ? 1 : 0);
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 ? 1 : 0;
