/** The man page, made from the definitions of the commands when the package is built. */

import type { Command } from 'commander';
import { Definition, EXIT_CODES, type Note, type Rows } from './definitions/definition.ts';
import { definitions } from './definitions/program.ts';

const DESCRIPTION = `copyondemand copies a disk image from a remote SOURCE to a local TARGET.
The image can be used from the first moment, also for writing, while it is copied.
A crash or a power loss at any time loses no acknowledged write, and the same call resumes.`;

const ENVIRONMENT = `Each option of a command can come from a variable: its name in capitals behind COPYONDEMAND_,
with _ for each dash, as COPYONDEMAND_RATE_FILE for --rate-file.
An option in the call wins.
For an option without a value, 1, true and yes turn it on, and 0, false and no do not.
For an option that can be repeated, each line of the variable is a value.
An empty variable counts as missing.`;

const VARIABLES: Rows = [
  ['HTTP_PROXY, HTTPS_PROXY, NO_PROXY', 'proxies for sources over HTTP and S3'],
  ['SSL_CERT_FILE', 'certificate authorities, unless --cacert names them'],
  ['NETRC', 'the file of --netrc in place of ~/.netrc'],
  ['AWS_*', 'credentials, region and server of S3, as for the tools of AWS'],
];

const FILES: Rows = [
  ['TARGET', 'the copy, of the full size from the beginning'],
  ['TARGET.bak, TARGET.bak.1', 'checkpoints: which blocks are copied and modified'],
  ['TARGET.wil, TARGET.wil.1', 'write-intent logs: what has changed since then'],
  ['TARGET.lock, TARGET.lock.*', 'the owner of the copy, its socket, and a file that keeps room for a full disk'],
  ['TARGET.*.old', 'metadata before it was repaired'],
];

const SIGNALS: Rows = [
  [
    'SIGINT, SIGTERM',
    '`copy` takes a checkpoint and exits with 130. `serve` answers requests in flight, takes a checkpoint and exits ' +
      'with 0. A second signal ends the process at once, without loss.',
  ],
  ['SIGUSR1', '`copy` and `serve` print their status on stderr.'],
];

const ERRORS = `A command that fails prints one line on stderr: copyondemand: CODE: message.
With --json the last line on stdout is an object with "event":"error".`;

/** Returns the man page in roff. It has no date, so that the same sources make the same page. */
export function manPage(version: string): string {
  const program = definitions(version);
  const help = program.createHelp();
  const commands = help
    .visibleCommands(program)
    .filter((command) => command instanceof Definition)
    .filter((command) => command.name() !== 'help');
  const all = commands.flatMap(({ notes }) => notes);
  const notes = all.filter((note, index) => all.indexOf(note) === index);
  return [
    `.TH COPYONDEMAND 1 "" "copyondemand ${version}" "User Commands"`,
    '.SH NAME',
    `copyondemand \\- ${program.description().replace(/\.$/, '').replace(/^C/, 'c')}`,
    '.SH SYNOPSIS',
    commands
      .map((command) => `.B copyondemand ${text(command.name())}${text(`\n${usageOf(command)}`.trimEnd())}`)
      .join('\n.br\n'),
    '.SH DESCRIPTION',
    text(DESCRIPTION),
    '.SH COMMANDS',
    ...commands.flatMap(commandSection),
    ...notes.flatMap(({ title, text: content }: Note) => [
      `.SH ${title.toUpperCase()}`,
      typeof content === 'string' ? text(content.replace(/^./, (first) => first.toUpperCase())) : list(content),
    ]),
    '.SH EXIT STATUS',
    text(ERRORS),
    list(EXIT_CODES),
    '.SH ENVIRONMENT',
    text(ENVIRONMENT),
    list(VARIABLES),
    '.SH FILES',
    list(FILES),
    '.SH SIGNALS',
    list(SIGNALS),
    '.SH EXAMPLES',
    '.EX',
    ...commands.flatMap(({ examples }) => examples.map(text)),
    '.EE',
    '.SH SEE ALSO',
    '.BR qemu\\-nbd (8),\n.BR nbdkit (1),\n.BR nbd\\-client (8)',
    '.PP',
    'The directory docs of the package has the whole documentation.',
    '',
  ].join('\n');
}

function commandSection(command: Command): string[] {
  const operands = command.registeredArguments.map(
    (operand) => [operand.name().toUpperCase(), withChoices(operand.description, operand.argChoices)] as const,
  );
  return [
    `.SS copyondemand ${text(`${command.name()} ${usageOf(command)}`)}`,
    text(command.description()),
    list(operands),
    list(command.options.map((option) => [option.flags, withChoices(option.description, option.argChoices)])),
  ].filter((part) => part !== '');
}

function withChoices(description: string, choices: readonly string[] | undefined): string {
  return choices === undefined ? description : `${description}: ${choices.join(', ')}`;
}

function usageOf(command: Command): string {
  return command.options.length === 0 ? command.usage().replace(/\[options\] ?/, '') : command.usage();
}

function list(rows: Rows): string {
  return rows.map(([term, meaning]) => `.TP\n.B ${text(term)}\n${text(meaning)}`).join('\n');
}

/**
 * Returns plain text as roff. Each sentence begins a line. A line that begins with a dot would be a request; quotes
 * are escaped everywhere.
 */
function text(plain: string): string {
  return plain
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('~', '\\(ti')
    .replaceAll('"', '\\(dq')
    .replaceAll(/`([^`]*)`/g, '\\fB$1\\fP')
    .replaceAll("'", '\\(aq')
    .replaceAll(/\. (?=[A-Z])/g, '.\n')
    .replaceAll(/^\./gm, '\\&.');
}
