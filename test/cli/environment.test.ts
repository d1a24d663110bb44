import type { Command, Option } from 'commander';
import { afterEach, describe, expect, test } from 'vitest';
import { definitions } from '../../src/cli/definitions/program.ts';
import { type Environment, readEnvironment, variableOf, wantsJson } from '../../src/cli/environment.ts';
import { failureOf, UsageError, variables } from '../../src/cli/failure.ts';

/** Returns the options that a command gets, without defaults. */
function optionsOf(args: readonly string[], environment: Environment): unknown {
  const program = definitions('0.0.0');
  let found: unknown;
  for (const command of program.commands)
    command.action(() => {
      const given = Object.entries(command.opts()).filter(([name]) => command.getOptionValueSource(name) !== 'default');
      found = Object.fromEntries(given);
    });
  readEnvironment(program, environment);
  program.parse(args, { from: 'user' });
  return found;
}

const COPY = ['copy', 'a', 'b'];
const SERVE = ['serve', 'a', 'b'];

afterEach(() => variables.clear());

/** All options of all commands. */
const all = definitions('0.0.0').commands.flatMap((command) => command.options.map((option) => ({ command, option })));

/** A value that the option takes, other than its default. */
function sampleOf({ argChoices, flags }: Option): string {
  if (argChoices !== undefined) return argChoices.at(-1)!;
  if (flags.includes('<hex>')) return 'ab'.repeat(flags.includes('sha512') ? 64 : 32);
  return '1';
}

const operands = (command: Command): string[] => command.registeredArguments.map(() => '1');

describe('every option', () => {
  test('is one of many', () => {
    expect(all.length).toBeGreaterThan(60);
  });

  test.for(all.map(({ command, option }) => ({ command, option, name: `${command.name()} ${option.long}` })))(
    '$name comes from its variable',
    ({ command, option }) => {
      const args = [command.name(), ...operands(command)];
      const takesValue = option.required || option.optional;
      const text = takesValue ? sampleOf(option) : '1';
      const given = optionsOf([...args, option.long!, ...(takesValue ? [text] : [])], {});
      expect(optionsOf(args, { [variableOf(option)]: text })).toEqual(given);
      expect(optionsOf(args, {})).not.toEqual(given);
    },
  );
});

test('names are those of the options', () => {
  const named = (flag: string) => variableOf(all.find(({ option }) => option.long === flag)!.option);
  expect(named('--rate')).toBe('COPYONDEMAND_RATE');
  expect(named('--same-source')).toBe('COPYONDEMAND_SAME_SOURCE');
  expect(named('--no-hydrate')).toBe('COPYONDEMAND_NO_HYDRATE');
});

test('an argument wins', () => {
  expect(optionsOf([...COPY, '--rate', '2k'], { COPYONDEMAND_RATE: '1k' })).toEqual({ rate: 2048 });
  expect(optionsOf([...COPY, '--rate', 'unlimited'], { COPYONDEMAND_RATE: 'wrong' })).toEqual({ rate: 'unlimited' });
  expect(optionsOf([...COPY, '--quiet'], { COPYONDEMAND_QUIET: '0' })).toEqual({ quiet: true });
});

test('an option that repeats takes one value from each line, and arguments replace them', () => {
  const environment = { COPYONDEMAND_HEADER: 'A: 1\n\nB: 2\r\n' };
  expect(optionsOf(COPY, environment)).toEqual({ header: ['A: 1', 'B: 2'] });
  expect(optionsOf([...COPY, '--header', 'C: 3'], environment)).toEqual({ header: ['C: 3'] });
});

test('booleans are words', () => {
  for (const word of ['1', 'true', 'yes', 'YES'])
    expect(optionsOf(COPY, { COPYONDEMAND_SAME_SOURCE: word })).toEqual({ sameSource: true });
  for (const word of ['0', 'false', 'no'])
    expect(optionsOf(COPY, { COPYONDEMAND_SAME_SOURCE: word })).toEqual({ sameSource: false });
  expect(optionsOf(SERVE, { COPYONDEMAND_NO_HYDRATE: 'yes' })).toEqual({ hydrate: false });
  expect(optionsOf(SERVE, { COPYONDEMAND_NO_HYDRATE: 'no' })).toEqual({ hydrate: true });
  expect(() => optionsOf(COPY, { COPYONDEMAND_JSON: 'on' })).toThrow(
    'COPYONDEMAND_JSON is invalid. Use 1, true or yes',
  );
});

test('an empty variable is none', () => {
  const environment = { COPYONDEMAND_RATE: '', COPYONDEMAND_JSON: '', COPYONDEMAND_HEADER: '' };
  expect(optionsOf(COPY, environment)).toEqual({});
});

test('a command ignores the options of others', () => {
  const environment = { COPYONDEMAND_PORT: 'wrong', COPYONDEMAND_SHA256: 'ab'.repeat(32) };
  expect(optionsOf(COPY, environment)).toEqual({ sha256: 'ab'.repeat(32) });
  expect(optionsOf(['demo'], { COPYONDEMAND_JSON: 'wrong' })).toEqual({});
});

test('an error names the variable, and not its value', () => {
  for (const [name, value] of [
    ['COPYONDEMAND_RATE', 'hunter2'],
    ['COPYONDEMAND_FORMAT', 'hunter2'],
    ['COPYONDEMAND_INSECURE', 'hunter2'],
  ]) {
    const call = () => optionsOf(COPY, { [name!]: value });
    expect(call).toThrow(UsageError);
    expect(call).toThrow(new RegExp(`^${name} is invalid\\. (?!.*hunter2)`));
  }
});

test('a later error of wrong usage names the variable too', () => {
  optionsOf([...COPY, '--user-file', 'f'], { COPYONDEMAND_USER: 'me' });
  const { message } = failureOf(new UsageError('use either --user or --user-file'));
  expect(message).toBe('use either COPYONDEMAND_USER or --user-file');
});

test('JSON is wanted if an argument or the variable says so, and the command has it', () => {
  const wants = (args: readonly string[], environment: Environment = {}) =>
    wantsJson(definitions('0.0.0'), args, environment);
  expect(wants(['copy', 'a', '--json'])).toBe(true);
  expect(wants(['copy', 'a', '--', '--json'])).toBe(false);
  expect(wants(['copy', 'a'])).toBe(false);
  expect(wants(['copy', 'a'], { COPYONDEMAND_JSON: '1' })).toBe(true);
  expect(wants(['copy', 'a'], { COPYONDEMAND_JSON: '0' })).toBe(false);
  expect(wants(['cop', 'a'], { COPYONDEMAND_JSON: 'true' })).toBe(true);
  expect(wants(['demo', 'a'], { COPYONDEMAND_JSON: '1' })).toBe(false);
});
