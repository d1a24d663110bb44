/** A browser over a profile on disk, and a server with the shipped package and images. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeAll } from 'vitest';
import { seededRandom } from '../../src/testing/random.ts';
import { type Site, startSite } from '../support/site.ts';
import { describeWith } from '../support/tools.ts';
import type { Actions } from './browser-page.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The methods of a page that the tests use, common to Playwright and Puppeteer. */
export interface TestPage {
  goto(url: string): Promise<unknown>;
  evaluate(code: string): Promise<unknown>;
  waitForFunction(code: string): Promise<unknown>;
  exposeFunction(name: string, called: (argument: never) => void): Promise<unknown>;
  close(): Promise<void>;
}

/** A browser with a profile on disk. */
export interface TestBrowser {
  newPage(): Promise<TestPage>;
  /** Sends SIGKILL. */
  kill(): Promise<void>;
  close(): Promise<void>;
}

/** A browser that tests can restart, with a page that can run {@link Actions}. */
export class BrowserBench<Browser extends TestBrowser> {
  readonly profile: string;
  /** The folder of the served images. */
  readonly files: string;
  /** The current browser and its shared page. */
  browser!: Browser;
  page!: TestPage;
  site!: Site;
  readonly #folder = mkdtempSync(join(tmpdir(), 'cod-browser-'));
  readonly #start: (profile: string) => Promise<Browser>;

  constructor(start: (profile: string) => Promise<Browser>) {
    this.#start = start;
    this.profile = join(this.#folder, 'profile');
    this.files = join(this.#folder, 'files');
  }

  async open(): Promise<void> {
    const pages = join(this.#folder, 'site');
    for (const path of [this.profile, this.files, pages]) mkdirSync(path);
    await build({
      entryPoints: [join(import.meta.dirname, 'browser-page.ts')],
      outfile: join(pages, 'page.js'),
      bundle: true,
      format: 'esm',
      target: 'es2022',
      logLevel: 'error',
    });
    writeFileSync(join(pages, 'index.html'), '<!doctype html><script type="module" src="/page.js"></script>');
    this.site = await startSite({
      folders: { '/dist/': join(root, 'dist'), '/files/': this.files, '/': pages },
      uploads: this.files,
    });
    await this.restart();
  }

  async close(): Promise<void> {
    await this.browser?.close();
    await this.site?.close();
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  /** Starts a browser on the profile, which a killed browser may have left. */
  async restart(): Promise<void> {
    this.browser = await this.#start(this.profile);
    this.page = await this.prepare(await this.browser.newPage());
  }

  /** Loads the actions into a page. */
  async prepare(opened: TestPage): Promise<TestPage> {
    await opened.goto(`${this.site.url}/`);
    await opened.waitForFunction('globalThis.actions !== undefined');
    return opened;
  }

  /** Runs an action in a page; the default is the page that all tests share. */
  act<Name extends keyof Actions>(
    name: Name,
    given: Parameters<Actions[Name]>[0],
    where: TestPage = this.page,
  ): Promise<Awaited<ReturnType<Actions[Name]>>> {
    return where.evaluate(`actions.${name}(${JSON.stringify(given)})`) as Promise<Awaited<ReturnType<Actions[Name]>>>;
  }

  /** Makes an image of random bytes and serves it. */
  makeImage(name: string, size: number, seed = 1): { bytes: Uint8Array; url: string; path: string } {
    const bytes = seededRandom(seed).fill(new Uint8Array(size));
    writeFileSync(join(this.files, name), bytes);
    return { bytes, url: `${this.site.url}/files/${name}`, path: join(this.files, name) };
  }
}

/** A group of tests with one {@link BrowserBench}. Without the browser's executable `program` they are skipped. */
export function describeInBrowser<Browser extends TestBrowser>(
  program: string,
  start: (profile: string) => Promise<Browser>,
  declare: (bench: BrowserBench<Browser>) => void,
): void {
  describeWith([program], `in ${program}`, () => {
    const bench = new BrowserBench(start);
    beforeAll(() => bench.open());
    afterAll(() => bench.close());
    declare(bench);
  });
}
