/**
 * The examples as users run them, with the package in node_modules. Each bundler builds the examples for pages; a
 * static server delivers them.
 */

import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build as esbuild } from 'esbuild';
import { build as viteBuild, createServer as viteServer } from 'vite';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/random.ts';
import { tinyImage } from '../sources/qcow2/tiny-image.ts';
import { Chromium } from '../support/chromium.ts';
import { type Site, startSite } from '../support/site.ts';
import { describeWith } from '../support/tools.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const IMAGE_BYTES = 300_001;

describe('the example of a storage engine', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-example-'));

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** The output's line about slot 8, and the process id. */
  async function run(...args: string[]): Promise<{ slot: string | undefined; id: number | undefined }> {
    const running = promisify(execFile)(process.execPath, ['main.js', ...args], { cwd: folder });
    const id = running.child.pid;
    const { stdout } = await running.catch((error: { stdout: string }) => error);
    return { slot: /^slot 8: (.*) \(\d+ ms\)$/m.exec(stdout)?.[1], id };
  }

  test('keeps its writes after kill -9', async () => {
    cpSync(join(root, 'examples', 'storage-engine'), folder, { recursive: true });
    rmSync(join(folder, 'data'), { recursive: true, force: true });
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(root, join(folder, 'node_modules', 'copyondemand'));
    const first = await run();
    expect(first.slot).toBe('original of slot 8');
    const second = await run('--kill');
    expect(second.slot).toBe(`written by process ${first.id}`);
    expect((await run()).slot).toBe(`written by process ${second.id}`);
  });
});

describeWith(['chromium'], 'an example', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-examples-'));
  const raw = seededRandom(1).fill(new Uint8Array(IMAGE_BYTES));
  const packed = tinyImage();
  const images: readonly { name: string; host: string; bytes: Uint8Array; disk: Uint8Array }[] = [
    { name: 'image.raw', host: '127.0.0.1', bytes: raw, disk: raw },
    { name: 'image.qcow2', host: 'localhost', bytes: packed.bytes, disk: new Uint8Array(packed.disk) },
  ];
  const bundler = join(folder, 'bundler');
  let chromium: Chromium;
  let imageSite: Site;

  beforeAll(async () => {
    cpSync(join(root, 'examples'), folder, { recursive: true });
    for (const name of ['bundler', 'no-bundler']) {
      for (const part of ['package.json', 'dist'])
        cpSync(join(root, part), join(folder, name, 'node_modules', 'copyondemand', part), { recursive: true });
    }
    mkdirSync(join(folder, 'images'));
    for (const { name, bytes } of images) writeFileSync(join(folder, 'images', name), bytes);
    imageSite = await startSite({ folders: { '/': join(folder, 'images') } });
    chromium = await Chromium.start(join(folder, 'profile'));
  });

  afterAll(async () => {
    await chromium?.close();
    await imageSite?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });

  /**
   * Opens the example with images from another origin, and waits until the example reports a complete copy of the disk.
   * Two names of the host have two storages.
   */
  async function run(url: string): Promise<void> {
    for (const { name, host, disk } of images) {
      const page = await chromium.browser.contexts()[0]!.newPage();
      await page.goto(`${url.replace('127.0.0.1', host)}/?image=${imageSite.url}/${name}`);
      await page.waitForFunction("document.querySelector('output').textContent.includes('are copied.')");
      expect(await page.textContent('output')).toMatch(`The first bytes are ${disk.subarray(0, 8)}.`);
      expect(await page.textContent('output')).toMatch(`All ${disk.length} bytes are copied.`);
      await page.close();
    }
  }

  async function serve(path: string): Promise<void> {
    const site = await startSite({ folders: { '/': path } });
    await run(site.url);
    await site.close();
  }

  test('works from a static server without a bundler', () => serve(join(folder, 'no-bundler')));

  test('opens metadata of format 1', async () => {
    // Not built: the page only has an origin.
    const site = await startSite({ folders: { '/': bundler } });
    const page = await chromium.browser.contexts()[0]!.newPage();
    await page.goto(site.url);
    // As text, because vitest replaces `import`.
    const opened = (await page.evaluate(`(async () => {
      const directory = await navigator.storage.getDirectory();
      const file = await directory.getFileHandle('old.raw.bak', { create: true });
      const stream = await file.createWritable();
      // Format 1: magic, version, and lists without an entry.
      await stream.write(new Uint8Array([...new TextEncoder().encode('COD BAK\\0'), 1, ...new Array(23).fill(0)]));
      await stream.close();
      const { openDevice } = await import('/node_modules/copyondemand/dist/browser.js');
      const source = new Blob([new Uint8Array(4096)]);
      const device = await openDevice({ source, target: 'old.raw' });
      await device.hydrated;
      await device.close();
      return { size: device.size, bytes: (await file.getFile()).size };
    })()`)) as { size: number; bytes: number };
    expect(opened).toMatchObject({ size: 4096 });
    // Complete, and in format 2.
    expect(opened.bytes).toBeGreaterThanOrEqual(512);
    await page.close();
    await site.close();
  });

  test('works with esbuild, with the worker as a second entry point', async () => {
    const outdir = join(folder, 'with-esbuild');
    await esbuild({
      absWorkingDir: bundler,
      entryPoints: { main: './main.js', 'browser-worker': 'copyondemand/browser-worker' },
      bundle: true,
      format: 'esm',
      target: 'es2022',
      outdir,
      logLevel: 'error',
    });
    cpSync(join(bundler, 'index.html'), join(outdir, 'index.html'));
    await serve(outdir);
  });

  test('works with Vite, built', async () => {
    const outDir = join(folder, 'with-vite');
    await viteBuild({ root: bundler, logLevel: 'error', build: { outDir, target: 'es2022' } });
    await serve(outDir);
  });

  test('works with Vite, in development', async () => {
    const server = await viteServer({
      root: bundler,
      logLevel: 'error',
      server: { host: '127.0.0.1', port: 0, hmr: false },
    });
    await server.listen();
    await run(server.resolvedUrls!.local[0]!.replace(/\/$/, ''));
    await server.close();
  });
});
