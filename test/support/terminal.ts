/** Runs a program on a terminal, and shows what stands on it. */

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

const RUNNER = fileURLToPath(new URL('terminal.py', import.meta.url));

/** The escape sequences that {@link Screen} knows. A program of ours uses no others. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked for
const SEQUENCE = /\x1b\[(\d*)([A-Za-z])|\x1b|[\r\n]|[^\x1b\r\n]/gu;

/** A terminal without wrapped lines, as far as our programs use it. */
export class Screen {
  #lines: string[][] = [];
  #row = 0;
  #column = 0;
  readonly #top: number;
  /** Codes of the sequences that came, and of those that it does not know. */
  readonly unknown: string[] = [];

  /** @param rows the height of the terminal */
  constructor(rows: number) {
    this.#top = rows;
  }

  write(text: string): void {
    for (const [all, count, code] of text.matchAll(SEQUENCE)) {
      if (all === '\r') this.#column = 0;
      else if (all === '\n') this.#row++;
      else if (code === undefined) {
        if (all === '\x1b') this.unknown.push(all);
        this.#put(all);
      } else this.#move(code, Number(count || 1), all);
    }
  }

  #put(character: string): void {
    const line = (this.#lines[this.#row] ??= []);
    while (line.length < this.#column) line.push(' ');
    line[this.#column++] = character;
  }

  #move(code: string, count: number, all: string): void {
    if (code === 'A') this.#row = Math.max(0, this.#row - count, this.#lines.length - this.#top);
    else if (code === 'K') this.#lines[this.#row]?.splice(this.#column);
    else if (code === 'J' && all === '\x1b[J') this.#lines.splice(this.#row);
    else if (code === 'J') this.#lines = [];
    else if (code === 'H') this.#row = this.#column = 0;
    else if (code !== 'm') this.unknown.push(all);
  }

  /** What stands on it, without its colours. */
  get text(): string {
    return Array.from(this.#lines, (line) => (line ?? []).join('').trimEnd()).join('\n');
  }
}

/** A program on a terminal. */
export interface OnTerminal {
  readonly screen: Screen;
  /** All that it wrote. */
  readonly output: () => string;
  /** Resolves when `test` holds for what stands there. Rejects if the program ends before. */
  until(test: (text: string) => boolean): Promise<string>;
  keys(text: string): void;
  resize(rows: number, columns: number): void;
  kill(signal: number): void;
  /** How it ended. `status`: the exit code, or less than 0 for a signal. `restored`: the terminal is set as before. */
  readonly ended: Promise<{ readonly status: number; readonly restored: boolean }>;
}

/** Runs a program on a terminal of 24 rows and 80 columns. */
export function onTerminal(command: readonly string[], env: NodeJS.ProcessEnv = {}): OnTerminal {
  const child = spawn('python3', [RUNNER, '24', '80', ...command], {
    env: { ...process.env, TERM: 'xterm', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const screen = new Screen(24);
  let output = '';
  let report = '';
  let changed = (): void => undefined;
  let isOver = false;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    screen.write(text);
    changed();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (report += text));
  const ended = new Promise<{ status: number; restored: boolean }>((resolve, reject) => {
    child.once('close', () => {
      isOver = true;
      changed();
      try {
        resolve(JSON.parse(report));
      } catch {
        reject(new Error(report));
      }
    });
  });
  ended.catch(() => undefined);
  const send = (...command: readonly unknown[]): void => void child.stdin.write(`${JSON.stringify(command)}\n`);
  return {
    screen,
    output: () => output,
    until: async (test) => {
      while (!test(screen.text)) {
        if (isOver) throw new Error(`the program has ended:\n${screen.text}`);
        await new Promise<void>((resolve) => (changed = resolve));
      }
      return screen.text;
    },
    keys: (text) => send('keys', text),
    resize: (rows, columns) => send('size', rows, columns),
    kill: (signal) => send('signal', signal),
    ended,
  };
}
