/** `export` as a process: what it leaves, what it says, and what it refuses. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runCommand, startCommand } from '../cli/command.ts';
import { crashCopy, imageBytes, leaveCopy, makeImage } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { readFormat1 } from '../log/format1-reader.ts';
import { expectBytes } from '../support/bytes.ts';

/** What `leaveCopy` leaves: a quarter was copied, and 100 bytes of another block were written. */
const STATE = { synced: [[0, 63]], dirty: [{ block: 128, ranges: [[10, 100]] }] };

test('leaves one file of format 1, says what that does not hold, and the copy continues', async () => {
  const directory = temporaryDirectory();
  await leaveCopy(makeImage(directory), directory);
  const run = () => runCommand(['export', 'disk', '--format', '1'], { cwd: directory });
  const result = await run();
  expect(result).toMatchObject({ exitCode: 0, stdout: '' });
  expect(result.stderr).toBe(
    'disk: exported to format 1, 64 of 256 blocks copied; ' +
      'format 1 does not hold the identity of the source and which blocks users modified\n',
  );
  expect(readdirSync(directory).sort()).toEqual(['disk', 'disk.bak', 'disk.lock.spare', 'image']);
  expect(readFormat1(new Uint8Array(readFileSync(join(directory, 'disk.bak'))))).toEqual(STATE);
  expect(await run()).toMatchObject({ exitCode: 0, stderr: 'disk: in format 1 already\n' });

  const copied = await runCommand(['copy', 'image', 'disk', '--quiet'], { cwd: directory });
  expect(copied).toMatchObject({ exitCode: 0, stderr: '' });
  const expected = imageBytes();
  expected.fill(0xaa, expected.length / 2 + 10, expected.length / 2 + 110);
  expectBytes(readFileSync(join(directory, 'disk')), expected);
  expect(existsSync(join(directory, 'disk.bak'))).toBe(false);
});

test.each([
  { name: 'a copy that was killed', make: crashCopy, code: 'COD_UNSUPPORTED: disk was not closed cleanly' },
  { name: 'a file without metadata', make: undefined, code: 'COD_NOT_FOUND: image has no metadata' },
])('refuses $name, and changes nothing', async ({ make, code }) => {
  const directory = temporaryDirectory();
  const image = makeImage(directory);
  await make?.(image, directory);
  const before = contentsOf(directory);
  const result = await runCommand(['export', make ? 'disk' : 'image', '--format', '1'], { cwd: directory });
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(`copyondemand: ${code}`);
  expect(contentsOf(directory)).toEqual(before);
});

test('refuses a copy that a server has open', async () => {
  const directory = temporaryDirectory();
  await leaveCopy(makeImage(directory), directory);
  let listening: () => void;
  const ready = new Promise<void>((resolve) => (listening = resolve));
  const server = startCommand(['serve', 'image', 'disk', '--socket', 's', '--no-hydrate'], {
    cwd: directory,
    onLine: () => listening(),
  });
  onTestFinished(() => void server.child.kill('SIGKILL'));
  await ready;
  const refused = await runCommand(['export', 'disk', '--format', '1'], { cwd: directory });
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toMatch(/^copyondemand: COD_LOCKED: .+in use by process \d+.*\n$/);
  server.child.kill('SIGTERM');
  expect((await server.result).exitCode).toBe(0);
  expect(await runCommand(['export', 'disk', '--format', '1'], { cwd: directory })).toMatchObject({ exitCode: 0 });
});

test.each([
  { args: ['disk'], says: '--format' },
  { args: ['disk', '--format', '2'], says: '--format' },
  { args: ['', '--format', '1'], says: 'TARGET is empty' },
])('wrong usage: export $args', async ({ args, says }) => {
  const result = await runCommand(['export', ...args]);
  expect(result.exitCode).toBe(2);
  expect(result.stderr).toContain(says);
});
