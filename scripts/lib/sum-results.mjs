/**
 * `node sum-results.mjs FOLDER BROKEN`: prints the last line of .ci/run.
 *
 * Sums vitest's JSON reports in FOLDER. BROKEN is the number of failed steps. The exit code is 1 if anything failed or
 * no test passed.
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
// No report shows the failure of a check, of an installation, or of the test runner itself.
failed = Math.max(failed, Number(broken), passed === 0 ? 1 : 0);
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 ? 1 : 0;
