/** `explain` says of each error code what docs/ERRORS.md says, whose examples are messages of the command. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { sectionsOf } from '../../src/cli/explain.ts';
import { runCommand } from '../cli/command.ts';
import { makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { readDocument } from '../support/documents.ts';

const sections = sectionsOf(readDocument('docs/ERRORS.md'));

/** The example of a section, on one line. */
function exampleOf(code: string): string {
  return /```text\n([\s\S]*?)\n```/.exec(sections.get(code)!)![1]!.replaceAll('\n', ' ');
}

test('docs/ERRORS.md has a section for each code, in alphabetical order, and each has an example and advice', () => {
  const source = readFileSync(new URL('../../src/errors.ts', import.meta.url), 'utf8');
  const codes = [...source.matchAll(/^ {2}\| '(COD_\w+)'/gm)].map(([, code]) => code!);
  expect([...sections.keys()]).toEqual(codes.sort());
  for (const [code, text] of sections) {
    expect(exampleOf(code)).toMatch(new RegExp(`^${code}: .`));
    expect(text).toMatch(/^- /m);
  }
});

describe('the example is what the command says', () => {
  const digest = 'ab'.repeat(32);
  test.each([
    ['COD_NOT_RUNNING', ['pause', 'disk']],
    ['COD_NOT_FOUND', ['copy', 'disk.raw', 'disk']],
    ['COD_EXISTS', ['copy', 'image', 'disk']],
    ['COD_SIZE_MISMATCH', ['copy', 'empty', 'new']],
  ] as const)('of %s', async (code, args) => {
    const directory = temporaryDirectory();
    makeImage(directory);
    writeFileSync(join(directory, 'disk'), digest);
    writeFileSync(join(directory, 'empty'), '');
    const { stderr } = await runCommand(args, { cwd: directory });
    expect(stderr).toBe(`copyondemand: ${exampleOf(code)}\n`);
  });
});

describe('explain', () => {
  test.each(['COD_LOCKED', 'locked', 'cod-locked'])('%s prints the section', async (code) => {
    const { stdout, exitCode } = await runCommand(['explain', code]);
    expect(exitCode).toBe(0);
    expect(stdout).toContain('`copyondemand status TARGET`');
    expect(stdout).toMatch(/^COD_LOCKED\n\n/);
    expect(stdout).not.toContain('```');
  });

  test('lists all codes', async () => {
    const { stdout } = await runCommand(['explain']);
    expect(stdout.match(/^COD_\w+(?= +[A-Z].*\.$)/gm)).toEqual([...sections.keys()]);
  });

  test('refuses another word with 2', async () => {
    const result = await runCommand(['explain', 'EPERM']);
    expect(result).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('there is no code EPERM') });
  });
});
