/** Foreign programs as clients of what runs in the tests' own process, which therefore must not wait for them standing still. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, onTestFinished } from 'vitest';
import { type Result, startCommand } from '../cli/command.ts';
import { toolPath } from './tools.ts';

/** How a program ended. */
export interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The system's own programs come first: nbdsh looks for the python that has its module. */
const env: NodeJS.ProcessEnv = { ...process.env, PATH: `/usr/bin:${process.env['PATH'] ?? ''}` };

/** A program that runs. */
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

/** As {@link runProgram}, for one that must succeed; returns what it printed on stdout. */
export async function mustRun(program: string, ...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await runProgram(program, ...args);
  expect(exitCode, `${program} ${args.join(' ')}\n${stdout}${stderr}`).toBe(0);
  return stdout;
}

/** A `copyondemand serve` that runs. */
export interface Served {
  readonly uri: string;
  readonly pid: number;
  /** Ends it by a signal, SIGTERM unless another is named, and waits for its end. */
  stop(signal?: NodeJS.Signals): Promise<Result>;
}

/** Starts `copyondemand serve` and waits until clients can connect; ended with the test at the latest. */
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
    throw new Error(`serve ended: ${stderr}`);
  });
  return { uri: await Promise.race([uri, failed]), pid: running.child.pid!, stop };
}
