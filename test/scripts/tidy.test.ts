/** `scripts/tidy.mjs` on small trees: it finds each kind of fault with file and line, and accepts a clean tree. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../cli/temporary.ts';

const script = fileURLToPath(new URL('../../scripts/tidy.mjs', import.meta.url));
const { BANNED } = (await import(/* @vite-ignore */ pathToFileURL(script).href)) as {
  BANNED: readonly (readonly [phrase: string, replacement: string])[];
};

const URL_OF_200 = `https://example.org/${'x'.repeat(180)}`;
/** A sentence of 31 words. */
const SENTENCE = `${'word '.repeat(31).trim()}.`;
const CLEAN = {
  'README.md': `A short line.\n- ${URL_OF_200}\n| ${'cell '.repeat(20)}|\n`,
  'src/a.ts': `/** Returns one. */\nexport const one = 1;\n// ${URL_OF_200}\n`,
  'src/unicode.ts': `// ${'🙂'.repeat(117)}\n`,
  LICENSE: `${'x '.repeat(100)}\n`,
  'docs/api/a.api.md': `${'x '.repeat(100)}\n`,
  'test/fixtures/data.json': `"${'x '.repeat(100)}"\n`,
  'package.json': `{ "description": "${'x '.repeat(100)}" }\n`,
  'picture.svg': `<svg>${' '.repeat(200)}</svg>\n`,
  'image.bin': `\0${'x '.repeat(100)}`,
};

/** Makes a folder with these files. */
function tree(files: Readonly<Record<string, string>>): string {
  const folder = temporaryDirectory();
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return folder;
}

/** Runs the check. Returns its exit code and findings. */
function tidy(folder: string): { exitCode: number | null; findings: string[] } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, folder], { encoding: 'utf8' });
  expect(stderr).toBe('');
  return { exitCode: status, findings: stdout.split('\n').filter(Boolean) };
}

test('accepts a clean tree with long lines in exempt places', () => {
  expect(tidy(tree(CLEAN))).toEqual({ exitCode: 0, findings: [] });
});

test.each([
  ['a line of 121 characters', 'src/b.ts', `//\n//\n// ${'x'.repeat(118)}\n`, /^src\/b\.ts:3: 121 characters/],
  ['a long line with more than a URL', 'README.md', `see ${URL_OF_200}\n`, /^README\.md:1: 204 characters/],
  ['a long line in a fixture’s document', 'test/fixtures/README.md', 'x'.repeat(121), /README\.md:1: 121 char/],
  ['a banned phrase in code', 'src/b.ts', `\nthrow new Error('${BANNED[0]![0]}');\n`, /^src\/b\.ts:2: "/],
  ['a banned phrase in a document', 'docs/B.md', `# B\n\n${BANNED[0]![0]}.\n`, /^docs\/B\.md:3: "/],
  ['a long sentence in a document', 'docs/B.md', `# B\n\n${SENTENCE}\n`, /^docs\/B\.md:3: a sentence of 31 words/],
  [
    'a long wrapped sentence in a doc comment',
    'src/b.ts',
    `/**\n * Short.\n * ${'word '.repeat(16)}\n * ${'word '.repeat(15)}\n */\n`,
    /^src\/b\.ts:3: a sentence of 31 words/,
  ],
])('finds %s', (_, path, text, expected) => {
  const { exitCode, findings } = tidy(tree({ ...CLEAN, [path]: text }));
  expect(exitCode).toBe(1);
  expect(findings.filter((finding) => expected.test(finding))).toHaveLength(1);
});

test('finds every banned phrase in any case, and names the replacement', () => {
  const text = BANNED.map(([phrase]) => `// This ${phrase.toUpperCase()}\n`).join('');
  const { findings } = tidy(tree({ 'a.ts': text }));
  for (const [index, [phrase, replacement]] of BANNED.entries())
    expect(findings).toContain(`a.ts:${index + 1}: "${phrase}"; write: ${replacement}`);
});

test('accepts a banned phrase as a part of a longer word', () => {
  expect(tidy(tree({ 'a.ts': `// x${BANNED[0]![0]}x, un-${BANNED[0]![0]}\n` })).findings).toEqual([]);
});

test('reads only tracked files in a git work tree', () => {
  const folder = tree({ 'tracked.ts': `// ${BANNED[0]![0]}\n`, 'untracked.ts': `// ${BANNED[0]![0]}\n` });
  const git = (...args: string[]): unknown => execFileSync('git', args, { cwd: folder, stdio: 'ignore' });
  git('init');
  git('add', 'tracked.ts');
  expect(tidy(folder).findings).toEqual([expect.stringMatching(/^tracked\.ts:1: /)]);
});
