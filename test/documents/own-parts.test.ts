/** The code of docs/SOURCES.md and docs/BACKENDS.md runs, and does what the documents say. */

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { seededRandom } from '../../src/testing/random.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { codeBlocks, readDocument } from '../support/documents.ts';
import { bundleUser } from '../support/own-package.ts';

const CHUNK = 65_536;

/** Runs the only code block of a document in `folder`. */
async function runBlock(document: string, name: string, folder: string): Promise<string> {
  const blocks = codeBlocks(readDocument(document));
  expect(blocks.map((block) => block.name)).toEqual([name]);
  return (await promisify(execFile)(process.execPath, [await bundleUser(blocks[0]!.code)], { cwd: folder })).stdout;
}

it('the source of docs/SOURCES.md is copied', async () => {
  const folder = temporaryDirectory();
  const image = seededRandom(3).fill(new Uint8Array(20 * CHUNK + 77));
  mkdirSync(join(folder, 'chunks'));
  for (let at = 0; at < image.length; at += CHUNK)
    writeFileSync(join(folder, 'chunks', `${at / CHUNK}`), image.subarray(at, at + CHUNK));
  const digest = createHash('sha256').update(image).digest('hex');
  writeFileSync(join(folder, 'chunks', 'index.json'), JSON.stringify({ size: image.length, digest }));
  await runBlock('docs/SOURCES.md', 'chunks.mjs', folder);
  expect(readFileSync(join(folder, 'disk.raw')).equals(image)).toBe(true);
  expect(existsSync(join(folder, 'disk.raw.bak'))).toBe(false);
});

it('the file system of docs/BACKENDS.md passes the suite', async () => {
  const output = await runBlock('docs/BACKENDS.md', 'backend.mjs', temporaryDirectory());
  expect(output.match(/^passed: /gm)?.length).toBeGreaterThan(20);
});
