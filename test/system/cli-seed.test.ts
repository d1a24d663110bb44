/** `--seed` as a process: a copy takes from an older image what has not changed. */

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { eventsOf, runCommand } from '../cli/command.ts';
import { imageBytes, makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { HostileServer } from '../support/http-server.ts';

const EXTENT = 65_536;

test('only what changed crosses the network', async () => {
  const directory = temporaryDirectory();
  makeImage(directory, 'old');
  const image = imageBytes();
  image[5 * EXTENT + 7]! ^= 1;
  image.copyWithin(9 * EXTENT, 0, EXTENT);
  writeFileSync(join(directory, 'image'), image);
  await runCommand(['manifest', 'image', 'm'], { cwd: directory });
  const server = await HostileServer.start(image);
  onTestFinished(() => server.stop());
  const args = ['copy', server.url, 'disk', '--manifest', 'm', '--seed', 'old'];
  const result = await runCommand(args, { cwd: directory });
  expect(result.exitCode).toBe(0);
  expect(result.stderr).toContain('old: hashes 1 MiB');
  expectBytes(readFileSync(join(directory, 'disk')), image);
  expectBytes(readFileSync(join(directory, 'old')), imageBytes());
  const asked = server.asks.filter(({ isOpening }) => !isOpening).map(({ start, end }) => [start, end]);
  expect(asked).toEqual([[5 * EXTENT, 6 * EXTENT]]);
});

test.each([
  { name: 'a seed without a manifest', args: ['--seed', 'old'], exitCode: 2, code: 'UsageError' },
  { name: 'a seed that is missing', args: ['--manifest', 'm', '--seed', 'none'], exitCode: 1, code: 'COD_NOT_FOUND' },
  { name: 'an empty seed', args: ['--manifest', 'm', '--seed', 'empty'], exitCode: 1, code: 'COD_SIZE_MISMATCH' },
  { name: 'an archive as seed', args: ['--manifest', 'm', '--seed', 'zip'], exitCode: 1, code: 'COD_UNSUPPORTED' },
])('refuses $name, before anything is made', async ({ args, exitCode, code }) => {
  const directory = temporaryDirectory();
  makeImage(directory, 'old');
  makeImage(directory);
  writeFileSync(join(directory, 'empty'), '');
  writeFileSync(join(directory, 'zip'), Buffer.concat([Buffer.from('PK\x03\x04'), Buffer.alloc(1000)]));
  await runCommand(['manifest', 'image', 'm'], { cwd: directory });
  const before = readdirSync(directory);
  const result = await runCommand(['copy', 'image', 'disk', ...args, '--json'], { cwd: directory });
  expect(result.exitCode).toBe(exitCode);
  expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
  expect(readdirSync(directory)).toEqual(before);
});

test('refuses a seed that is TARGET', async () => {
  const directory = temporaryDirectory();
  makeImage(directory);
  makeImage(directory, 'disk', 2);
  await runCommand(['manifest', 'image', 'm'], { cwd: directory });
  const args = ['copy', 'image', 'disk', '--manifest', 'm', '--seed', 'disk', '--json'];
  const result = await runCommand(args, { cwd: directory });
  expect(eventsOf(result)).toMatchObject([{ event: 'error', code: 'COD_EXISTS' }]);
  expectBytes(readFileSync(join(directory, 'disk')), imageBytes(2));
});
