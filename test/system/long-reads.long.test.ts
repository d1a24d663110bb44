/** Reads of more than 2 GiB from real files. Node ends the process at a longer call, so only a real buffer shows it. */

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { freemem, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';

const GIB = 2 ** 30;
const LENGTH = 2 * GIB + 4096;
/** Where the sparse file has bytes that are not zero, and what they are. */
const MARKS = [0, GIB - 1, GIB, 2 * GIB - 1, 2 * GIB, LENGTH - 1];
const VALUES = MARKS.map((_, index) => index + 1);

describe.skipIf(freemem() < 4 * GIB)('a file of 2 GiB and a page', () => {
  let folder: string;
  let path: string;
  // One buffer for all tests: to touch its pages takes a second.
  let into: Uint8Array;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'cod-long-'));
    path = join(folder, 'disk.raw');
    const fd = openSync(path, 'w');
    ftruncateSync(fd, LENGTH);
    MARKS.forEach((at, index) => {
      writeSync(fd, Uint8Array.of(VALUES[index]!), 0, 1, at);
    });
    closeSync(fd);
    into = new Uint8Array(LENGTH);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const found = (): (number | undefined)[] => MARKS.map((at) => into[at]);

  it('is read by one call of a source', async () => {
    const source = await fileSource(path);
    await source.read(into, 0);
    await source.close();
    expect(found()).toEqual(VALUES);
  });

  it('is read by one call of a file', async () => {
    into.fill(0);
    const file = await nodeFileSystem(folder, { readOnly: true }).open('disk.raw');
    await file.read(into, 0);
    await file.close();
    expect(found()).toEqual(VALUES);
  });

  it('is read by one call of a device that has copied it', async () => {
    into.fill(0);
    const source = await fileSource(path);
    const device = await openDevice({ source, fileSystem: nodeFileSystem(folder), target: 'copy.raw' });
    await device.hydrated;
    await device.read(into, 0);
    await device.close();
    await source.close();
    expect(found()).toEqual(VALUES);
  });
});
