/** Runs the shell commands of a document as a reader would type them, in a folder, with other addresses and paths. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { MAIN } from '../cli/command.ts';

/** The commands of a block, each in one line, without prompts, comments and the output of earlier commands. */
function commandsOf(code: string): string[] {
  const lines = code.replaceAll(/ *\\\n\s*/g, ' ').split('\n');
  const typed = lines.some((line) => line.startsWith('$ ')) ? lines.filter((line) => line.startsWith('$ ')) : lines;
  return typed.map((line) => line.replace(/^\$ /, '').replace(/\s+#.*$/, '')).filter((line) => line !== '');
}

export class DocumentShell {
  readonly #folder: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #running: ChildProcess[] = [];

  /** @param folder where the commands run. `copyondemand` is the built command. */
  constructor(folder: string, env: NodeJS.ProcessEnv = {}) {
    this.#folder = folder;
    const programs = join(folder, '.programs');
    mkdirSync(programs);
    const program = join(programs, 'copyondemand');
    writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`);
    chmodSync(program, 0o755);
    this.#env = { ...process.env, ...env, PATH: `${programs}:/usr/bin:${process.env['PATH']}:/usr/sbin` };
    onTestFinished(() => this.stop());
  }

  /**
   * Runs the commands of a block, and expects each to succeed. Returns what they print.
   *
   * A server runs beside the commands that follow it until {@link stop}: what ends with `&`, and each `serve`.
   * @param options.replaced texts that stand for a reader's own addresses and paths
   * @param options.after called after each command, with its output; a server has begun to listen
   */
  async run(
    code: string,
    options: { replaced?: Readonly<Record<string, string>>; after?(command: string, output: string): unknown } = {},
  ): Promise<string> {
    let printed = '';
    let variables = '';
    for (const typed of commandsOf(code)) {
      let command = typed;
      for (const [from, to] of Object.entries(options.replaced ?? {})) command = command.replaceAll(from, to);
      // A variable of the shell.
      if (/^\w+=\S+$/.test(command)) variables += `${command}; `;
      else {
        const isServer = command.endsWith('&') || /^(copyondemand serve|qemu-nbd) /.test(command);
        const output = isServer ? await this.#begin(command.replace(/ *&$/, '')) : await this.#end(variables + command);
        printed += output;
        await options.after?.(command, output);
      }
    }
    return printed;
  }

  #start(line: string): ChildProcess {
    return spawn('sh', ['-c', line], { cwd: this.#folder, env: this.#env, stdio: ['ignore', 'pipe', 'pipe'] });
  }

  async #end(command: string): Promise<string> {
    const child = this.#start(command);
    let stdout = '';
    let stderr = '';
    child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const [exitCode] = (await once(child, 'close')) as [number | null];
    expect(exitCode, `${command}\n${stdout}${stderr}`).toBe(0);
    return stdout;
  }

  /** Starts a server. `serve` says when it listens; of another program nothing is known. */
  async #begin(command: string): Promise<string> {
    const child = this.#start(`exec ${command}`);
    this.#running.push(child);
    if (!command.startsWith('copyondemand serve ')) return '';
    let output = '';
    await new Promise<void>((resolve, reject) => {
      const add = (text: string): void => {
        output += text;
        if (/listening/.test(output)) resolve();
      };
      child.stdout!.setEncoding('utf8').on('data', add);
      child.stderr!.setEncoding('utf8').on('data', add);
      child.once('close', () => reject(new Error(`${command} has ended:\n${output}`)));
    });
    return output;
  }

  /** Ends the servers as a user does, with SIGTERM. */
  async stop(): Promise<void> {
    for (const child of this.#running.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGTERM');
      await once(child, 'close');
    }
  }

  /** Waits until the programs that began have ended by themselves. */
  async ended(): Promise<void> {
    for (const child of this.#running.splice(0)) {
      if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
      expect(child.exitCode).toBe(0);
    }
  }
}
