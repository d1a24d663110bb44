/** `copyondemand completion`: prints a script for a shell, made from the definitions of the commands. */

import type { Argument, Command, Option } from 'commander';
import { Repeatable } from './definitions/options.ts';
import { definitions } from './definitions/program.ts';
import { codes } from './explain.ts';

/** What completes a word: names of files, one of some words, or nothing. */
type Values = 'files' | 'nothing' | readonly string[];

interface CompletedOption {
  /** For example `--rate`. */
  readonly flag: string;
  readonly description: string;
  /** Undefined: the option takes no value. */
  readonly values: Values | undefined;
  readonly repeats: boolean;
}

interface CompletedCommand {
  readonly name: string;
  readonly summary: string;
  readonly operands: readonly { readonly name: string; readonly values: Values }[];
  readonly options: readonly CompletedOption[];
}

/** Placeholders and arguments that are paths. */
const PATHS: ReadonlySet<string> = new Set(['file', 'path', 'prefix', 'source', 'target', 'to', 'directory']);

type Shell = 'bash' | 'zsh' | 'fish';

const SCRIPTS: Readonly<
  Record<Shell, (commands: readonly CompletedCommand[], options: readonly CompletedOption[]) => string>
> = { bash, zsh, fish };

/** Prints the script for `shell`. */
export function completion(shell: Shell): void {
  process.stdout.write(completionScript(definitions(''), shell));
}

/** Returns the script for `shell`. */
export function completionScript(program: Command, shell: Shell): string {
  const help = program.createHelp();
  const optionsOf = (command: Command) => help.visibleOptions(command).map(completedOption);
  const commands = help.visibleCommands(program).map((command) => ({
    name: command.name(),
    summary: command.summary() || command.description(),
    operands: command.registeredArguments.map(completedOperand),
    options: optionsOf(command),
  }));
  return SCRIPTS[shell](commands, optionsOf(program));
}

function completedOption(option: Option): CompletedOption {
  const { long, description, argChoices, flags } = option;
  const takesValue = option.required || option.optional;
  const values = argChoices ?? pathsOr(/[<[](.+)[>\]]/.exec(flags)?.[1]);
  return { flag: long!, description, values: takesValue ? values : undefined, repeats: option instanceof Repeatable };
}

function completedOperand(operand: Argument): CompletedCommand['operands'][number] {
  const name = operand.name();
  return { name, values: operand.argChoices ?? (name === 'code' ? codes() : pathsOr(name)) };
}

function pathsOr(name: string | undefined): Values {
  return name !== undefined && PATHS.has(name) ? 'files' : 'nothing';
}

/** Quotes a text for the shells. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * Returns the script for bash, 4 or later. Bash splits words at `=` and `:` too, so that an option and its value, and
 * the parts of a URL, are several words.
 */
function bash(commands: readonly CompletedCommand[], options: readonly CompletedOption[]): string {
  const act = (values: Values) => {
    if (values === 'files') return 'compopt -o default';
    return values === 'nothing' ? '' : `words=${quoted(values.join(' '))}`;
  };
  const cases = (pairs: readonly (readonly [pattern: string | number, values: Values])[]) => {
    const acts = pairs.map(([pattern, values]) => ({ pattern, action: act(values) }));
    return [...new Set(acts.map(({ action }) => action))].map((action) => {
      const patterns = acts.filter((one) => one.action === action).map(({ pattern }) => pattern);
      return `${patterns.join(' | ')}) ${action} ;;`;
    });
  };
  const valuedOf = (options: readonly CompletedOption[]) =>
    options.flatMap(({ flag, values }) => (values === undefined ? [] : [[flag, values] as const]));
  const branch = ({ name, operands, options }: CompletedCommand) => [
    `    ${name})`,
    '      case $option in',
    ...cases(valuedOf(options)).map((line) => `        ${line}`),
    '        *)',
    '          case $operand in',
    ...cases(operands.map(({ values }, index) => [index, values])).map((line) => `            ${line}`),
    '          esac',
    `          if [[ $current == -* ]]; then words=${quoted(flagsOf(options))}; fi`,
    '          ;;',
    '      esac',
    '      ;;',
  ];
  const valued = new Set(commands.flatMap(({ options }) => valuedOf(options).map(([flag]) => flag)));
  return `# bash completion for copyondemand. To use it: source <(copyondemand completion bash)
_copyondemand() {
  local current=\${COMP_WORDS[COMP_CWORD]} command='' option='' words='' operand=0 joined='' index word
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    if [[ $word == = ]]; then continue; fi
    if [[ $word == *: ]]; then joined=1; continue; fi
    if [[ -n $joined ]]; then joined=''; continue; fi
    if [[ -n $option ]]; then option=''; continue; fi
    case $word in
      ${[...valued].join(' | ')}) option=$word ;;
      -*) ;;
      *) if [[ -z $command ]]; then command=$word; else operand=$((operand + 1)); fi ;;
    esac
  done
  if [[ -n $joined || $current == *: ]]; then return; fi
  if [[ $current == = ]]; then current=''; fi
  case $command in
    '')
      words=${quoted(commands.map(({ name }) => name).join(' '))}
      if [[ $current == -* ]]; then words=${quoted(flagsOf(options))}; fi
      ;;
${commands.flatMap(branch).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _copyondemand copyondemand
`;
}

function zsh(commands: readonly CompletedCommand[], options: readonly CompletedOption[]): string {
  const act = (values: Values) => {
    if (values === 'files') return '_files';
    return values === 'nothing' ? ' ' : `(${values.join(' ')})`;
  };
  const plain = (text: string) => text.replaceAll(/[\][:\\]/g, '\\$&');
  const specOf = ({ flag, description, values, repeats }: CompletedOption) =>
    values === undefined
      ? quoted(`${flag}[${plain(description)}]`)
      : quoted(`${repeats ? '*' : ''}${flag}=[${plain(description)}]:value:${act(values)}`);
  const branch = ({ name, operands, options }: CompletedCommand) => [
    `        ${name})`,
    '          _arguments \\',
    ...options.map((option) => `            ${specOf(option)} \\`),
    `            ${operands.map(({ name, values }, index) => quoted(`${index + 1}:${name}:${act(values)}`)).join(' ')}`,
    '          ;;',
  ];
  return lines([
    '#compdef copyondemand',
    '# zsh completion for copyondemand. To use it: source <(copyondemand completion zsh), after compinit.',
    '_copyondemand() {',
    '  local curcontext=$curcontext context state line',
    '  typeset -A opt_args',
    '  local -a commands=(',
    ...commands.map(({ name, summary }) => `    ${quoted(`${name}:${summary.replaceAll(':', '\\:')}`)}`),
    '  )',
    '  _arguments -C \\',
    ...options.map((option) => `    ${specOf(option)} \\`),
    "    '1:command:->command' '*::argument:->argument'",
    '  case $state in',
    '    command) _describe command commands ;;',
    '    argument)',
    '      case $words[1] in',
    ...commands.flatMap(branch),
    '      esac',
    '      ;;',
    '  esac',
    '}',
    'if [[ $funcstack[1] == _copyondemand ]]; then _copyondemand "$@"; else compdef _copyondemand copyondemand; fi',
  ]);
}

function fish(commands: readonly CompletedCommand[], options: readonly CompletedOption[]): string {
  const quote = (text: string) => `'${text.replaceAll(/['\\]/g, '\\$&')}'`;
  const completeIf = (condition: string, rest: string) => `complete -c copyondemand -n ${quote(condition)} ${rest}`;
  const act = (values: Values | undefined) => {
    if (values === undefined) return '';
    if (values === 'files') return ' -r -F';
    return values === 'nothing' ? ' -x' : ` -x -a ${quote(values.join(' '))}`;
  };
  const completeOption = (condition: string, { flag, description, values }: CompletedOption) =>
    completeIf(condition, `-l ${flag.slice(2)}${act(values)} -d ${quote(description)}`);
  const none = 'not __copyondemand_command';
  return lines([
    '# fish completion for copyondemand. To use it: copyondemand completion fish | source',
    'function __copyondemand_command',
    '    set -l words (commandline -opc)',
    '    test (count $words) -gt 1; or return 1',
    '    test (count $argv) -eq 0; or contains -- $words[2] $argv',
    'end',
    'complete -c copyondemand -f',
    ...options.map((option) => completeOption(none, option)),
    ...commands.map(({ name, summary }) => completeIf(none, `-a ${name} -d ${quote(summary)}`)),
    ...commands.flatMap(({ name, operands, options }) => {
      const condition = `__copyondemand_command ${name}`;
      const words = operands.flatMap(({ values }) => (typeof values === 'string' ? [] : values));
      return [
        ...options.map((option) => completeOption(condition, option)),
        ...(operands.some(({ values }) => values === 'files') ? [completeIf(condition, '-F')] : []),
        ...(words.length > 0 ? [completeIf(condition, `-a ${quote(words.join(' '))}`)] : []),
      ];
    }),
  ]);
}

function flagsOf(options: readonly CompletedOption[]): string {
  return options.map(({ flag }) => flag).join(' ');
}

function lines(text: readonly string[]): string {
  return `${text.join('\n')}\n`;
}
