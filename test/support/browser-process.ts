/** A browser process that tests can kill. */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';

export class BrowserProcess {
  /** Content of the address file. */
  readonly address: string;
  readonly #process: ChildProcess;
  readonly #exited: Promise<unknown>;

  private constructor(address: string, child: ChildProcess, exited: Promise<unknown>) {
    this.address = address;
    this.#process = child;
    this.#exited = exited;
  }

  /**
   * Starts `program`, and waits until the content of `addressFile` matches `complete`. The browser writes its address
   * there.
   */
  static async start(options: {
    program: string;
    args: readonly string[];
    addressFile: string;
    complete: RegExp;
  }): Promise<BrowserProcess> {
    const { program, args, addressFile, complete } = options;
    rmSync(addressFile, { force: true });
    const child = spawn(program, args, { stdio: 'ignore' });
    let over = false;
    // Kills the browser if the test run is aborted. Prepended, because other listeners delete the browser's files.
    const end = (): unknown => child.kill('SIGKILL');
    process.prependOnceListener('exit', end);
    const exited = new Promise((resolve) => child.once('exit', resolve)).then(() => {
      over = true;
      process.off('exit', end);
    });
    // The file may exist before its content is complete.
    const read = (): string => (existsSync(addressFile) ? readFileSync(addressFile, 'utf8') : '');
    while (!complete.test(read())) {
      if (over) throw new Error(`${program} exited before it accepted a connection`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return new BrowserProcess(read(), child, exited);
  }

  /** Sends SIGKILL to the browser. Its child processes exit when they detect it. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exited;
  }

  /** Resolves when the browser has ended. */
  async exited(): Promise<void> {
    await this.#exited;
  }
}
