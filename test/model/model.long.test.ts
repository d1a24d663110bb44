/** Checks the models of the log and of ownership (model/README.md) with Spin. */

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { describeWith } from '../support/tools.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);

interface Failure {
  stdout: string;
  stderr: string;
}

describeWith(['spin', 'cc'], 'the models', () => {
  it('have no error, and Spin finds each planted mistake', async () => {
    const { stdout } = await run(process.execPath, ['scripts/model.mjs'], { cwd: root }).catch((error: Failure) => {
      throw new Error(`npm run model failed:\n${error.stdout}${error.stderr}`);
    });
    expect(stdout).toMatch(/^ok {2}records .*: no error/m);
    expect(stdout).toMatch(/^ok {2}checkpoint .*: no error/m);
    expect(stdout).toMatch(/^ok {2}ownership .*: no error/m);
    expect(stdout).not.toContain('NOT OK');
  });

  it('print the steps to a planted mistake', async () => {
    const { stdout } = await run(process.execPath, ['scripts/model.mjs', 'BUG_ONE_BY_ONE'], { cwd: root });
    expect(stdout).toContain('CONTINUED: the log is now 3\n');
    expect(stdout).toContain('the process crashes\n');
  });
});
