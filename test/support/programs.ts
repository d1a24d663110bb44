/** Runs other programs as clients of servers in the test process, which must not block meanwhile. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, onTestFinished } from 'vitest';
import { type Result, startCommand } from '../cli/command.ts';
import { toolPath } from './tools.ts';

/** The outcome of a program. */
export interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The system's programs come first: nbdsh needs the Python that has its module. */
const env: NodeJS.ProcessEnv = { ...process.env, PATH: `/usr/bin:${process.env['PATH'] ?? ''}` };

/** A running program. */
export interface RunningProgram {
  readonly child: ChildProcess;
  readonly outcome: Promise<Outcome>;
}

/** Starts a program. */
export function startProgram(program: string, ...args: readonly string[]): RunningProgram {
  const child = spawn(toolPath(program) ?? program, args, { stdio: ['pipe', 'pipe', 'pipe'], env });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const outcome = once(child, 'close').then(([exitCode]: (number | null)[]) => ({
    exitCode: exitCode ?? null,
    stdout,
    stderr,
  }));
  return { child, outcome };
}

/** Runs a program to its end. */
export function runProgram(program: string, ...args: readonly string[]): Promise<Outcome> {
  const { child, outcome } = startProgram(program, ...args);
  child.stdin!.end();
  return outcome;
}

/** Runs a program that must succeed. Returns its stdout. */
export async function mustRun(program: string, ...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await runProgram(program, ...args);
  expect(exitCode, `${program} ${args.join(' ')}\n${stdout}${stderr}`).toBe(0);
  return stdout;
}

/** A running `copyondemand serve`. */
export interface Served {
  readonly uri: string;
  readonly pid: number;
  /** Resolves when a text is on stderr, from the start of the process on. */
  warns(text: string): Promise<void>;
  /** Sends a signal, by default SIGTERM, and waits for the end of the process. */
  stop(signal?: NodeJS.Signals): Promise<Result>;
}

/** Starts `copyondemand serve` and waits until clients can connect. The process ends with the test at the latest. */
export async function startServe(...args: readonly string[]): Promise<Served> {
  let listening!: (uri: string) => void;
  const uri = new Promise<string>((resolve) => (listening = resolve));
  const running = startCommand(['serve', ...args], {
    onLine: (line) => {
      const found = /listening on (.+)$/.exec(line)?.[1] ?? /"event":"listening","uri":"([^"]+)"/.exec(line)?.[1];
      if (found !== undefined) listening(found);
    },
  });
  const stop = (signal: NodeJS.Signals = 'SIGTERM'): Promise<Result> => {
    running.child.kill(signal);
    return running.result;
  };
  onTestFinished(async () => {
    await stop('SIGKILL');
  });
  const failed = running.result.then(({ stderr }): never => {
    throw new Error(`serve exited: ${stderr}`);
  });
  let stderr = '';
  let onText: () => void = () => undefined;
  running.child.stderr!.on('data', (more: string) => {
    stderr += more;
    onText();
  });
  const warns = async (text: string): Promise<void> => {
    while (!stderr.includes(text)) await Promise.race([new Promise<void>((resolve) => (onText = resolve)), failed]);
  };
  return { uri: await Promise.race([uri, failed]), pid: running.child.pid!, warns, stop };
}
