/** Runs the built command as a separate process. */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The program under test: the build as shipped. */
export const MAIN: string = process.env['COD_CLI'] ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** The outcome of a process. */
export interface Result {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** One line of `--json`. */
export type JsonEvent = { readonly event: string } & Readonly<Record<string, unknown>>;

/** A running command. */
export interface Running {
  readonly child: ChildProcess;
  readonly result: Promise<Result>;
}

/**
 * Starts `copyondemand` with `args`; `onLine` is called with each line of its standard output.
 * @param options.under a program and its arguments, which runs the command
 */
export function startCommand(
  args: readonly string[],
  options: {
    cwd?: string;
    env?: NodeJS.ProcessEnv;
    main?: string;
    under?: readonly string[];
    onLine?: (line: string) => void;
  } = {},
): Running {
  const { main = MAIN, under = [] } = options;
  if (!existsSync(main)) throw new Error(`${main} is missing: run npm run build first`);
  const [program = process.execPath, ...parameters] = [...under, process.execPath, main, ...args];
  const child = spawn(program, parameters, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  createInterface(child.stdout).on('line', (line) => {
    stdout += `${line}\n`;
    options.onLine?.(line);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const result = new Promise<Result>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exitCode, signal) => resolve({ exitCode, signal, stdout, stderr }));
  });
  return { child, result };
}

/** Runs `copyondemand` with `args` to its end. */
export function runCommand(
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Result> {
  return startCommand(args, options).result;
}

/** Runs with `--json`, sends `signal` at the first event that matches `when`, and waits until the process exits. */
export function runUntil(
  args: readonly string[],
  signal: NodeJS.Signals,
  when: (event: JsonEvent) => boolean,
): Promise<Result> {
  let sent = false;
  const running = startCommand([...args, '--json'], {
    onLine: (line) => {
      if (sent || !when(JSON.parse(line) as JsonEvent)) return;
      sent = true;
      running.child.kill(signal);
    },
  });
  return running.result;
}

/** The events that a run with `--json` printed. */
export function eventsOf({ stdout }: Result): JsonEvent[] {
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as JsonEvent);
}
