/** The public surface: every change of it shows in docs/api and docs/API.md. */

import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/api.mjs', import.meta.url));

test('docs/api lists the exports of every entry and all types that their signatures use', async () => {
  const { stderr } = await promisify(execFile)(process.execPath, [script, '--check']).catch(
    (error: { stderr: string }) => error,
  );
  expect(stderr).toMatch(/docs\/api: \d+ files, 0 changed\n$/);
});

test('every export and every member of an export has a docstring', async () => {
  const folder = new URL('../../docs/api/', import.meta.url);
  for (const name of await readdir(folder)) {
    expect(await readFile(new URL(name, folder), 'utf8'), name).not.toContain('(undocumented)');
  }
});
