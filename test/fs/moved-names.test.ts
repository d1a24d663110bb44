/** Names that an owner removes, which may be those of its successor by then. */

import * as fs from 'node:fs';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { removeName, restoreNames } from '../../src/fs/moved-names.ts';

let directory: string;
let copy: string;
let name: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cod-moved-'));
  copy = join(directory, 'disk');
  name = `${copy}.bak.1`;
  writeFileSync(name, 'own');
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

const names = (): string[] => readdirSync(directory).sort();
const moved = (of = '0123456789abcdef', end = '.bak.1'): string => `${copy}.lock.${of}.moved${end}`;

describe('a name is removed', () => {
  test('by its owner, which looks whether it still is when the name is gone', () => {
    let found: string[] = [];
    removeName(name, copy, () => {
      found = names();
      return true;
    });
    expect(found).toEqual([expect.stringMatching(/^disk\.lock\.[0-9a-f]{16}\.moved\.bak\.1$/)]);
    expect(names()).toEqual([]);
  });

  test('also if it is the name of the copy itself', () => {
    writeFileSync(copy, 'target');
    removeName(copy, copy, () => true);
    expect(names()).toEqual(['disk.bak.1']);
  });

  test('also if it is missing', () => {
    rmSync(name);
    removeName(name, copy, () => true);
    expect(names()).toEqual([]);
  });

  test('also if an earlier owner holds it aside, and whenever that puts it back', () => {
    fs.renameSync(name, moved());
    writeFileSync(moved('0000000000000000', '.bak'), 'of another name');
    let looks = 0;
    removeName(name, copy, () => {
      // The earlier owner has put it back, and not removed its own name yet.
      if (++looks === 1) fs.linkSync(moved(), name);
      return true;
    });
    expect(names()).toEqual(['disk.lock.0000000000000000.moved.bak']);
  });
});

describe('a name stays', () => {
  test('if its owner was replaced', () => {
    removeName(name, copy, () => false);
    expect(names()).toEqual(['disk.bak.1']);
    expect(readFileSync(name, 'utf8')).toBe('own');
  });

  test('if it cannot be known who its owner is', () => {
    const error = new Error('no answer');
    expect(() =>
      removeName(name, copy, () => {
        throw error;
      }),
    ).toThrow(error);
    expect(names()).toEqual(['disk.bak.1']);
  });

  test('if its successor has made another file meanwhile: the next owner decides', () => {
    removeName(name, copy, () => {
      writeFileSync(name, 'new');
      return false;
    });
    expect(readFileSync(name, 'utf8')).toBe('new');
    expect(names()).toHaveLength(2);
    restoreNames(copy);
    expect(readFileSync(name, 'utf8')).toBe('new');
    expect(names()).toHaveLength(1);
  });

  test('if its owner is killed on the way: the next owner puts it back', () => {
    fs.renameSync(name, moved());
    restoreNames(copy);
    expect(names()).toEqual(['disk.bak.1']);
    expect(readFileSync(name, 'utf8')).toBe('own');
  });

  test('if its owner is killed, and an earlier one makes an empty file in its place', () => {
    fs.renameSync(name, moved());
    writeFileSync(name, '');
    restoreNames(copy);
    expect(names()).toEqual(['disk.bak.1']);
    expect(readFileSync(name, 'utf8')).toBe('own');
  });
});

test('files of another copy, and of other programs, stay as they are', () => {
  const others = ['disk.raw.lock.0123456789abcdef.moved.bak', 'disk.lock.0123.moved.bak', 'disk.lock', 'other'];
  for (const other of others) writeFileSync(join(directory, other), 'x');
  restoreNames(copy);
  removeName(name, copy, () => true);
  expect(names()).toEqual(others.sort());
});
