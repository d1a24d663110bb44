/** Environments in which a device cannot work: the error names the cause and the way out. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PLAIN_HOST } from '../support/plain-host.ts';
import type { Site } from '../support/site.ts';
import { startStrictSite } from '../support/strict-site.ts';
import type { BrowserBench, TestBrowser, TestPage } from './browser-bench.ts';

/** Runs in a page: calls each function of the package, and returns what came out, by its name. */
const CALLS = `async (module, given) => {
  const { openDevice, removeCopy, copyAsFile, estimateStorage, inspectSource } = await import(module);
  const source = new Blob([new Uint8Array(5000)]);
  const place = { target: 'refused' };
  const calls = {
    openDevice: async () => (await openDevice({ source, ...place, ...given })).close(),
    inspectSource: () => inspectSource(source, given),
    copyAsFile: () => copyAsFile(place),
    removeCopy: () => removeCopy(place),
    estimateStorage: () => estimateStorage(),
  };
  const outcomes = {};
  for (const [name, call] of Object.entries(calls))
    outcomes[name] = await call().then(() => 'works', (error) => (error.code ?? error.name) + ': ' + error.message);
  return outcomes;
}`;

type Outcomes = Record<'openDevice' | 'inspectSource' | 'copyAsFile' | 'removeCopy' | 'estimateStorage', string>;

/** @param startBlocked starts the browser of a user who forbids sites to store data */
export function refusals<Browser extends TestBrowser>(
  bench: BrowserBench<Browser>,
  startBlocked: (profile: string) => Promise<TestBrowser>,
  has: { readonly trustedTypes: boolean },
): void {
  describe('an environment in which a device cannot work', () => {
    let site: Site;
    let cdn: Site;

    beforeAll(async () => {
      [site, cdn] = await Promise.all([startStrictSite(), startStrictSite()]);
    });

    afterAll(() => Promise.all([site?.close(), cdn?.close()]));

    /** Runs {@link CALLS} in a new page. `before` runs in it first. */
    const outcomesOf = async (
      where: { url?: string; headers?: Record<string, string>; module?: string; before?: string; given?: string },
      browser: TestBrowser = bench.browser,
    ): Promise<Outcomes> => {
      const { url = site.url, headers = {}, module = '/dist/browser.js', before = '', given = '{}' } = where;
      const page = await browser.newPage();
      try {
        await page.goto(`${url}/?${new URLSearchParams(headers)}`);
        const target = new URL(module, url).href;
        return (await page.evaluate(`(() => { ${before}; return (${CALLS})('${target}', ${given}) })()`)) as Outcomes;
      } finally {
        await page.close();
      }
    };
    const all = (pattern: RegExp): Outcomes => {
      const refused = expect.stringMatching(new RegExp(`^COD_UNSUPPORTED: .*${pattern.source}`)) as string;
      return {
        openDevice: refused,
        inspectSource: 'works',
        copyAsFile: refused,
        removeCopy: refused,
        estimateStorage: refused,
      };
    };
    const worker = (pattern: RegExp): Partial<Outcomes> => {
      const refused = expect.stringMatching(new RegExp(`^COD_UNSUPPORTED: .*${pattern.source}`)) as string;
      return { openDevice: refused, inspectSource: refused, removeCopy: 'works', estimateStorage: 'works' };
    };
    const works: Outcomes = {
      openDevice: 'works',
      inspectSource: 'works',
      copyAsFile: 'works',
      removeCopy: 'works',
      estimateStorage: 'works',
    };

    test('plain http', async () => {
      const url = site.url.replace('127.0.0.1', PLAIN_HOST);
      expect(await outcomesOf({ url })).toEqual(all(/open the page over https/));
    });

    test('storage that the user forbids', async () => {
      const profile = mkdtempSync(join(tmpdir(), 'cod-blocked-'));
      const browser = await startBlocked(profile);
      try {
        expect(await outcomesOf({}, browser)).toEqual(all(/allow the data of this site/));
      } finally {
        await browser.close();
        rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
      }
    });

    test('a sandboxed frame without an origin', async () => {
      const page = (await bench.browser.newPage()) as TestPage & { frames(): TestPage[] };
      try {
        await page.goto(`${site.url}/frame`);
        const outcomes = await page.frames()[1]!.evaluate(`(${CALLS})('${site.url}/dist/browser.js', {})`);
        // Firefox starts a worker there, and Chromium does not.
        expect(outcomes).toEqual({ ...all(/allow-same-origin/), inspectSource: expect.any(String) });
      } finally {
        await page.close();
      }
    });

    test('a browser that gives no estimate', async () => {
      const before = 'delete StorageManager.prototype.estimate';
      const refused = expect.stringMatching(/^COD_UNSUPPORTED: .*newer/);
      expect(await outcomesOf({ before })).toEqual({ ...works, estimateStorage: refused });
    });

    test("a policy of the worker's answer without 'wasm-unsafe-eval'; the page's own does not matter", async () => {
      expect((await outcomesOf({ module: '/policy/browser.js' })).openDevice).toMatch(
        /^COD_UNSUPPORTED: .*'wasm-unsafe-eval'/,
      );
      const headers = { 'content-security-policy': "default-src 'none'; script-src 'self'; worker-src 'self'" };
      expect(await outcomesOf({ headers })).toEqual(works);
    });

    test.each([
      ["a Content-Security-Policy with worker-src 'none'", { 'content-security-policy': "worker-src 'none'" }],
      ['a page with a Cross-Origin-Embedder-Policy', { 'cross-origin-embedder-policy': 'require-corp' }],
    ])('%s refuses the worker', async (_, headers) => {
      expect(await outcomesOf({ headers })).toMatchObject(
        worker(/browser-worker\.js cannot start: a policy .*"Policies"/),
      );
    });

    test('Trusted Types refuse a worker without a default policy', async () => {
      const headers = { 'content-security-policy': "require-trusted-types-for 'script'" };
      const before = "trustedTypes.createPolicy('default', { createScriptURL: (url) => url })";
      if (!has.trustedTypes) return expect(await outcomesOf({ headers })).toEqual(works);
      expect(await outcomesOf({ headers })).toMatchObject(worker(/Trusted Types refuse the worker .*default policy/));
      expect(await outcomesOf({ headers, before })).toEqual(works);
    });

    test.each([
      ['missing', /\/missing\/browser-worker\.js cannot start: the server sends 404 .*"Bundlers"/],
      ['html', /\/html\/browser-worker\.js cannot start: the server sends 200 text\/html .*"Bundlers"/],
      ['broken', /\/broken\/browser-worker\.js cannot start: (a policy or an import .*"Bundlers"|.*SyntaxError)/],
    ])('a worker whose script is %s', async (folder, pattern) => {
      expect(await outcomesOf({ module: `/${folder}/browser.js` })).toMatchObject(worker(pattern));
    });

    test('a worker of another origin works if that origin allows it', async () => {
      expect(await outcomesOf({ module: `${cdn.url}/dist/browser.js` })).toEqual(works);
      const classic = `{ worker: () => new Worker('${cdn.url}/closed/browser-worker.js') }`;
      expect(await outcomesOf({ given: classic })).toEqual(works);
      expect(await outcomesOf({ module: `${cdn.url}/closed/browser.js` })).toMatchObject(worker(/\(CORS\)/));
      const headers = { 'content-security-policy': "worker-src 'self'" };
      expect(await outcomesOf({ module: `${cdn.url}/dist/browser.js`, headers })).toMatchObject(
        worker(/a policy .*"Policies"/),
      );
    });
  });
}
