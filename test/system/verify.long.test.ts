/** `verify` finds one flipped bit in 4 GiB. */

import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { runCommand } from '../cli/command.ts';
import { makeSparse } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';

const SIZE = 2 ** 32;

test('one flipped bit in 4 GiB is found with the manifest and with the source', async () => {
  const seed = Number(process.env['COD_VERIFY_SEED'] ?? Date.now() % 2 ** 31);
  console.log(`replay: COD_VERIFY_SEED=${seed} npx vitest run --project long test/system/verify.long.test.ts`);
  const random = seededRandom(seed);
  const directory = temporaryDirectory();
  makeSparse(join(directory, 'image'), SIZE);
  makeSparse(join(directory, 'disk'), SIZE);
  await runCommand(['manifest', 'image', 'm', '--quiet'], { cwd: directory });
  const offset = random.below(2 ** 16) * 2 ** 16 + random.below(2 ** 16);
  const file = openSync(join(directory, 'disk'), 'r+');
  writeSync(file, Uint8Array.of(1 << random.below(8)), 0, 1, offset);
  closeSync(file);
  const byManifest = await runCommand(['verify', 'disk', '--manifest', 'm'], { cwd: directory });
  expect(byManifest).toMatchObject({ exitCode: 1, stdout: `${offset - (offset % 65_536)} 65536\n` });
  const bySource = await runCommand(['verify', 'image', 'disk'], { cwd: directory });
  expect(bySource).toMatchObject({ exitCode: 1, stdout: `${offset - (offset % 4096)} 4096\n` });
});
