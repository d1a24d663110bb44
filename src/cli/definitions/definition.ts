/** A command as commander has it, with what its help and the man page say besides. */

import { Command, type Option } from 'commander';

/** Rows of a term and its meaning. */
export type Rows = readonly (readonly [term: string, meaning: string])[];

/** A text that the help of some commands has, and the man page once. */
export interface Note {
  readonly title: string;
  readonly text: string | Rows;
}

export const EXIT_CODES: Rows = [
  ['0', 'done'],
  ['1', 'failed'],
  ['2', 'wrong usage'],
  ['130', 'interrupted, can be resumed'],
];

/** A command, with what its help says behind the options. */
export class Definition extends Command {
  readonly notes: Note[] = [];
  /** Shell lines. */
  readonly examples: string[] = [];

  constructor(name?: string) {
    super(name);
    this.configureOutput({
      getOutHelpWidth: () => Math.min(process.stdout.columns || 80, 100),
      getErrHelpWidth: () => Math.min(process.stderr.columns || 80, 100),
    });
    this.addHelpText('after', () => this.#after());
  }

  /** The command that is called, which alone needs its options. Undefined: all commands get theirs. */
  called: string | undefined;
  #isIdle = false;

  override createCommand(name?: string): Definition {
    const command = new Definition(name);
    command.#isIdle = this.called !== undefined && name !== this.called;
    return command;
  }

  override addOption(option: Option): this {
    return this.#isIdle ? this : super.addOption(option);
  }

  /** Adds to the help. */
  note(...notes: readonly Note[]): this {
    this.notes.push(...notes);
    return this;
  }

  /** Adds to the help. */
  example(...lines: readonly string[]): this {
    this.examples.push(...lines);
    return this;
  }

  #after(): string {
    const variables = 'Environment: each option can come from a variable, --take-over from COPYONDEMAND_TAKE_OVER=1.';
    const sections = this.notes.flatMap(({ title, text }) =>
      typeof text === 'string' ? [] : section(title, rows(text)),
    );
    if (this.examples.length > 0) sections.push(section('Examples', this.examples));
    return [
      '',
      ...sections,
      ...this.notes.flatMap(({ title, text }) => (typeof text === 'string' ? `${title}: ${text}` : [])),
      ...(this.parent !== null && this.options.length > 0 ? [variables] : []),
      `Exit codes: ${EXIT_CODES.map(([code, meaning]) => `${code} ${meaning}`).join('; ')}.`,
    ].join('\n');
  }
}

function section(title: string, lines: readonly string[]): string {
  return `${title}:\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

function rows(rows: Rows): string[] {
  const width = Math.max(...rows.map(([term]) => term.length)) + 2;
  return rows.map(([term, meaning]) => `${term.padEnd(width)}${meaning}`);
}
