/** Order files: a recorded order is read back, and any other file is refused. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { checkOrderSize, type OrderRecording, readOrder, recordOrder } from '../../src/cli/order-file.ts';
import { CrashingFileSystem } from '../../src/testing/index.ts';
import { temporaryDirectory } from './temporary.ts';

const SIZE = 2 ** 30;
const HEAD = `copyondemand order 1\nsize ${SIZE}\n`;

function orderIn(text: string): string {
  const path = join(temporaryDirectory(), 'order');
  writeFileSync(path, text);
  return path;
}

/** As the command reads an order for an image of {@link SIZE} bytes. */
async function extentsIn(path: string) {
  const order = await readOrder(path);
  checkOrderSize(order, SIZE);
  return order.extents;
}

const fail = (error: unknown): never => {
  throw error;
};

async function record(path: string, onProblem: (error: unknown) => void = fail): Promise<OrderRecording> {
  const recording = await recordOrder(path, SIZE, onProblem);
  onTestFinished(() => recording.close());
  return recording;
}

describe('a recorded order', () => {
  test('is read back with each byte once, in the order of its first read', async () => {
    const path = join(temporaryDirectory(), 'order');
    const recording = await record(path);
    recording.onRead(SIZE - 100, 100);
    recording.onRead(0, 8192);
    recording.onRead(4096, 10_000);
    await recording.close();
    expect(readFileSync(path, 'utf8')).toMatch(
      /^copyondemand order 1\nsize 1073741824\n\d+ 1073737728 4096\n\d+ 0 16384\n$/,
    );
    expect(await extentsIn(path)).toEqual([
      { offset: SIZE - 4096, length: 4096 },
      { offset: 0, length: 16_384 },
    ]);
  });

  test('is written during the recording, so that kill -9 loses only the last moment', async () => {
    const path = join(temporaryDirectory(), 'order');
    const recording = await record(path);
    recording.onRead(4096, 4096);
    await vi.waitFor(async () => expect(await extentsIn(path)).toEqual([{ offset: 4096, length: 4096 }]), {
      timeout: 30_000,
    });
    recording.onRead(0, 4096);
    await vi.waitFor(async () => expect(await extentsIn(path)).toHaveLength(2), { timeout: 30_000 });
  });

  test('is continued by the next run, without its torn line and without duplicates', async () => {
    const path = orderIn(`${HEAD}5 0 4096\n9 8192 40`);
    const recording = await record(path);
    recording.onRead(0, 12_288);
    await recording.close();
    expect(readFileSync(path, 'utf8')).toMatch(new RegExp(`^${HEAD}5 0 4096\n\\d+ 4096 8192\n$`));
  });

  test.each(['', 'copyondemand or', `${HEAD.slice(0, -1)}`])('starts again if a crash left only %j', async (text) => {
    const path = orderIn(text);
    await (await record(path)).close();
    expect(readFileSync(path, 'utf8')).toBe(HEAD);
  });

  test('has one recorder at a time', async () => {
    const path = join(temporaryDirectory(), 'order');
    await record(path);
    await expect(record(path)).rejects.toMatchObject({ code: 'COD_LOCKED' });
  });

  test('never replaces a file of another format', async () => {
    const path = orderIn('precious\n');
    await expect(record(path)).rejects.toMatchObject({ code: 'COD_EXISTS' });
    expect(readFileSync(path, 'utf8')).toBe('precious\n');
    await expect(record(join(path, 'below'))).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
    await expect(record(join(temporaryDirectory(), 'no', 'order'))).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
  });

  test('of another image is not continued', async () => {
    const path = orderIn(HEAD.replace(String(SIZE), '4096'));
    await expect(record(path)).rejects.toMatchObject({ code: 'COD_SIZE_MISMATCH' });
  });

  test('reports a failed write once, and does not disturb the copy', async () => {
    const problems: unknown[] = [];
    const fileSystem = new CrashingFileSystem();
    const recording = await recordOrder('order', SIZE, (error) => problems.push(error), fileSystem);
    fileSystem.failWhen(({ kind }) => kind === 'write' || kind === 'sync', { code: 'COD_NO_SPACE', stays: true });
    recording.onRead(0, 4096);
    await recording.close();
    recording.onRead(4096, 4096);
    await recording.close();
    expect(problems).toMatchObject([{ code: 'COD_NO_SPACE' }]);
  });
});

describe('an order file', () => {
  test('is read without its torn last line', async () => {
    for (const tail of ['7', '7 4096', '7 4096 40', '7 4096 4096']) {
      expect(await extentsIn(orderIn(`${HEAD}5 0 4096\n${tail}`))).toEqual([{ offset: 0, length: 4096 }]);
    }
  });

  test.each([
    { name: 'no text', text: '', code: 'COD_CORRUPT', says: 'not an order file' },
    { name: 'text of another format', text: 'precious\n', code: 'COD_CORRUPT', says: 'not an order file' },
    { name: 'zeros', text: '\0'.repeat(5000), code: 'COD_CORRUPT', says: 'not an order file' },
    { name: 'a newer version', text: HEAD.replace('order 1', 'order 2'), code: 'COD_VERSION', says: 'version 2' },
    { name: 'no size', text: 'copyondemand order 1\n5 0 4096\n', code: 'COD_CORRUPT', says: 'line 2' },
    { name: 'another size', text: HEAD.replace(String(SIZE), '4096'), code: 'COD_SIZE_MISMATCH', says: '4096 bytes' },
    { name: 'a word too many', text: `${HEAD}5 0 4096 1\n`, code: 'COD_CORRUPT', says: 'line 3' },
    { name: 'a word too few', text: `${HEAD}5 0 4096\n5 0\n`, code: 'COD_CORRUPT', says: 'line 4' },
    { name: 'a negative number', text: `${HEAD}5 -1 4096\n`, code: 'COD_CORRUPT', says: 'line 3' },
    { name: 'a fraction', text: `${HEAD}5 0.5 4096\n`, code: 'COD_CORRUPT', says: 'line 3' },
    { name: 'an extent without bytes', text: `${HEAD}5 0 0\n`, code: 'COD_CORRUPT', says: 'line 3' },
    { name: 'an extent beyond the image', text: `${HEAD}5 ${SIZE} 1\n`, code: 'COD_CORRUPT', says: 'line 3' },
    {
      name: 'a number that is too large',
      text: `${HEAD}5 99999999999999999999 1\n`,
      code: 'COD_CORRUPT',
      says: 'line 3',
    },
    { name: 'an empty line', text: `${HEAD}\n`, code: 'COD_CORRUPT', says: 'line 3' },
    {
      name: 'the line ends of another system',
      text: HEAD.replaceAll('\n', '\r\n'),
      code: 'COD_CORRUPT',
      says: 'not an order file',
    },
    {
      name: 'more bytes than an order may have',
      text: HEAD + '5 0 4096\n'.repeat(2 ** 20),
      code: 'COD_CORRUPT',
      says: 'more than',
    },
  ])('with $name is refused', async ({ text, code, says }) => {
    const opening = extentsIn(orderIn(text));
    await expect(opening).rejects.toMatchObject({ code, message: expect.stringContaining(says) });
  });

  test('that is missing, or a directory, is refused', async () => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, 'sub'));
    await expect(extentsIn(join(directory, 'order'))).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
    await expect(extentsIn(join(directory, 'sub'))).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
  });

  test('with arbitrary text is an order or refused', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: fc.constantFrom(...'0123456789 \n-.ax') }), async (tail) => {
        const text = HEAD + tail;
        const path = orderIn(text);
        const found = await extentsIn(path).catch((error: { code: string }) => error.code);
        if (typeof found === 'string') expect(found).toBe('COD_CORRUPT');
        else
          for (const { offset, length } of found)
            expect(offset >= 0 && length > 0 && offset + length <= SIZE).toBe(true);
      }),
      { numRuns: 50 },
    );
  });
});
