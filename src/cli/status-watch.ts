/**
 * `copyondemand status --watch` on a terminal: a screen that is drawn again in its place.
 *
 * The terminal is as before at the end, however it comes: the cursor stays visible, there is no other screen, each line
 * resets its colours. Only the keyboard is set: keys come at once and are not shown. `kill -9` leaves it so, as a shell
 * notices.
 */

import type { ReadStream, WriteStream } from 'node:tty';
import type { CopyStatus } from '../control/status.ts';
import { isCodError } from '../errors.ts';
import { drawScreen, mapSize, Samples } from './status-screen.ts';
import { hasColour } from './terminal.ts';

const WATCH_MS = 1000;
const [CTRL_C, CTRL_D, CTRL_Z] = ['\x03', '\x04', '\x1a'];
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

interface Watching {
  readonly input: ReadStream;
  readonly output: WriteStream;
  /** Returns the status, with a map of at most so many cells. */
  ask(cells: number): Promise<CopyStatus>;
}

/**
 * Draws the status each second, until the user leaves, or until the copy is complete and no process owns it.
 * @throws the error of the first call of `ask`, unless there is an owner; that of a copy that is gone
 */
export async function watchOnTerminal({ input, output, ask }: Watching): Promise<void> {
  const screen = new Screen(output);
  const samples = new Samples();
  let last: CopyStatus | undefined;
  let wake = (): void => undefined;
  let hasLeft = false;
  const leave = (): void => {
    hasLeft = true;
    wake();
  };
  const keyboard = new Keyboard(input, leave, () => wake());
  output.on('resize', onResize);
  function onResize(): void {
    screen.clear();
    wake();
  }
  try {
    while (!hasLeft) {
      const { columns, rows } = sizeOf(output);
      const found = await outcome(ask(mapSize({ columns, rows })));
      if (hasLeft) return;
      if (found.status !== undefined) samples.add(performance.now(), found.status);
      else if (isOver(found.error, last)) return screen.end(`${last!.target}: complete, and its process has ended`);
      else if (!isPassing(found.error)) throw found.error;
      last = found.status ?? last;
      const problem = found.status === undefined ? messageOf(found.error) : undefined;
      const drawn = { ...sizeOf(output), colour: hasColour(output), now: Date.now(), problem };
      if (last === undefined) throw found.error;
      screen.draw(drawScreen(last, samples.activity, drawn));
      if (last.pid === null && last.secondsLeft === 0) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, WATCH_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  } finally {
    output.off('resize', onResize);
    keyboard.stop();
    screen.end();
  }
}

async function outcome(asked: Promise<CopyStatus>): Promise<{ status?: CopyStatus; error?: unknown }> {
  try {
    return { status: await asked };
  } catch (error) {
    return { error };
  }
}

/** The owner may answer later. */
function isPassing(error: unknown): boolean {
  return isCodError(error, 'COD_NOT_RUNNING');
}

/** Whether the copy was finished: its file is there, and its metadata is not. */
function isOver(error: unknown, last: CopyStatus | undefined): boolean {
  return last !== undefined && isCodError(error, 'COD_NOT_FOUND') && error.details['isImage'] === true;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function sizeOf({ columns, rows }: WriteStream): { columns: number; rows: number } {
  return { columns: Math.max(20, columns || 80), rows: Math.max(5, rows || 24) };
}

/** The lines at the end of a terminal. */
class Screen {
  readonly #output: WriteStream;
  #lines = 0;

  constructor(output: WriteStream) {
    this.#output = output;
  }

  /** Replaces the lines. The cursor stands behind them. */
  draw(lines: readonly string[]): void {
    const up = this.#lines > 0 ? `\x1b[${this.#lines}A` : '';
    this.#output.write(`${up}${lines.map((line) => `\r${line}\x1b[K\n`).join('')}\x1b[J`);
    this.#lines = lines.length;
  }

  /** Begins at the top of an empty terminal: lines that were wrapped anew cannot be replaced. */
  clear(): void {
    this.#output.write('\x1b[2J\x1b[H');
    this.#lines = 0;
  }

  /** Leaves the lines as they are. */
  end(text?: string): void {
    this.#output.write(text === undefined ? '\r' : `\r${text}\n`);
    this.#lines = 0;
  }
}

/** Keys and signals. */
class Keyboard {
  readonly #input: ReadStream;
  readonly #leave: () => void;
  readonly #redraw: () => void;

  constructor(input: ReadStream, leave: () => void, redraw: () => void) {
    this.#input = input;
    this.#leave = leave;
    this.#redraw = redraw;
    for (const name of SIGNALS) process.on(name, this.#onSignal);
    if (!input.isTTY) return;
    input.on('data', this.#onKeys).on('end', leave);
    this.#set(true);
    process.on('SIGCONT', this.#onContinue);
  }

  #set(isRaw: boolean): void {
    this.#input.setRawMode(isRaw);
    if (isRaw) this.#input.setEncoding('utf8').resume();
    else this.#input.pause();
  }

  readonly #onKeys = (keys: string): void => {
    if (/[qQ]/.test(keys) || [CTRL_C, CTRL_D].some((key) => keys.includes(key!))) this.#leave();
    else if (keys.includes(CTRL_Z!)) {
      this.#set(false);
      process.kill(process.pid, 'SIGTSTP');
    } else this.#redraw();
  };

  readonly #onContinue = (): void => {
    this.#set(true);
    this.#redraw();
  };

  /** Ends as by the signal, with the terminal restored. */
  readonly #onSignal = (name: NodeJS.Signals): void => {
    this.stop();
    if (name === 'SIGINT') this.#leave();
    else process.kill(process.pid, name);
  };

  stop(): void {
    for (const name of SIGNALS) process.off(name, this.#onSignal);
    process.off('SIGCONT', this.#onContinue);
    if (!this.#input.isTTY) return;
    this.#input.off('data', this.#onKeys).off('end', this.#leave);
    this.#set(false);
  }
}
