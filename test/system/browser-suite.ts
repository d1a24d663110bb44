/**
 * Copies in a browser, whichever it is, that are cut: workers that end, a browser that is killed, and copies that are carried on elsewhere. The package is
 * loaded as it is shipped, from a static server.
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

/** What is used of a page, as Playwright and Puppeteer have it. */
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
  /** kill -9 */
  kill(): Promise<void>;
  close(): Promise<void>;
}

/** What the tests of one browser alone do with what those of all use. */
export interface BrowserBench<Browser extends TestBrowser> {
  /** The present one: tests end it and start another. */
  readonly browser: Browser;
  /** Serves the images. */
  readonly site: Site;
  /** Where images lie that are served. */
  readonly files: string;
  /** Makes a page ready to do things in. */
  prepare(page: TestPage): Promise<TestPage>;
  /** Does something in a page, by default in one that is there for all. */
  act<Name extends keyof Actions>(
    name: Name,
    options: Parameters<Actions[Name]>[0],
    where?: TestPage,
  ): Promise<Awaited<ReturnType<Actions[Name]>>>;
}

/** How often things are done, in rounds. */
export interface BrowserSuiteOptions<Browser extends TestBrowser> {
  /** The browser's program; without it the tests are skipped. */
  readonly program: string;
  /** Starts it over a profile, which may be that of one that was killed. */
  start(profile: string): Promise<Browser>;
  /** Workers terminated: of one page, and where two share a disk. Each a multiple of 10. */
  readonly terminations: number;
  readonly terminationsShared: number;
  /** Browsers killed. */
  readonly kills: number;
}

/** Declares the tests for one browser; `more` declares those that it has alone. */
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

    /** Does something in the page. */
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

    test(`${options.terminations} workers are terminated at random moments, and nothing that was acknowledged is lost`, async () => {
      const { url } = makeImage('terminated', 30 * BLOCK + 700);
      await act('terminate', { url, rounds: options.terminations, seed, guest: false });
    });

    test('nor is anything where two share a disk, whichever of their workers are terminated', async () => {
      const { url } = makeImage('terminated-guest', 30 * BLOCK + 700);
      await act('terminate', { url, rounds: options.terminationsShared, seed, guest: true });
    });

    test(`${options.kills} browsers are killed, and all that was flushed is there`, async () => {
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

    test('a tab that is closed leaves the device to the next one, with all that was acknowledged', async () => {
      const { bytes, url } = makeImage('tabs', 30 * BLOCK, 3);
      const second = await prepare(await browser.newPage());
      const open = `(await import('/dist/browser.js')).openDevice({ source: ${JSON.stringify(url)}, target: 'tabs-disk', hydrate: false })`;
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

    test('a copy that was begun in the browser is carried on by the command', async () => {
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

    test('a copy that was begun by the command is carried on in the browser', async () => {
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

    test('equal states have equal checkpoints, in the browser and under Node', async () => {
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

    test('a sparse image of 3 GiB is copied whole, and its holes do not take their room', async () => {
      const path = join(files, 'large-image');
      const fd = openSync(path, 'w');
      ftruncateSync(fd, 3 * 2 ** 30 + 5);
      const chunk = new Uint8Array(2 ** 20);
      // On both sides of 2 GiB, and at both ends.
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
        // Not all of them: what is left of a hole at the ends of a piece that arrives is written.
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

/** OPFS keeps files under numbers; this one is known by its size. */
function largeFileOf(profile: string, size: number): string {
  const found = readdirSync(profile, { recursive: true, encoding: 'utf8' })
    .map((name) => join(profile, name))
    .find((path) => statSync(path, { throwIfNoEntry: false })?.size === size);
  if (found === undefined) throw new Error(`no file of ${size} bytes in the profile`);
  return found;
}
