/** Options that come from environment variables: `--same-source` from `COPYONDEMAND_SAME_SOURCE=1`. */

import { type Command, InvalidArgumentError, type Option } from 'commander';
import { Repeatable } from './definitions/options.ts';
import { UsageError, variables } from './failure.ts';

/** The variables of a process. An empty one counts as missing. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Returns the name of an option's variable. */
export function variableOf(option: Option): string {
  return `COPYONDEMAND_${option.name().replaceAll('-', '_').toUpperCase()}`;
}

/**
 * Makes the commands take options from `environment`, unless the arguments have them. Each command takes its own
 * options only.
 * @throws {@link UsageError} when a command is called with a value that its option does not take. The message names the
 * variable and not the value, which may be a secret.
 */
export function readEnvironment(program: Command, environment: Environment): void {
  program.hook('preAction', (_, command) => {
    for (const option of command.options) {
      const variable = variableOf(option);
      const text = environment[variable];
      const attribute = option.attributeName();
      if (!text || command.getOptionValueSource(attribute) === 'cli') continue;
      variables.set(`--${option.name()}`, variable);
      command.setOptionValueWithSource(attribute, fromText(option, text, variable), 'env');
    }
  });
}

/** Whether the called command prints JSON, as far as arguments with an error in them say so. */
export function wantsJson(program: Command, args: readonly string[], environment: Environment): boolean {
  const end = args.indexOf('--');
  if ((end < 0 ? args : args.slice(0, end)).includes('--json')) return true;
  const called = program.commands.find((command) => command.name() === args[0]);
  if (called?.options.every((option) => option.long !== '--json')) return false;
  return booleanOf(environment['COPYONDEMAND_JSON'] ?? '') === true;
}

function fromText(option: Option, text: string, variable: string): unknown {
  if (option.isBoolean() || option.negate) {
    const value = booleanOf(text);
    if (value === undefined) throw new UsageError(`${variable} is invalid. Use 1, true or yes, or 0, false or no.`);
    return value !== option.negate;
  }
  try {
    const texts = option instanceof Repeatable ? text.split(/\r?\n/).filter((line) => line !== '') : [text];
    let value: unknown;
    for (const one of texts) value = option.parseArg === undefined ? one : option.parseArg(one, value);
    return value;
  } catch (error) {
    if (error instanceof InvalidArgumentError) throw new UsageError(`${variable} is invalid. ${error.message}`);
    throw error;
  }
}

function booleanOf(text: string): boolean | undefined {
  const word = text.toLowerCase();
  if (['1', 'true', 'yes'].includes(word)) return true;
  return ['0', 'false', 'no'].includes(word) ? false : undefined;
}
