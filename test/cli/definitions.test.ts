import { expect, test } from 'vitest';
import { ACTIONS } from '../../src/cli/actions.ts';
import { Definition } from '../../src/cli/definitions/definition.ts';
import { definitions } from '../../src/cli/definitions/program.ts';
import { parseSourceUri } from '../../src/cli/source-uri.ts';

const program = definitions('0.0.0');
const { commands } = program;
const visible = program.createHelp().visibleCommands(program);

/** What `--help` prints. */
function helpOf(command: (typeof commands)[number]): string {
  let help = '';
  command.configureOutput({ writeOut: (text) => void (help += text) }).outputHelp();
  return help;
}

test('each command that is defined has an action', () => {
  expect(Object.keys(ACTIONS).sort()).toEqual(commands.map((command) => command.name()).sort());
});

test('help has at most 100 columns', () => {
  for (const command of [program, ...commands])
    expect(
      helpOf(command)
        .split('\n')
        .filter((line) => line.length > 100),
    ).toEqual([]);
});

test('each command has examples, which are calls of it', () => {
  for (const command of visible.filter((command) => command.name() !== 'help')) {
    expect(command).toBeInstanceOf(Definition);
    const { examples } = command as Definition;
    expect(examples).not.toEqual([]);
    for (const example of examples) {
      expect(helpOf(command)).toContain(`  ${example}\n`);
      const [, line] = /copyondemand ([^)]*)/.exec(example)!;
      const args = line!.match(/'[^']*'|\S+/g)!.map((word) => word.replaceAll("'", ''));
      let called: string | undefined;
      const program = definitions('0.0.0');
      for (const command of program.commands) command.action(() => void (called = command.name()));
      program.parse(args, { from: 'user' });
      expect(called).toBe(command.name());
    }
  }
});

test('each command with a source names every scheme', () => {
  const withSource = commands.filter((command) => command.registeredArguments.some((one) => one.name() === 'source'));
  expect(withSource.map((command) => command.name())).toEqual(expect.arrayContaining(['copy', 'serve']));
  for (const command of withSource) {
    const help = helpOf(command);
    for (const scheme of ['http', 'https', 's3', 'nbd', 'nbds', 'nbd+unix', 'nbds+unix']) {
      expect(help).toContain(`${scheme}://`);
      const place = scheme.endsWith('unix') ? '/x?socket=s' : 'host/x';
      expect(() => parseSourceUri(`${scheme}://${place}`)).not.toThrow();
    }
  }
});

test('for a quick start only the called command gets its options', () => {
  const optionsOf = (called: string | undefined) =>
    definitions('0.0.0', called).commands.map((command) => [command.name(), command.options.length] as const);
  const all = optionsOf(undefined);
  expect(optionsOf('copy')).toEqual(all.map(([name, count]) => [name, name === 'copy' ? count : 0]));
});
