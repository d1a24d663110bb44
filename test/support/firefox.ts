/** Debian's Firefox as a process that tests can kill, driven over WebDriver BiDi: Playwright can drive only a Firefox that was changed for it. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, connect, type Page } from 'puppeteer-core';
import { BrowserProcess } from './browser-process.ts';

export const firefoxPath: string = process.env['FIREFOX_PATH'] ?? '/usr/bin/firefox-esr';

/** What a user's browser does for its user, and after it was killed. What automation needs it sets itself. */
const PREFERENCES: Readonly<Record<string, boolean | number>> = {
  'app.normandy.enabled': false,
  'browser.sessionstore.resume_from_crash': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'toolkit.startup.max_resumed_crashes': -1,
};

/** A browser with a profile on disk, as a process of its own that can be killed. */
export class Firefox {
  readonly browser: Browser;
  readonly #process: BrowserProcess;

  private constructor(browser: Browser, process: BrowserProcess) {
    this.browser = browser;
    this.#process = process;
  }

  /** Starts it over `profile`, a folder that may be that of one that was killed; made if it is not there. Private: with private windows only. */
  static async start(profile: string, { isPrivate = false }: { isPrivate?: boolean } = {}): Promise<Firefox> {
    mkdirSync(profile, { recursive: true });
    const wanted = { ...PREFERENCES, 'browser.privatebrowsing.autostart': isPrivate };
    const preferences = Object.entries(wanted).map(([name, value]) => `user_pref("${name}", ${value});\n`);
    writeFileSync(join(profile, 'user.js'), preferences.join(''));
    const process = await BrowserProcess.start({
      program: firefoxPath,
      args: ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port=0'],
      addressFile: join(profile, 'WebDriverBiDiServer.json'),
      complete: /\}/,
    });
    const { ws_host: host, ws_port: port } = JSON.parse(process.address) as { ws_host: string; ws_port: number };
    const browser = await connect({ browserWSEndpoint: `ws://${host}:${port}/session`, protocol: 'webDriverBiDi' });
    return new Firefox(browser, process);
  }

  newPage(): Promise<Page> {
    return this.browser.newPage();
  }

  async kill(): Promise<void> {
    await this.#process.kill();
  }

  /** Lets it end in good order. */
  async close(): Promise<void> {
    if (!this.browser.connected) return;
    await this.browser.close();
    await this.#process.exited();
  }
}
