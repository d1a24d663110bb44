/** A vitest provider that runs tests in Firefox. */

import { defineBrowserProvider } from '@vitest/browser';
import type { BrowserProvider, BrowserProviderOption } from 'vitest/node';
import { Firefox } from './firefox.ts';

/** Runs Debian's Firefox over the folder `profile`. */
export function firefoxProvider(profile: string): BrowserProviderOption {
  return defineBrowserProvider({
    name: 'firefox',
    providerFactory: () => new FirefoxProvider(profile),
  });
}

class FirefoxProvider implements BrowserProvider {
  readonly name = 'firefox';
  readonly supportsParallelism = false;
  readonly #profile: string;
  #firefox: Promise<Firefox> | undefined;

  constructor(profile: string) {
    this.#profile = profile;
  }

  getCommandsContext(): Record<string, unknown> {
    return {};
  }

  async openPage(_sessionId: string, url: string): Promise<void> {
    this.#firefox ??= Firefox.start(this.#profile);
    const { browser } = await this.#firefox;
    // Otherwise a page that asks for persistent storage waits for a user.
    await browser.defaultBrowserContext().overridePermissions(new URL(url).origin, ['persistent-storage']);
    await (await browser.newPage()).goto(url);
  }

  async close(): Promise<void> {
    await (await this.#firefox)?.close();
  }
}
