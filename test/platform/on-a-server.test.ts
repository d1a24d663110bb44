/** The package for browsers on a server, as in server-side rendering: it can be imported, and its calls say why not. */

import { expect, test } from 'vitest';
import {
  copyAsFile,
  estimateStorage,
  inspectSource,
  openDevice,
  persistStorage,
  removeCopy,
} from '../../src/browser.ts';
import { opfsDirectory, opfsFileSystem } from '../../src/opfs.ts';

test.each([
  ['openDevice', () => openDevice({ source: 'https://example.org/disk.raw', target: 'disk.raw' })],
  ['inspectSource', () => inspectSource('https://example.org/disk.raw')],
  ['removeCopy', () => removeCopy({ target: 'disk.raw' })],
  ['copyAsFile', () => copyAsFile({ target: 'disk.raw' })],
  ['estimateStorage', () => estimateStorage()],
  ['opfsDirectory', () => opfsDirectory('')],
  ['a file of opfsFileSystem', () => opfsFileSystem().open('a')],
])('%s rejects on a server with COD_UNSUPPORTED', async (_, call) => {
  await expect(call()).rejects.toMatchObject({
    name: 'CodError',
    code: 'COD_UNSUPPORTED',
    message: expect.stringContaining('not on a server'),
  });
});

test('persistStorage on a server resolves to false', async () => {
  expect(await persistStorage()).toBe(false);
});
