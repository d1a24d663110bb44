/** docs/LOG.md: its example runs, and its tables are complete and correct. */

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openIntentLog, recoverIntentLog } from '../../src/log.ts';
import { bundleUser } from '../support/own-package.ts';
import { MemoryFiles } from './memory-files.ts';

const text = await readFile(new URL('../../docs/LOG.md', import.meta.url), 'utf8');

/** The functions in block_map_intent_logger.go and block_map_intent_transaction.go of datto/copyondemand. */
const FUNCTIONS = [
  'newBlockMapIntentLogger',
  'init',
  'getWriteTransaction',
  'flushWriteTransaction',
  'discardWriteTransaction',
  'periodicFlush',
  'finalize',
  'flushIntent',
  'initWilPointer',
  'writeHeader',
  'validateHeader',
  'flushPrimaryBlockMap',
  'applyBlockMap',
  'applyIntent',
  'writeIncrementalIntent',
  'intentFileExists',
  'reset',
  'setStartBlock',
  'setEndBlock',
  'recordDirtyWrite',
  'serialize',
  'recordDirtyWriteAction',
];

const FILES = ['.bak', '.bak.1', '.wil', '.wil.1'];
/** Every set of the four files, in the order of their names. */
const STATES = Array.from({ length: 2 ** FILES.length }, (_, bits) => FILES.filter((_, index) => bits & (1 << index)));

/** The cells of the rows of all tables. */
const rows = text
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .map((line) => line.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, '')));

/** The files that the last column of the table of states marks as read. */
function readHere(state: readonly string[]): string[] {
  const first = state.map((name) => `\`${name}\``).join(' + ') || 'no file';
  const found = rows.filter(([cell]) => cell === first);
  expect(found.length, `rows for ${first}`).toBe(1);
  return [...found[0]![2]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
}

/** A file of 8-byte words and byte arrays. */
function file(kind: 'BAK' | 'WIL', ...parts: (number | Uint8Array)[]): Uint8Array {
  const pieces = [new TextEncoder().encode(`COD ${kind}\0`), 1, ...parts].map((part) =>
    typeof part === 'number' ? new Uint8Array(new BigUint64Array([BigInt(part)]).buffer) : part,
  );
  return Uint8Array.from(pieces.flatMap((piece) => [...piece]));
}

/** A checkpoint of format 1 with one synced block, in one array container. */
function checkpoint(block: number): Uint8Array {
  const bitmap = Uint8Array.of(0x3a, 0x30, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, block, 0);
  return file('BAK', bitmap.length, bitmap, 0, 0);
}

/** Each file marks another block as synced. */
const CONTENTS = new Map([
  ['.bak', checkpoint(0)],
  ['.bak.1', checkpoint(1)],
  ['.wil', file('WIL', 1, 2)],
  ['.wil.1', file('WIL', 1, 3)],
]);

function filesOf(state: readonly string[]): MemoryFiles {
  const images = state.map((name) => {
    const bytes = CONTENTS.get(name)!;
    return [`store${name}`, { bytes, size: bytes.length }] as const;
  });
  return new MemoryFiles(new Map(images), { bootId: 'boot' });
}

describe('docs/LOG.md', () => {
  it('runs its example of about twenty lines, on a new log and on an existing log', async () => {
    const snippet = text.split('```js use.mjs\n')[1]?.split('```')[0];
    expect(
      snippet
        ?.trim()
        .split('\n')
        .filter((line) => line !== '').length,
    ).toBeLessThanOrEqual(21);
    const bundle = await bundleUser(snippet!);
    const folder = await mkdtemp(join(tmpdir(), 'cod-log-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    for (let run = 0; run < 2; run++) {
      const { stdout } = await promisify(execFile)(process.execPath, [bundle], { cwd: folder });
      expect(stdout).toBe('[ [ 0, 5 ] ]\nfalse\n');
    }
  });

  it.each(FUNCTIONS)('names the replacement of %s', (name) => {
    const named = rows.filter(([cell]) => cell!.split(', ').includes(`\`${name}\``));
    expect(named.length).toBe(1);
    expect(named[0]![1]!.length).toBeGreaterThan(10);
  });

  it.each(FUNCTIONS.slice(0, 16))('explains the differences to %s', (name) => {
    const headings = text.split('\n').filter((line) => line.startsWith('**`'));
    expect(headings.filter((line) => line.includes(`\`${name}\``)).length).toBe(1);
  });

  it.each(STATES.map((state) => [state.join(' ') || 'none', state] as const))(
    'names the files read in this state: %s',
    async (_, state) => {
      const expected = readHere(state).map((name) => FILES.indexOf(name));
      const options = { fileSystem: filesOf(state), name: 'store', size: 5 * 4096 };
      const recovered = await recoverIntentLog(options);
      const found = [0, 1, 2, 3, 4].filter((block) => recovered.blocks.has(block));
      expect(found).toEqual([...expected].sort());
      expect(recovered.isNew).toBe(state.length === 0);
      await recovered.close();
      // The conversion, and the open after it, find the same state.
      const storage = { read: async () => undefined, sync: async () => undefined };
      for (let start = 0; start < 2; start++) {
        const log = await openIntentLog({ ...options, storage });
        expect([0, 1, 2, 3, 4].filter((block) => log.blocks.has(block))).toEqual(found);
        await log.close();
      }
    },
  );

  it('has one sentence per line, and lines of at most 120 characters', () => {
    const lines = text.split('\n');
    expect(lines.filter((line) => line.length > 120)).toEqual([]);
    const prose = text.replace(/```[\s\S]*?```/g, '').split('\n');
    expect(prose.filter((line) => /[a-z`)]\. [A-Z`]/.test(line))).toEqual([]);
  });
});
