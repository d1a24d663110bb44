/** Chromium as a process that tests can kill. */

import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright';
import { BrowserProcess } from './browser-process.ts';
import { chromiumArguments, chromiumPath } from './chromium-program.ts';

/** A browser with a profile on disk, as a process of its own that can be killed. */
export class Chromium {
  readonly browser: Browser;
  readonly #process: BrowserProcess;

  private constructor(browser: Browser, process: BrowserProcess) {
    this.browser = browser;
    this.#process = process;
  }

  /** Starts it over `profile`, a folder that may be that of one that was killed. */
  static async start(profile: string): Promise<Chromium> {
    const process = await BrowserProcess.start({
      program: chromiumPath,
      args: [
        ...chromiumArguments,
        '--headless=new',
        `--user-data-dir=${profile}`,
        '--remote-debugging-port=0',
        'about:blank',
      ],
      addressFile: join(profile, 'DevToolsActivePort'),
      complete: /\n/,
    });
    const port = process.address.split('\n')[0];
    return new Chromium(await chromium.connectOverCDP(`http://127.0.0.1:${port}`), process);
  }

  newPage(): Promise<Page> {
    return this.browser.contexts()[0]!.newPage();
  }

  async kill(): Promise<void> {
    await this.#process.kill();
    await this.browser.close().catch(() => undefined);
  }

  /** Lets it end in good order. */
  async close(): Promise<void> {
    if (!this.browser.isConnected()) return;
    const session = await this.browser.newBrowserCDPSession();
    await session.send('Browser.close').catch(() => undefined);
    await this.#process.exited();
  }
}
