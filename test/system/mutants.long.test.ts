/** `npm run test:mutants` on one source: what decides which records a recovery believes. */

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../cli/temporary.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

test('the tests of the proof find at least 90 % of its mutants', () => {
  const output = temporaryDirectory();
  const args = ['--only', '^src/log/proof', '--tests', '^test/log/(proof|announcements|firmness)'];
  const { status, stderr } = spawnSync(process.execPath, ['scripts/test-mutants.mjs', ...args], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, COD_MUTANT_OUTPUT: output },
  });
  const survivors = readFileSync(join(output, 'survivors.txt'), 'utf8');
  expect({ status, stderr, survivors }).toMatchObject({ status: 0 });
  expect(stderr).toMatch(/^src\/log: \d{2,} of \d{2,} mutants found/m);
});
