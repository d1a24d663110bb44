/** A Chromium process that tests can kill. */

import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright';
import { BrowserProcess } from './browser-process.ts';
import { chromiumArguments, chromiumPath } from './chromium-program.ts';

/** A browser process with a profile on disk. */
export class Chromium {
  readonly browser: Browser;
  readonly #process: BrowserProcess;

  private constructor(browser: Browser, process: BrowserProcess) {
    this.browser = browser;
    this.#process = process;
  }

  /** Starts the browser over the folder `profile`, which may be that of a killed browser. */
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

  /** Closes the browser cleanly. */
  async close(): Promise<void> {
    if (!this.browser.isConnected()) return;
    const session = await this.browser.newBrowserCDPSession();
    await session.send('Browser.close').catch(() => undefined);
    await this.#process.exited();
  }
}
