/** `repair` as a process: the plan, the repair, and what names it. */

import { cpSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { eventsOf, type Result, runCommand } from '../cli/command.ts';
import { crashCopy, IMAGE_BYTES, imageBytes, leaveCopy, makeImage } from '../cli/copies.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';

/** A copy of which one byte of each of these files is damaged. */
async function damagedCopy(make: typeof leaveCopy, ...names: string[]): Promise<string> {
  const directory = temporaryDirectory();
  await make(makeImage(directory), directory);
  for (const name of names) {
    const bytes = readFileSync(join(directory, name));
    bytes[42]! ^= 1;
    writeFileSync(join(directory, name), bytes);
  }
  return directory;
}

function run(directory: string, ...args: string[]): Promise<Result> {
  return runCommand(args, { cwd: directory });
}

/** Completes the copy and returns its bytes. */
async function completed(directory: string): Promise<Buffer> {
  expect(await run(directory, 'copy', 'image', 'disk', '--quiet')).toMatchObject({ exitCode: 0, stderr: '' });
  return readFileSync(join(directory, 'disk'));
}

function written(): Uint8Array {
  return imageBytes().fill(0xaa, IMAGE_BYTES / 2 + 10, IMAGE_BYTES / 2 + 110);
}

test('says what survives and changes nothing; with --yes it repairs, and the copy completes', async () => {
  const directory = await damagedCopy(crashCopy, 'disk.bak');
  const before = contentsOf(directory);
  const plan = await run(directory, 'repair', 'disk');
  expect(plan).toMatchObject({
    exitCode: 0,
    stderr: 'disk: nothing was changed: pass --yes to repair it\n',
  });
  const [damaged, ...rest] = plan.stdout.split('\n');
  expect(damaged).toMatch(/^damaged {3}disk\.bak: checkpoint header: ./);
  expect(rest).toEqual([
    'survives  256 KiB of 1 MiB, of which users wrote at most 100 bytes',
    'lost      nothing that users wrote',
    '',
  ]);
  expect(contentsOf(directory)).toEqual(before);
  const repaired = await run(directory, 'repair', 'disk', '--yes');
  expect(repaired).toMatchObject({ exitCode: 0, stdout: plan.stdout });
  expect(repaired.stderr).toMatch(/^disk: repaired; the old metadata is kept in disk\.bak\.old, .+\n$/);
  for (const name of ['disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'])
    expect(contentsOf(directory)[`${name}.old`]).toEqual(before[name]);
  expect(await run(directory, 'repair', 'disk')).toMatchObject({ exitCode: 0, stdout: 'disk: nothing is damaged\n' });
  expectBytes(await completed(directory), written());
});

test('--json prints one object; what is lost is fetched again', async () => {
  const directory = await damagedCopy(crashCopy, 'disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1');
  const fields = { target: 'disk', size: IMAGE_BYTES, copiedBytes: 0, lostBytes: IMAGE_BYTES, losesIdentity: true };
  const plan = await run(directory, 'repair', 'disk', '--json');
  expect(eventsOf(plan)).toMatchObject([
    { event: 'done', ...fields, lost: [{ offset: 0, length: IMAGE_BYTES }], isRepaired: false },
  ]);
  const repaired = await run(directory, 'repair', 'disk', '--yes', '--json');
  expect(eventsOf(repaired)).toMatchObject([{ event: 'done', ...fields, isRepaired: true }]);
  expectBytes(await completed(directory), imageBytes());
});

test('says where bytes are lost', async () => {
  // What survives is in the checkpoints.
  const directory = await damagedCopy(crashCopy, 'disk.wil', 'disk.wil.1');
  const plan = await run(directory, 'repair', 'disk');
  const start = IMAGE_BYTES / 2 + 10;
  expect(plan.stdout.split('\n').slice(-4)).toEqual([
    'survives  100 bytes of 1 MiB, of which users wrote at most 100 bytes',
    expect.stringMatching(/^lost {6}at most .+ KiB that users wrote; /),
    `within    bytes 0 to ${start - 1}, ${start + 100} to ${IMAGE_BYTES - 1}`,
    '',
  ]);
});

describe('is named by', () => {
  test.each([
    ['copy', 'image', 'disk'],
    ['inspect', 'disk'],
    ['changes', 'disk'],
    ['status', 'disk'],
  ])('%s', async (...args) => {
    const directory = await damagedCopy(leaveCopy, 'disk.bak');
    const result = await run(directory, ...args);
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toMatch(/COD_CORRUPT: disk\.bak: .+; `copyondemand repair disk` says what can be saved\n$/);
  });

  test('no error about a target that is cut short', async () => {
    const directory = await damagedCopy(leaveCopy);
    truncateSync(join(directory, 'disk'), 4096);
    const result = await run(directory, 'copy', 'image', 'disk', '--quiet');
    expect(result.stderr).toMatch(/^copyondemand: COD_CORRUPT: disk has 4096 bytes/);
    expect(result.stderr).not.toContain('repair');
    expect((await run(directory, 'repair', 'disk', '--yes')).stderr).toContain(
      'disk has 4096 bytes instead of 1048576',
    );
  });
});

describe('refuses', () => {
  async function expectRefusal(directory: string, code: string, says: string): Promise<void> {
    const before = contentsOf(directory);
    const result = await run(directory, 'repair', 'disk', '--yes', '--json');
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toMatch(new RegExp(`^copyondemand: ${code}: .+\n$`));
    expect(result.stderr).toContain(says);
    expect(eventsOf(result)).toMatchObject([{ event: 'error', code }]);
    expect(contentsOf(directory)).toEqual(before);
  }

  test('to overwrite a file of an earlier repair', async () => {
    const directory = await damagedCopy(leaveCopy, 'disk.bak');
    cpSync(join(directory, 'disk.bak.1'), join(directory, 'disk.bak.old'));
    await expectRefusal(directory, 'COD_EXISTS', 'disk.bak.old');
  });

  test('a file of another copy', async () => {
    const directory = await damagedCopy(leaveCopy);
    const other = await damagedCopy(leaveCopy);
    cpSync(join(other, 'disk.wil.1'), join(directory, 'disk.wil.1'));
    await expectRefusal(directory, 'COD_CORRUPT', 'different copies');
  });

  test('a file without metadata', async () => {
    const directory = temporaryDirectory();
    makeImage(directory, 'disk');
    await expectRefusal(directory, 'COD_NOT_FOUND', 'disk has no metadata');
    expect(readdirSync(directory)).toEqual(['disk']);
  });
});
