/**
 * A process of Debian's Firefox that tests can kill, driven over WebDriver BiDi. Playwright drives only its own build
 * of Firefox.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, connect, type Page } from 'puppeteer-core';
import { BrowserProcess } from './browser-process.ts';
import { PLAIN_HOST } from './plain-host.ts';

export const firefoxPath: string = process.env['FIREFOX_PATH'] ?? '/usr/bin/firefox-esr';

/**
 * Turns off features for interactive users, also after a crash, and processes that each page would start. The
 * automation sets its own preferences.
 */
const PREFERENCES: Readonly<Record<string, boolean | number | string>> = {
  'app.normandy.enabled': false,
  'browser.newtabpage.enabled': false,
  'browser.sessionstore.resume_from_crash': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'dom.ipc.processCount': 1,
  'dom.ipc.processPrelaunch.enabled': false,
  'fission.autostart': false,
  'network.dns.localDomains': PLAIN_HOST,
  'toolkit.startup.max_resumed_crashes': -1,
};

/** A browser process with a profile on disk. */
export class Firefox {
  readonly browser: Browser;
  readonly #process: BrowserProcess;

  private constructor(browser: Browser, process: BrowserProcess) {
    this.browser = browser;
    this.#process = process;
  }

  /**
   * Starts the browser over the folder `profile`: a new folder, or that of a killed browser.
   * @param options.isPrivate whether all windows are private. Default: false.
   * @param options.blocksStorage whether the user forbids sites to store data. Default: false.
   */
  static async start(
    profile: string,
    { isPrivate = false, blocksStorage = false }: { isPrivate?: boolean; blocksStorage?: boolean } = {},
  ): Promise<Firefox> {
    mkdirSync(profile, { recursive: true });
    const wanted = {
      ...PREFERENCES,
      'browser.privatebrowsing.autostart': isPrivate,
      ...(blocksStorage ? { 'network.cookie.cookieBehavior': 2 } : {}),
    };
    const preferences = Object.entries(wanted).map(
      ([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`,
    );
    writeFileSync(join(profile, 'user.js'), preferences.join(''));
    const process = await BrowserProcess.start({
      program: firefoxPath,
      args: ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port=0'],
      addressFile: join(profile, 'WebDriverBiDiServer.json'),
      complete: /\}/,
    });
    const { ws_host: host, ws_port: port } = JSON.parse(process.address) as { ws_host: string; ws_port: number };
    const browser = await connect({
      browserWSEndpoint: `ws://${host}:${port}/session`,
      protocol: 'webDriverBiDi',
      // The time of a test bounds its calls.
      protocolTimeout: 900_000,
    });
    return new Firefox(browser, process);
  }

  newPage(): Promise<Page> {
    return this.browser.newPage();
  }

  async kill(): Promise<void> {
    await this.#process.kill();
  }

  /** Closes the browser cleanly. */
  async close(): Promise<void> {
    if (!this.browser.connected) return;
    await this.browser.close();
    await this.#process.exited();
  }
}
