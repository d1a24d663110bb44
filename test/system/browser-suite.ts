/**
 * Copies in a browser that are interrupted: terminated workers, a killed browser, copies resumed elsewhere. The tests
 * are the same for every browser. A static server delivers the package as shipped.
 */

import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { httpSource } from '../../src/sources/http/source.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { type JsonEvent, runCommand, runUntil } from '../cli/command.ts';
import { ByteHistory, type HistoricWrite } from '../support/byte-history.ts';
import { expectBytes } from '../support/bytes.ts';
import { type Site, startSite } from '../support/site.ts';
import { describeWith } from '../support/tools.ts';
import type { Actions } from './browser-page.ts';

const BLOCK = 4096;
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

/** What the tests of a single browser share with the common suite. */
export interface BrowserBench<Browser extends TestBrowser> {
  /** The running browser; tests kill and restart it. */
  readonly browser: Browser;
  /** Serves the images. */
  readonly site: Site;
  /** The folder of the served images. */
  readonly files: string;
  /** Loads the actions into a page. */
  prepare(page: TestPage): Promise<TestPage>;
  /** Runs an action in a page; the default is the page that all tests share. */
  act<Name extends keyof Actions>(
    name: Name,
    options: Parameters<Actions[Name]>[0],
    where?: TestPage,
  ): Promise<Awaited<ReturnType<Actions[Name]>>>;
}

/** How many rounds each test runs. */
export interface BrowserSuiteOptions<Browser extends TestBrowser> {
  /** The browser's executable; without it the tests are skipped. */
  readonly program: string;
  /** Starts the browser on a profile, which a killed browser may have left. */
  start(profile: string): Promise<Browser>;
  /** How many workers are terminated: with one page, and with two pages on one disk. Each is a multiple of 10. */
  readonly terminations: number;
  readonly terminationsShared: number;
  /** How many browsers are killed. */
  readonly kills: number;
}

/** Declares the common tests for one browser; `more` declares tests of this browser only. */
export function browserSuite<Browser extends TestBrowser>(
  name: string,
  options: BrowserSuiteOptions<Browser>,
  more?: (bench: BrowserBench<Browser>) => void,
): void {
  describeWith([options.program], `in ${name}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'cod-browser-'));
    const profile = join(folder, 'profile');
    const files = join(folder, 'files');
    let site: Site;
    let browser: Browser;
    let page: TestPage;

    beforeAll(async () => {
      for (const path of [profile, files, join(folder, 'site')]) mkdirSync(path);
      await build({
        entryPoints: [join(import.meta.dirname, 'browser-page.ts')],
        outfile: join(folder, 'site', 'page.js'),
        bundle: true,
        format: 'esm',
        target: 'es2022',
        logLevel: 'error',
      });
      writeFileSync(
        join(folder, 'site', 'index.html'),
        '<!doctype html><script type="module" src="/page.js"></script>',
      );
      site = await startSite({
        folders: { '/dist/': join(root, 'dist'), '/files/': files, '/': join(folder, 'site') },
        uploads: files,
      });
      await start();
    });

    afterAll(async () => {
      await browser?.close();
      await site?.close();
      rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    });

    async function start(): Promise<void> {
      browser = await options.start(profile);
      page = await prepare(await browser.newPage());
    }

    async function prepare(opened: TestPage): Promise<TestPage> {
      await opened.goto(`${site.url}/`);
      await opened.waitForFunction('globalThis.actions !== undefined');
      return opened;
    }

    /** Runs an action in the page. */
    function act<Name extends keyof Actions>(
      name: Name,
      given: Parameters<Actions[Name]>[0],
      where = page,
    ): Promise<Awaited<ReturnType<Actions[Name]>>> {
      return where.evaluate(`actions.${name}(${JSON.stringify(given)})`) as Promise<Awaited<ReturnType<Actions[Name]>>>;
    }

    function makeImage(name: string, size: number, seed = 1): { bytes: Uint8Array; url: string; path: string } {
      const bytes = seededRandom(seed).fill(new Uint8Array(size));
      writeFileSync(join(files, name), bytes);
      return { bytes, url: `${site.url}/files/${name}`, path: join(files, name) };
    }

    const seed = Number(process.env['COD_CRASH_SEED'] ?? 1);

    test(`loses no acknowledged write when ${options.terminations} workers are terminated`, async () => {
      const { url } = makeImage('terminated', 30 * BLOCK + 700);
      await act('terminate', { url, rounds: options.terminations, seed, guest: false });
    });

    test('loses no acknowledged write when two pages share a disk and workers of either are terminated', async () => {
      const { url } = makeImage('terminated-guest', 30 * BLOCK + 700);
      await act('terminate', { url, rounds: options.terminationsShared, seed, guest: true });
    });

    test(`keeps every flushed write when ${options.kills} browsers are killed`, async () => {
      const { bytes, url } = makeImage('killed-image', 30 * BLOCK + 700, 2);
      const random = seededRandom(seed);
      let history = new ByteHistory(bytes);
      let flushed = 0;
      for (let round = 0; ; round++) {
        const found = new Uint8Array(Buffer.from(await act('begin', { url }), 'base64'));
        expect(history.violation(found, 'durable'), `seed ${seed}, round ${round}`).toBeUndefined();
        if (round === options.kills) break;

        history = new ByteHistory(found);
        const writes: HistoricWrite[] = [];
        const flushes: (() => void)[] = [];
        let untilKill = 20 + random.below(100);
        let soon!: () => void;
        const heardEnough = new Promise<void>((resolve) => (soon = resolve));
        await page.exposeFunction('tell', (what: Parameters<NonNullable<typeof globalThis.tell>>[0]) => {
          if ('begin' in what) {
            const { id, offset, length, seed: bytesSeed } = what.begin;
            writes[id] = history.begin(offset, seededRandom(bytesSeed).fill(new Uint8Array(length)));
          } else if ('acknowledged' in what) history.acknowledge(writes[what.acknowledged]!);
          else if ('flushing' in what) flushes[what.flushing] = history.beginFlush();
          else {
            flushes[what.flushed]!();
            flushed++;
          }
          if (--untilKill === 0) soon();
        });
        const working = act('work', { seed: seed + round });
        working.catch(() => undefined);
        await Promise.race([heardEnough, working]);
        await new Promise((resolve) => setTimeout(resolve, random.below(30)));
        await browser.kill();
        await start();
      }
      expect(flushed).toBeGreaterThan(options.kills);
    });

    test('hands the device with all acknowledged writes to the next tab when a tab is closed', async () => {
      const { bytes, url } = makeImage('tabs', 30 * BLOCK, 3);
      const second = await prepare(await browser.newPage());
      const image = JSON.stringify(url);
      const open = `(await import('/dist/browser.js')).openDevice({
        source: ${image}, target: 'tabs-disk', hydrate: false })`;
      const run = <T>(where: TestPage, code: string): Promise<T> =>
        where.evaluate(`(async () => { ${code} })()`) as Promise<T>;
      for (const [where, role] of [
        [page, 'owner'],
        [second, 'guest'],
      ] as const) {
        expect(await run(where, `globalThis.device = await ${open}; return device.role;`)).toBe(role);
      }
      await run(page, 'await device.write(new Uint8Array(5000).fill(7), 100);');
      await run(second, 'await device.write(new Uint8Array(5000).fill(8), 50_000);');
      const first = page;
      page = await prepare(await browser.newPage());
      await first.close();
      const found = new Uint8Array(
        await run<number[]>(
          second,
          'const all = new Uint8Array(device.size); await device.read(all, 0); return [...all];',
        ),
      );
      bytes.fill(7, 100, 5100);
      bytes.fill(8, 50_000, 55_000);
      expectBytes(found, bytes);
      expect(await run(second, 'return device.role;')).toBe('owner');
      await run(second, 'await device.close();');
      await second.close();
    });

    const writes = [
      { offset: 10, length: 5000, seed: 11 },
      { offset: 200 * BLOCK - 100, length: 3 * BLOCK, seed: 12 },
      { offset: 500 * BLOCK, length: 2 * BLOCK, seed: 13 },
    ];
    const expected = (bytes: Uint8Array): Uint8Array => {
      const all = bytes.slice();
      for (const { offset, length, seed: bytesSeed } of writes)
        all.set(seededRandom(bytesSeed).fill(new Uint8Array(length)), offset);
      return all;
    };

    test('the command resumes a copy that the browser started', async () => {
      const { bytes, url } = makeImage('outward-image', 520 * BLOCK + 1, 4);
      await act('visit', { url, target: 'outward', hydrate: true, writes, untilBlocks: 50 });
      const names = await act('upload', { target: 'outward' });
      expect(names).toContain('outward.bak');
      const before = await runCommand(['inspect', join(files, 'outward'), '--json']);
      const { syncedBlocks, totalBlocks } = JSON.parse(before.stdout) as { syncedBlocks: number; totalBlocks: number };
      expect(syncedBlocks).toBeGreaterThanOrEqual(50);
      expect(syncedBlocks).toBeLessThan(totalBlocks);
      expect(await runCommand(['copy', url, join(files, 'outward'), '--quiet'])).toMatchObject({
        exitCode: 0,
        stderr: '',
      });
      expectBytes(readFileSync(join(files, 'outward')), expected(bytes));
      expect(readdirSync(files).filter((name) => name.startsWith('outward.'))).toEqual([]);
    });

    test('the browser resumes a copy that the command started', async () => {
      const { bytes, url } = makeImage('inward-image', 520 * BLOCK + 1, 5);
      const target = join(files, 'inward');
      const midway = (event: JsonEvent): boolean =>
        event.event === 'progress' && event['phase'] === 'copying' && Number(event['bytes']) > 0;
      expect((await runUntil(['copy', url, target, '--rate', '1M'], 'SIGINT', midway)).exitCode).toBe(130);
      const before = await runCommand(['inspect', target, '--json']);
      expect((JSON.parse(before.stdout) as { syncedBlocks: number }).syncedBlocks).toBeGreaterThan(0);
      const names = readdirSync(files).filter((name) => name === 'inward' || /^inward\.(bak|wil)/.test(name));
      expect(names.length).toBeGreaterThan(2);
      await act('download', { names });
      await act('visit', { url, target: 'inward', hydrate: true, writes, finish: true });
      for (const name of names) rmSync(join(files, name));
      expect(await act('upload', { target: 'inward' })).toEqual(['inward']);
      expectBytes(readFileSync(target), expected(bytes));
    });

    test('the browser and Node write equal checkpoints for equal states', async () => {
      const { url } = makeImage('equal-image', 520 * BLOCK + 1, 6);
      const target = join(files, 'equal');
      const visit = async (made: typeof writes): Promise<void> => {
        const source = await httpSource(url);
        const device = await openDevice({ source, fileSystem: nodeFileSystem(), target, hydrate: false });
        for (const { offset, length, seed: bytesSeed } of made)
          await device.write(seededRandom(bytesSeed).fill(new Uint8Array(length)), offset);
        await device.close();
        await source.close();
      };
      await visit(writes.slice(0, 1));
      const names = readdirSync(files).filter((name) => name === 'equal' || /^equal\.(bak|wil)/.test(name));
      await act('download', { names });
      await visit(writes.slice(1));
      const checkpoints = (): Record<string, string> =>
        Object.fromEntries(
          ['equal.bak', 'equal.bak.1'].map((name) => [name, readFileSync(join(files, name)).toString('hex')]),
        );
      const underNode = checkpoints();
      await act('visit', { url, target: 'equal', hydrate: false, writes: writes.slice(1) });
      for (const name of names) rmSync(join(files, name));
      await act('upload', { target: 'equal' });
      expect(checkpoints()).toEqual(underNode);
    });

    test('copies a sparse image of 3 GiB completely without allocating its holes', async () => {
      const path = join(files, 'large-image');
      const fd = openSync(path, 'w');
      ftruncateSync(fd, 3 * 2 ** 30 + 5);
      const chunk = new Uint8Array(2 ** 20);
      // At both ends of the image, and on both sides of 2 GiB.
      for (const [index, offset] of [
        0,
        2 ** 30 + 77,
        2 ** 31 - 2 ** 19,
        2 ** 31 + 2 ** 29,
        3 * 2 ** 30 + 5 - 2 ** 20,
      ].entries()) {
        writeSync(fd, seededRandom(20 + index).fill(chunk), 0, chunk.length, offset);
      }
      closeSync(fd);
      await act('visit', {
        url: `${site.url}/files/large-image`,
        target: 'large',
        hydrate: true,
        writes: [],
        finish: true,
      });
      await browser.close();
      try {
        const copy = largeFileOf(profile, 3 * 2 ** 30 + 5);
        execFileSync('cmp', [path, copy]);
        // Some zeros are allocated: a fetched piece that ends in a hole is written whole.
        expect(statSync(copy).blocks * 512).toBeLessThan(2 ** 30 + 2 ** 29);
      } finally {
        rmSync(path);
        await start();
      }
      await page.evaluate("navigator.storage.getDirectory().then((root) => root.removeEntry('large'))");
    });

    more?.({
      get browser() {
        return browser;
      },
      get site() {
        return site;
      },
      files,
      prepare,
      act,
    });
  });
}

/** OPFS stores files under numbers, so this finds the file by its size. */
function largeFileOf(profile: string, size: number): string {
  const found = readdirSync(profile, { recursive: true, encoding: 'utf8' })
    .map((name) => join(profile, name))
    .find((path) => statSync(path, { throwIfNoEntry: false })?.size === size);
  if (found === undefined) throw new Error(`no file of ${size} bytes in the profile`);
  return found;
}
