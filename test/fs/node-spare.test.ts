import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { nodeFileSystem } from '../../src/control/node-file-system.ts';
import { CodError } from '../../src/errors.ts';
import { lockFile } from '../../src/fs/node-lock.ts';
import { type Machine, thisMachine } from '../../src/fs/node-process.ts';
import { makeSpare, removeSpare } from '../../src/fs/node-spare.ts';
import { bytesSource, openDevice, removeCopy } from '../../src/index.ts';

const base = mkdtempSync(join(tmpdir(), 'cod-spare-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));

let directory: string;
let lock: string;
let spare: string;

beforeEach(() => {
  directory = mkdtempSync(join(base, 'd-'));
  lock = join(directory, 'disk.lock');
  spare = `${lock}.spare`;
});

function open(hydrate?: false): ReturnType<typeof openDevice> {
  return openDevice({
    source: bytesSource(new Uint8Array(100_000).fill(7)),
    fileSystem: nodeFileSystem(directory),
    target: 'disk',
    ...(hydrate === undefined ? {} : { hydrate }),
  });
}

/** This machine, whose owners beat on request. */
function beating(): { machine: Machine; beat: (times: number) => void } {
  let beatOnce = (): void => undefined;
  return {
    machine: {
      ...thisMachine(),
      repeat: (_, task) => {
        beatOnce = task;
        return () => undefined;
      },
    },
    beat: (times) => {
      for (let count = 0; count < times; count++) beatOnce();
    },
  };
}

test('a spare file is made once, and removed once', async () => {
  await makeSpare(lock);
  const { size, mode, ino, mtimeNs } = statSync(spare, { bigint: true });
  expect([size, mode & 0o777n]).toEqual([262_144n, 0o600n]);
  await makeSpare(lock);
  expect(statSync(spare, { bigint: true })).toMatchObject({ ino, mtimeNs });
  expect(removeSpare(lock)).toBe(true);
  expect(removeSpare(lock)).toBe(false);
  expect(readdirSync(directory)).toEqual([]);
});

test.each([0, 3, 10, 5000])('a spare file that was cut short after %i bytes is made again', async (bytes) => {
  await makeSpare(lock);
  writeFileSync(spare, readFileSync(spare).subarray(0, bytes));
  await makeSpare(lock);
  expect(statSync(spare).size).toBe(262_144);
});

test.each<[string, () => void]>([
  ['a text', () => writeFileSync(spare, 'my notes')],
  ['a longer file that begins like ours', () => writeFileSync(spare, `COD SPARE\n${'x'.repeat(300_000)}`)],
  ['a link', () => symlinkSync('victim', spare)],
  ['a link to a file that begins like ours', () => symlinkSync('other', spare)],
  ['a directory', () => mkdirSync(spare)],
])('%s at its name stays as it is', async (_, make) => {
  writeFileSync(join(directory, 'victim'), '');
  writeFileSync(join(directory, 'other'), 'COD SPARE\nother');
  make();
  const { ino, mtimeNs } = statSync(spare, { bigint: true });
  await makeSpare(lock);
  expect(removeSpare(lock)).toBe(false);
  const device = await open();
  await device.hydrated;
  await device.finish();
  expect(statSync(spare, { bigint: true })).toMatchObject({ ino, mtimeNs });
  expect(readFileSync(join(directory, 'victim'), 'utf8')).toBe('');
  expect(readFileSync(join(directory, 'other'), 'utf8')).toBe('COD SPARE\nother');
});

test('a copy has a spare file until it is finished', async () => {
  const device = await open();
  expect(existsSync(spare)).toBe(true);
  await device.hydrated;
  await device.close();
  expect(readdirSync(directory)).toContain('disk.lock.spare');
  expect(readdirSync(directory)).not.toContain('disk.lock');
  const again = await open();
  await again.hydrated;
  await again.finish();
  expect(readdirSync(directory)).toEqual(['disk']);
});

test('the removal of a copy removes its spare file', async () => {
  await (await open(false)).close();
  expect(existsSync(spare)).toBe(true);
  await removeCopy({ fileSystem: nodeFileSystem(directory), target: 'disk' });
  expect(readdirSync(directory)).toEqual([]);
});

test('an opening that is refused makes no spare file', async () => {
  writeFileSync(join(directory, 'disk'), 'an image');
  await expect(open()).rejects.toMatchObject({ code: 'COD_EXISTS' });
  expect(readdirSync(directory)).toEqual(['disk']);
});

test('a step without room is repeated once in place of the spare file, which is made again', async () => {
  const { machine, beat } = beating();
  const lease = await lockFile(join(directory, 'disk'), { machine });
  writeFileSync(join(directory, 'disk.wil'), '');
  await lease.renewed!();
  let steps = 0;
  const step = (): never => {
    steps++;
    throw new CodError('COD_NO_SPACE', `step ${steps}, with ${existsSync(spare) ? 'a' : 'no'} spare file`);
  };
  await expect(lease.withRoom!(step)).rejects.toThrow('step 2, with no spare file');
  expect(statSync(spare).size).toBe(262_144);
  removeSpare(lock);
  await expect(lease.withRoom!(step)).rejects.toThrow('step 3, with no spare file');
  beat(11);
  await expect(lease.withRoom!(step)).rejects.toThrow('step 4, with no spare file');
  beat(1);
  await expect(lease.withRoom!(step)).rejects.toThrow('step 6, with no spare file');
  await lease.release();
  expect(statSync(spare).size).toBe(262_144);
});

test('an owner that was replaced makes no spare file', async () => {
  const { machine, beat } = beating();
  const lease = await lockFile(join(directory, 'disk'), { machine });
  await lease.renewed!();
  removeSpare(lock);
  writeFileSync(lock, readFileSync(lock, 'utf8').replace(/"token":"[0-9a-f]+"/, `"token":"${'0'.repeat(32)}"`));
  beat(12);
  await lease.release();
  expect(existsSync(spare)).toBe(false);
});
