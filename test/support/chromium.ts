/** Chromium as a process that tests can kill. */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium } from 'playwright';
import { chromiumArguments, chromiumPath } from './chromium-program.ts';

/** A browser with a profile on disk, as a process of its own that can be killed. */
export class Chromium {
  readonly browser: Browser;
  readonly #process: ChildProcess;
  readonly #exited: Promise<unknown>;

  private constructor(browser: Browser, child: ChildProcess, exited: Promise<unknown>) {
    this.browser = browser;
    this.#process = child;
    this.#exited = exited;
  }

  /** Starts it over `profile`, a folder that may be that of one that was killed. */
  static async start(profile: string): Promise<Chromium> {
    const portFile = join(profile, 'DevToolsActivePort');
    rmSync(portFile, { force: true });
    const args = [...chromiumArguments, '--headless=new', `--user-data-dir=${profile}`, '--remote-debugging-port=0'];
    const child = spawn(chromiumPath, [...args, 'about:blank'], { stdio: 'ignore' });
    let over = false;
    const exited = new Promise((resolve) => child.once('exit', resolve)).then(() => (over = true));
    // The file is there before all of it is.
    while (!existsSync(portFile) || readFileSync(portFile, 'utf8').split('\n').length < 2) {
      if (over) throw new Error('Chromium ended before it could be talked to');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const port = readFileSync(portFile, 'utf8').split('\n')[0];
    return new Chromium(await chromium.connectOverCDP(`http://127.0.0.1:${port}`), child, exited);
  }

  /** kill -9, of the browser; its other processes end when they notice. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exited;
    await this.browser.close().catch(() => undefined);
  }

  /** Lets it end in good order. */
  async close(): Promise<void> {
    if (!this.browser.isConnected()) return;
    const session = await this.browser.newBrowserCDPSession();
    await session.send('Browser.close').catch(() => undefined);
    await this.#exited;
  }
}
