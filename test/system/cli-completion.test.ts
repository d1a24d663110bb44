/** Completion scripts, used by each shell as a user's keys use them. */

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { definitions } from '../../src/cli/definitions/program.ts';
import { MAIN, runCommand } from '../cli/command.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { describeWith } from '../support/tools.ts';

const program = definitions('');
const flagsOf = (name: string): string[] => {
  const command = program.commands.find((command) => command.name() === name)!;
  return [...command.options.map(({ long }) => long!), '--help'];
};
const visible = program.createHelp().visibleCommands(program);

/** Typed words, and what completes the last one. */
const rows: readonly (readonly [typed: string, completions: readonly string[]])[] = [
  ['', visible.map((command) => command.name())],
  ['co', ['copy', 'completion']],
  ['--ver', ['--version']],
  ['serve --tls', ['--tls-cert', '--tls-key', '--tls-ca']],
  ['copy --format ', ['raw', 'qcow2']],
  ['completion ', ['bash', 'zsh', 'fish']],
  ['explain COD_SO', ['COD_SOURCE_IO', 'COD_SOURCE_CHANGED']],
  ['copy dis', ['disk.raw']],
  ['copy a dis', ['disk.raw']],
  ['copy --quiet --rate 1M a dis', ['disk.raw']],
  ['copy --order dis', ['disk.raw']],
  ['inspect --json dis', ['disk.raw']],
  ['copy my', ['my disk.raw']],
  ['copy --rate ', []],
  ...visible
    .filter((command) => command.name() !== 'help')
    .map((command) => [`${command.name()} --`, flagsOf(command.name())] as const),
];

/** The user's directory: it has two images, and a directory of the name of a command. */
let directory: string;

beforeEach(() => {
  directory = temporaryDirectory();
  mkdirSync(join(directory, 'copy'));
  for (const name of ['disk.raw', 'my disk.raw']) writeFileSync(join(directory, name), '');
});

/** An interactive shell on a terminal, in which the program prints its arguments. */
class Shell {
  readonly #child: ReturnType<typeof spawn>;
  #output = '';
  #wake: () => void = () => {};

  constructor(command: string, env: NodeJS.ProcessEnv) {
    this.#child = spawn('script', ['-qec', command, '/dev/null'], {
      cwd: directory,
      env: { PATH: process.env['PATH'], TERM: 'dumb', ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
      this.#wake();
    });
    onTestFinished(() => void this.#child.kill('SIGKILL'));
  }

  /** Waits for the prompt, types a line, and returns the arguments that the program gets. */
  async argumentsOf(line: string): Promise<string[]> {
    await this.#take(/READY> /);
    this.#child.stdin!.write(`${line}\r`);
    const [, words] = await this.#take(/ARGUMENTS((?:<[^>]*>)*);/);
    return [...words!.matchAll(/<([^>]*)>/g)].map(([, word]) => word!);
  }

  async #take(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const found = pattern.exec(this.#output);
      if (found !== null) {
        this.#output = this.#output.slice(found.index + found[0].length);
        return found;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** Makes the shell print the arguments of the program. */
const PRINTS = `copyondemand() { printf ARGUMENTS; (( $# )) && printf '<%s>' "$@"; printf ';\\n'; }\n`;

/** The last words that all completions of the last word replace it with. */
async function completionsIn(shell: Shell, typed: string): Promise<string[]> {
  // Ctrl-T: a shell on a busy machine could take the first byte of a longer key for a key of its own.
  const words = await shell.argumentsOf(`copyondemand ${typed}\u0014`);
  const before = typed.split(' ').slice(0, -1);
  expect(words.slice(0, before.length)).toEqual(before);
  return words.slice(before.length);
}

describeWith(['bash', 'script'], 'in bash', () => {
  const start = () => {
    const rc = join(temporaryDirectory(), 'bashrc');
    const load = `source <('${process.execPath}' '${MAIN}' completion bash)`;
    writeFileSync(rc, ["PS1='READY> '", load, `bind '"\\C-t": insert-completions'`, PRINTS].join('\n'));
    return new Shell(`bash --noprofile --rcfile '${rc}' -i`, {});
  };

  test('completes commands, options, choices and names of files', async () => {
    const shell = start();
    for (const [typed, completions] of rows)
      expect([typed, await completionsIn(shell, typed)]).toEqual([typed, [...completions].sort()]);
  });

  test('completes behind = and :, where bash splits words', async () => {
    const shell = start();
    expect(await shell.argumentsOf('copyondemand copy --order=dis\t')).toEqual(['copy', '--order=disk.raw']);
    expect(await shell.argumentsOf('copyondemand copy --format=q\t')).toEqual(['copy', '--format=qcow2']);
    expect(await shell.argumentsOf('copyondemand copy --format=raw http://h:1/a dis\t')).toEqual([
      'copy',
      '--format=raw',
      'http://h:1/a',
      'disk.raw',
    ]);
    expect(await shell.argumentsOf('copyondemand copy http:\t')).toEqual(['copy', 'http:']);
  });
});

describeWith(['zsh', 'script'], 'in zsh', () => {
  test.for(['source', 'fpath'] as const)('completes the same, loaded by %s', async (how) => {
    const home = temporaryDirectory();
    writeFileSync(join(home, '_copyondemand'), (await runCommand(['completion', 'zsh'])).stdout);
    const load = {
      source: `compinit -u -D; source ${home}/_copyondemand`,
      fpath: `fpath=(${home} $fpath); compinit -u -D`,
    };
    const settings = [
      "PS1='READY> '; unsetopt zle_bracketed_paste prompt_sp; bindkey -e",
      `autoload -Uz compinit; ${load[how]}`,
      // Inserts all completions, as insert-completions of bash.
      "zle -C all-matches complete-word _generic; bindkey '^T' all-matches",
      "zstyle ':completion:all-matches::::' completer _all_matches _complete",
      "zstyle ':completion:all-matches:*' insert true",
    ];
    writeFileSync(join(home, '.zshrc'), `${settings.join('\n')}\n${PRINTS}`);
    const shell = new Shell('zsh -i', { ZDOTDIR: home, HOME: home });
    for (const [typed, completions] of rows) {
      const found = (await completionsIn(shell, typed)).map((word) => word.replace(/=$/, ''));
      expect([typed, found.sort()]).toEqual([typed, [...completions].sort()]);
    }
    expect(await shell.argumentsOf('copyondemand copy --order=dis\t')).toEqual(['copy', '--order=disk.raw']);
  });
});

describeWith(['fish'], 'in fish', () => {
  test('completes the same', async () => {
    const home = temporaryDirectory();
    writeFileSync(join(home, 'completion.fish'), (await runCommand(['completion', 'fish'])).stdout);
    const calls = rows.map(([typed]) => `echo "= ${typed}"; complete -C 'copyondemand ${typed}'`);
    const output = execFileSync(
      'fish',
      ['--no-config', '-c', [`source ${home}/completion.fish`, ...calls].join('\n')],
      {
        cwd: directory,
        env: { PATH: process.env['PATH'], HOME: home },
        encoding: 'utf8',
      },
    );
    const found = output
      .split(/^= /m)
      .slice(1)
      .map((part) => part.trimEnd().split('\n'));
    expect(found.length).toBe(rows.length);
    for (const [index, [typed, completions]] of rows.entries()) {
      const words = found[index]!.slice(1).map((line) => line.split('\t')[0]!);
      expect([typed, words.sort()]).toEqual([typed, [...completions].sort()]);
    }
  });
});
