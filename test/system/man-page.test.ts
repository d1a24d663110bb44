/** The man page of the build, as man programs read it. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { definitions } from '../../src/cli/definitions/program.ts';
import { describeWith } from '../support/tools.ts';

const root = join(import.meta.dirname, '../..');
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { man: [string]; version: string };
const page = join(root, manifest.man[0]);
const program = definitions(manifest.version);
const visible = program.createHelp().visibleCommands(program);
const commands = program.commands.filter((command) => visible.includes(command));

describeWith(['mandoc'], 'the man page', () => {
  const text = () => {
    const printed = execFileSync('mandoc', ['-Tascii', page], { encoding: 'utf8' });
    // A bold letter is printed twice, with a backspace between.
    const parts = printed.split('\b');
    return parts.map((part, index) => (index + 1 < parts.length ? part.slice(0, -1) : part)).join('');
  };
  /** Text in one line, as the page wraps it elsewhere. */
  const plain = (text: string) => text.replaceAll('`', '').replace(/\s+/g, ' ');

  test('has no mistake but the missing date', () => {
    // mandoc exits with 2 for a warning.
    const found = execFileSync('sh', ['-c', `mandoc -Tlint -W warning '${page}' || true`], { encoding: 'utf8' });
    expect(
      found
        .trim()
        .split('\n')
        .filter((line) => !line.includes('missing date')),
    ).toEqual([]);
  });

  test('has every command, argument, option and example', () => {
    const shown = plain(text());
    for (const command of commands) {
      const start = shown.indexOf(` copyondemand ${command.name()} `, shown.indexOf(' COMMANDS '));
      expect(start).toBeGreaterThan(0);
      const section = shown.slice(start);
      expect(section).toContain(plain(command.description()));
      for (const { flags, description } of command.options) expect(section).toContain(plain(`${flags} ${description}`));
      for (const argument of command.registeredArguments)
        expect(section).toContain(plain(`${argument.name().toUpperCase()} ${argument.description}`));
    }
    const examples = commands.flatMap((command) => (command as unknown as { examples: string[] }).examples);
    expect(examples.length).toBeGreaterThan(commands.length);
    for (const example of examples) expect(text()).toContain(`${example}\n`);
  });

  test('has the sections that readers look for', () => {
    const titles = [...text().matchAll(/^[A-Z][A-Z ]+$/gm)].map(([title]) => title);
    for (const title of ['NAME', 'SYNOPSIS', 'EXIT STATUS', 'ENVIRONMENT', 'FILES', 'SIGNALS', 'EXAMPLES'])
      expect(titles).toContain(title);
    expect(text()).toContain(`copyondemand ${manifest.version}`);
  });
});
