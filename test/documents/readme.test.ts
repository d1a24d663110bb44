/** All documents: their form. README.md: its size, its lists, and the code that runs here. */

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { parseConfig } from '../../src/cli/config-file.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { codeBlocks, ownDocuments, proseLines, readDocument } from '../support/documents.ts';
import { bundleUser } from '../support/own-package.ts';
import { serveFile } from '../support/range-server.ts';
import { README_BLOCKS, README_URL, readmeBlock } from '../support/readme-blocks.ts';

const MAX_WORDS = 900;
/** What is read in ten minutes. */
const MAX_DESIGN_WORDS = 2500;
const readme = readDocument('README.md');
const wordsOf = (text: string): number => text.trim().split(/\s+/).length;

// What `npm run api` makes has no prose of its own.
describe.each(ownDocuments())('%s', (path) => {
  const text = readDocument(path);

  it('has lines of at most 120 characters', () => {
    expect(text.split('\n').filter((line) => line.length > 120)).toEqual([]);
  });

  it('has one sentence in a line', () => {
    const texts = proseLines(text).map((line) => line.replace(/^\s*\d+\. /, ''));
    expect(texts.filter((line) => /[a-z0-9`)]\. [A-Z`]/.test(line))).toEqual([]);
  });

  it('has no sentence of more than 25 words', () => {
    // A list item or paragraph of several lines is one text; a sentence ends with its punctuation.
    const texts = proseLines(text)
      .join('\n')
      .split(/\n(?=\s*(?:\n|[-#]|\d+\.))/);
    const sentences = texts.flatMap((each) => each.replace(/\s+/g, ' ').split(/(?<=[.:;?!]) /));
    expect(sentences.filter((sentence) => sentence.split(' ').length > 25)).toEqual([]);
  });
});

describe('README.md', () => {
  it(`has at most ${MAX_WORDS} words`, () => {
    expect(wordsOf(readme)).toBeLessThanOrEqual(MAX_WORDS);
  });

  it(`introduces a design of at most ${MAX_DESIGN_WORDS} words`, () => {
    expect(wordsOf(readDocument('docs/DESIGN.md'))).toBeLessThanOrEqual(MAX_DESIGN_WORDS);
  });

  it('shows only code that tests run', () => {
    // test/system/readme.test.ts runs all of it with the packed package, and here two blocks run from the sources.
    const names = codeBlocks(readme).map(({ language, name }) => `${language} ${name}`);
    expect(names).toEqual(README_BLOCKS);
  });

  it('shows a use in Node that copies the image and removes the metadata', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cod-readme-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const image = seededRandom(1).fill(new Uint8Array(300_001));
    await writeFile(join(folder, 'image.raw'), image);
    const server = await serveFile(join(folder, 'image.raw'));
    onTestFinished(() => server.close());
    const bundle = await bundleUser(readmeBlock('main.mjs').replace(README_URL, server.url));
    await promisify(execFile)(process.execPath, [bundle], { cwd: folder });
    const copy = await readFile(join(folder, 'disk.raw'));
    const expected = Buffer.from(image);
    expected.copy(expected, 1024, 0, 512);
    expect(copy.equals(expected)).toBe(true);
    await expect(readFile(join(folder, 'disk.raw.bak'))).rejects.toThrow('ENOENT');
    await expect(readFile(join(folder, 'disk.raw.bak.1'))).rejects.toThrow('ENOENT');
  });

  it('shows a crash test that passes, and that fails if the device is not flushed', async () => {
    const code = readmeBlock('crash.mjs');
    const run = async (text: string) => promisify(execFile)(process.execPath, [await bundleUser(text)]);
    expect((await run(code)).stdout).toMatch(/stories: \d+, lives: \d+, crashes: \d\d/);
    const unflushed = code.replace('      await device.flush();\n', '');
    expect(unflushed).not.toBe(code);
    await expect(run(unflushed)).rejects.toMatchObject({
      stderr: expect.stringMatching(/a flushed write is lost[\s\S]*replay: \{"version":1,/) as unknown,
    });
  });
});

describe('docs/BROWSER.md and docs/COMMAND.md', () => {
  it('show only code that tests run', () => {
    // test/system/readme.test.ts runs the first two. The third is a picture, and the last one is read here.
    const blocks = [...codeBlocks(readDocument('docs/BROWSER.md')), ...codeBlocks(readDocument('docs/COMMAND.md'))];
    expect(blocks.map(({ name }) => name)).toEqual(['esbuild', 'web', 'layers', 'disks']);
    expect(parseConfig(blocks.at(-1)!.code, 'docs/COMMAND.md').disks).toHaveLength(2);
  });
});

it('docs/TESTING.md names the system packages that `npm test` installs', async () => {
  const script = pathToFileURL(join(import.meta.dirname, '../../scripts/lib/system-packages.mjs')).href;
  const { systemPackages } = (await import(script)) as { systemPackages: Record<string, string> };
  const block = codeBlocks(readDocument('docs/TESTING.md')).find(({ name }) => name === 'packages');
  expect(block?.code.trim().split(/\s+/)).toEqual(Object.keys(systemPackages));
});
