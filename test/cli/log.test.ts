/** The log: its file, which must never harm the command, and how often it tells one thing. */

import { existsSync, readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { EventLines } from '../../src/cli/log/events.ts';
import { LogFile } from '../../src/cli/log/log-file.ts';
import { Repeats } from '../../src/cli/log/repeats.ts';
import { bytesSource, CodError, openDevice } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import { temporaryDirectory } from './temporary.ts';

const TIME = new Date('2026-11-29T05:45:43.243Z');
const STAMP = '2026-11-29T05:45:43.243Z ';

test('of one kind and subject, five lines are passed on and the others are counted', () => {
  const lines: string[] = [];
  const repeats = new Repeats((level, text) => lines.push(`${level} ${text}`));
  for (let count = 1; count <= 7; count++) repeats.add('warning', 'retry', 'a', `attempt ${count}`);
  repeats.add('warning', 'retry', 'b', 'attempt 1');
  repeats.add('info', 'other', 'a', 'more');
  repeats.close();
  expect(lines).toEqual([
    ...[1, 2, 3, 4, 5].map((count) => `warning a: attempt ${count}`),
    'warning b: attempt 1',
    'info a: more',
    'warning a: retry: 2 more suppressed',
  ]);
});

test('events of a device are lines, with the numbers', async () => {
  const lines: string[] = [];
  const events = new EventLines((level, text) => lines.push(`${level} ${text}`));
  onTestFinished(() => events.close());
  const bytes = new Uint8Array(2 ** 20);
  const [fileSystem, target] = [memfsFileSystem(), 'lines of a device'];
  const first = await openDevice({ source: bytesSource(bytes), fileSystem, target, hydrate: false });
  await first.write(new Uint8Array(2 ** 18 + 1), 0);
  await first.close();
  let failures = 0;
  const source = {
    ...bytesSource(bytes),
    read: async () => {
      if (failures++ < 1) throw new CodError('COD_SOURCE_IO', 'the cable is cut');
    },
  };
  const second = await openDevice({ source, fileSystem, target });
  await second.hydrated;
  await second.close();
  expect(lines[0]).toBe(`info ${target}: opened, 1 MiB, 0 bytes (0.0 %) synced, 0 dirty blocks, idle`);
  expect(lines).toContain(`info ${target}: opened, 1 MiB, 256 KiB (25.0 %) synced, 1 dirty blocks, hydrating`);
  expect(lines).toContainEqual(
    expect.stringMatching(
      `warning ${target}: COD_SOURCE_IO: the cable is cut; attempt 1 failed, the next one in 0\\.\\d{3} s`,
    ),
  );
  expect(lines).toContain(`warning ${target}: waiting`);
  expect(lines).toContain(`notice ${target}: recovered: the copy continues`);
  expect(lines).toContain(`notice ${target}: hydrated`);
  expect(lines.at(-1)).toBe(`info ${target}: closed`);
});

describe('a log file', () => {
  async function open(path: string, now = () => 0): Promise<{ file: LogFile; lost: string[] }> {
    const lost: string[] = [];
    const file = await LogFile.open(path, { onLost: ({ message }) => void lost.push(message), now });
    onTestFinished(() => file.close());
    return { file, lost };
  }

  test('is appended to, one line for each text', async () => {
    const path = join(temporaryDirectory(), 'log');
    for (const text of ['one', 'two\nlines']) {
      const { file } = await open(path);
      file.add(TIME, text);
      await file.close();
    }
    expect(readFileSync(path, 'utf8')).toBe(`${STAMP}one\n${STAMP}two lines\n`);
    expect(statSync(path).mode & 0o137).toBe(0);
  });

  test.each([
    ['renamed', (path: string) => renameSync(path, `${path}.1`)],
    ['removed', (path: string) => unlinkSync(path)],
  ])('that was %s is made again', async (_, rotate) => {
    const path = join(temporaryDirectory(), 'log');
    let nowMs = 0;
    const { file } = await open(path, () => nowMs);
    const written = async (text: string): Promise<void> => {
      file.add(TIME, text);
      while (!existsSync(path) || !readFileSync(path, 'utf8').includes(text)) await new Promise(setImmediate);
    };
    await written('before');
    rotate(path);
    nowMs = 1000;
    await written('after');
    expect(readFileSync(path, 'utf8')).toBe(`${STAMP}after\n`);
    if (existsSync(`${path}.1`)) expect(readFileSync(`${path}.1`, 'utf8')).toBe(`${STAMP}before\n`);
  });

  test.each([
    ['an image', new Uint8Array(4096)],
    ['a text', new TextEncoder().encode('2026: the year of something else\n')],
  ])('that holds %s is refused, and stays as it is', async (_, content) => {
    const path = join(temporaryDirectory(), 'log');
    writeFileSync(path, content);
    await expect(open(path)).rejects.toMatchObject({ code: 'COD_EXISTS' });
    expect(readFileSync(path)).toEqual(Buffer.from(content));
  });

  test('in a missing directory is an error', async () => {
    await expect(open(join(temporaryDirectory(), 'none', 'log'))).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
  });

  test('on a full disk loses lines, tells so once, and keeps a bounded number in memory', async () => {
    const { file, lost } = await open('/dev/full');
    for (let count = 0; count < 10_000; count++) file.add(TIME, 'a'.repeat(1000));
    await file.close();
    expect(lost).toHaveLength(1);
  });

  test('tells how many lines are lost, once it can be written', async () => {
    const path = join(temporaryDirectory(), 'log');
    const { file, lost } = await open(path);
    // More than waits in memory: the first write begins only after this turn of the event loop.
    for (let count = 0; count < 300; count++) file.add(TIME, 'a'.repeat(1000));
    expect(lost).toEqual(['the disk is too slow']);
    while (!readFileSync(path, 'utf8').includes('\n')) await new Promise(setImmediate);
    file.add(TIME, 'the end');
    await file.close();
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    const told = lines.find((line) => line.includes('lines are lost'))!;
    expect(lines.length - 2 + Number(/warning: (\d+) lines are lost/.exec(told)![1])).toBe(300);
    expect(lines.at(-1)).toBe(`${STAMP}the end`);
  });
});
