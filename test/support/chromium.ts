/** A Chromium process that tests can kill. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright';
import { BrowserProcess } from './browser-process.ts';
import { chromiumArguments, chromiumPath } from './chromium-program.ts';
import { PLAIN_HOST } from './plain-host.ts';

/** A browser process with a profile on disk. */
export class Chromium {
  readonly browser: Browser;
  readonly #process: BrowserProcess;

  private constructor(browser: Browser, process: BrowserProcess) {
    this.browser = browser;
    this.#process = process;
  }

  /**
   * Starts the browser over the folder `profile`, which may be that of a killed browser.
   * @param options.blocksStorage whether the user forbids sites to store data. Default: false.
   */
  static async start(profile: string, { blocksStorage = false }: { blocksStorage?: boolean } = {}): Promise<Chromium> {
    if (blocksStorage) {
      mkdirSync(join(profile, 'Default'), { recursive: true });
      const preferences = { profile: { default_content_setting_values: { cookies: 2 } } };
      writeFileSync(join(profile, 'Default', 'Preferences'), JSON.stringify(preferences));
    }
    const process = await BrowserProcess.start({
      program: chromiumPath,
      args: [
        ...chromiumArguments,
        '--headless=new',
        `--user-data-dir=${profile}`,
        '--remote-debugging-port=0',
        `--host-resolver-rules=MAP ${PLAIN_HOST} 127.0.0.1`,
        'about:blank',
      ],
      addressFile: join(profile, 'DevToolsActivePort'),
      complete: /\n/,
    });
    const port = process.address.split('\n')[0];
    return new Chromium(await chromium.connectOverCDP(`http://127.0.0.1:${port}`), process);
  }

  async newPage(): Promise<Page> {
    const page = await this.browser.contexts()[0]!.newPage();
    // A machine that runs other tests too can be slow.
    page.setDefaultTimeout(120_000);
    return page;
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

/** Picks a file as a user does in the browser's dialog. Playwright's own method would copy the file. */
export async function pickFile(page: Page, path: string): Promise<void> {
  await page.locator('input[type=file]').waitFor({ state: 'attached' });
  const session = await page.context().newCDPSession(page);
  const { result } = await session.send('Runtime.evaluate', {
    expression: "document.querySelector('input[type=file]')",
  });
  await session.send('DOM.setFileInputFiles', { files: [path], objectId: result.objectId! });
  await session.detach();
}
