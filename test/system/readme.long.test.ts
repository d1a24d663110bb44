/**
 * README.md word by word, from an empty folder: the package is packed and installed, and then each block runs there.
 *
 * Three things differ from the document: npm installs the tarball instead of the package's name, the image is on
 * loopback, and the commands of a checkout use this checkout.
 */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RangeServer } from '../../src/cli/demo/range-server.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { tinyImage } from '../sources/qcow2/tiny-image.ts';
import { Chromium } from '../support/chromium.ts';
import { codeBlocks, readDocument } from '../support/documents.ts';
import { packInto, runLine, startLine } from '../support/packed-package.ts';
import { serveFile } from '../support/range-server.ts';
import { README_QCOW2_URL, README_URL, readmeBlock } from '../support/readme-blocks.ts';
import { startSite } from '../support/site.ts';
import { describeWith } from '../support/tools.ts';

const root = join(import.meta.dirname, '../..');
const PERMISSION = { 'access-control-allow-origin': '*', 'access-control-expose-headers': 'content-range, etag' };

const place = mkdtempSync(join(tmpdir(), 'cod-reader-'));
/** The reader's folder, empty at first. */
const folder = join(place, 'reader');
const image = Buffer.from(seededRandom(1).fill(new Uint8Array(1_000_001)));
const qcow2 = tinyImage();
let server: RangeServer;
let qcow2Server: RangeServer;
let tarball: string;

/** The lines of a shell block, with the reader's image. */
const linesOf = (name: string): string[] =>
  readmeBlock(name)
    .trim()
    .split('\n')
    .map((line) => line.replace(README_URL, server.url).replace(README_QCOW2_URL, qcow2Server.url));

beforeAll(async () => {
  mkdirSync(folder);
  writeFileSync(join(place, 'image.raw'), image);
  server = await serveFile(join(place, 'image.raw'), { headers: PERMISSION });
  writeFileSync(join(place, 'cloudimg'), qcow2.bytes);
  qcow2Server = await serveFile(join(place, 'cloudimg'));
  ({ tarball } = await packInto(place));
  const [install, ...rest] = linesOf('install');
  expect(rest).toEqual([]);
  const line = install!.replace(' copyondemand', ` '${tarball}'`);
  expect(line).not.toBe(install);
  await runLine(`${line} --prefer-offline --no-audit --no-fund --loglevel=error`, folder);
});

afterAll(async () => {
  await server?.close();
  await qcow2Server?.close();
  rmSync(place, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
});

test('QEMU has the disk that is served, and the commands inspect and copy', async () => {
  const [serve, qemu, ...others] = linesOf('boot');
  const [inspect, copy, ...rest] = linesOf('command');
  expect([...others, ...rest]).toEqual([]);
  await runLine(copy!, folder);
  expect(readFileSync(join(folder, 'copy.raw')).equals(image)).toBe(true);
  const serving = startLine(serve!, folder);
  try {
    const first = await new Promise<string>((resolve, reject) => {
      createInterface(serving.stdout!).once('line', resolve);
      serving.once('exit', (code) => reject(new Error(`serve ended with ${code}`)));
    });
    expect(first).toMatch(/^listening on nbd\+unix:\/\/\/\?socket=/);
    // Nothing boots from the tiny disk, so the machine stops before its first instruction.
    const described = await runLine(
      `(echo info block; echo quit) | ${qemu!} -S -monitor stdio -serial none -display none`,
      folder,
    );
    expect(described).toMatch(/ide0-hd0[^:]*: nbd\+unix:.*vm\.sock \(raw\)/);
    expect(await runLine(inspect!, folder)).toMatch(/vm\.raw[\s\S]*█ copied/);
    expect(statSync(join(folder, 'vm.raw')).size).toBe(qcow2.disk.length);
  } finally {
    const ended = new Promise((resolve) => serving.once('exit', resolve));
    // The group, as from a terminal: npx starts the command through a shell.
    process.kill(-serving.pid!, 'SIGTERM');
    await ended;
  }
});

test('the use in Node makes a complete copy', async () => {
  writeFileSync(join(folder, 'main.mjs'), linesOf('main.mjs').join('\n'));
  await runLine('node main.mjs', folder);
  const expected = Buffer.from(image);
  expected.copy(expected, 1024, 0, 512);
  expect(readFileSync(join(folder, 'disk.raw')).equals(expected)).toBe(true);
});

test('the crash test finds nothing wrong', async () => {
  writeFileSync(join(folder, 'crash.mjs'), readmeBlock('crash.mjs'));
  expect(await runLine('node crash.mjs', folder)).toMatch(/stories: \d+, lives: \d+, crashes: \d\d/);
});

describeWith(['chromium'], 'the use in a page', () => {
  test('makes a complete copy, and opens it again after a reload', async () => {
    writeFileSync(join(folder, 'page.js'), linesOf('page.js').join('\n'));
    const commands = codeBlocks(readDocument('docs/BROWSER.md')).filter(({ name }) => name === 'esbuild');
    expect(commands.length).toBe(1);
    // The reader's project has esbuild, which this package does not install.
    const program = join('node_modules', '.bin', 'esbuild');
    symlinkSync(join(root, program), join(folder, program));
    await runLine(`${commands[0]!.code.trim()} --log-level=error`, folder);
    const html = '<!doctype html><script type="module">await import("./page.js"); document.title = "done";</script>';
    writeFileSync(join(folder, 'site', 'index.html'), html);
    const site = await startSite({ folders: { '/': join(folder, 'site') } });
    const chromium = await Chromium.start(join(place, 'profile'));
    try {
      const page = await chromium.newPage();
      const errors: string[] = [];
      page.on('pageerror', (error) => errors.push(String(error)));
      for (const visit of [() => page.goto(site.url), () => page.reload()]) {
        await visit();
        await page.waitForFunction('document.title === "done"').catch(() => undefined);
        expect(errors).toEqual([]);
        expect(await page.title()).toBe('done');
      }
      const size = await page.evaluate(
        'navigator.storage.getDirectory().then((d) => d.getFileHandle("disk.raw")).then((h) => h.getFile())' +
          '.then((file) => file.size)',
      );
      expect(size).toBe(image.length);
    } finally {
      await chromium.close();
      await site.close();
    }
  });
});

describe('in a checkout', () => {
  const [demo, copy, tests, ...rest] = readmeBlock('checkout')
    .trim()
    .split('\n')
    .map((line) => line.replace(/ +#.*/, ''));
  /** As a user calls npm in the checkout, from a folder with images. */
  const inCheckout = (line: string): string => line.replace(/^npm/, `npm --prefix '${root}'`);

  /** Text without what differs from run to run. */
  const masked = (text: string): string[] =>
    text
      .split('\n')
      .filter((line) => !/[█▒▚░]|^>|sent|backup superblock|made by/.test(line))
      .map((line) =>
        line
          .replaceAll(/\b[0-9a-f]{16}…/g, '…')
          .replaceAll(/\d+(\.\d+)?/g, '0')
          .trim(),
      )
      .filter((line) => line !== '' && !line.startsWith('disk.raw.'));

  test('npm start runs the demo, and docs/demo.svg shows it', async () => {
    expect([demo, rest]).toEqual(['npm start', []]);
    const stdout = await runLine(inCheckout(demo!), place);
    const shown = /<desc>([\s\S]*)<\/desc>/.exec(readDocument('docs/demo.svg'))![1]!;
    const picture = shown.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
    expect(masked(picture), 'npm run picture draws docs/demo.svg anew').toEqual(masked(stdout));
  });

  test('npm start copies an image', async () => {
    await runLine(inCheckout(copy!).replace('SOURCE', 'image.raw').replace('TARGET', 'copy.raw'), place);
    expect(readFileSync(join(place, 'copy.raw')).equals(image)).toBe(true);
  });

  test('npm test runs tests', async () => {
    expect(tests).toBe('npm test');
    // One file only: this test is one of those that `npm test` runs.
    const output = await runLine(`${inCheckout(tests!)} -- --project unit test/cli/units.test.ts`, place);
    expect(output).toMatch(/Test Files.*1 passed/);
  });

  test('npm run web builds the page and serves it', async () => {
    const commands = codeBlocks(readDocument('docs/BROWSER.md')).filter(({ name }) => name === 'web');
    expect(commands.length).toBe(1);
    // Another port and folder: the checkout's own page stays as it is.
    const line = inCheckout(commands[0]!.code.trim()).replace('FOLDER', '.');
    const serving = startLine(`${line} --port 0 --out page --no-samples 2>&1`, place);
    try {
      const url = await new Promise<string>((resolve, reject) => {
        createInterface(serving.stdout!).on('line', (text) => {
          const found = /the page is at (\S+\/),/.exec(text)?.[1];
          if (found !== undefined) resolve(found);
        });
        serving.once('exit', (code) => reject(new Error(`npm run web ended with ${code}`)));
      });
      expect(await (await fetch(url)).text()).toMatch(/<div id="app"/);
      const bytes = await (await fetch(`${url}images/image.raw`)).arrayBuffer();
      expect(Buffer.from(bytes).equals(image)).toBe(true);
    } finally {
      const ended = new Promise((resolve) => serving.once('exit', resolve));
      process.kill(-serving.pid!, 'SIGTERM');
      await ended;
    }
  });
});

describe('the installed package', () => {
  test('has its man page where man looks, and prints completion', async () => {
    const global = join(place, 'global');
    await runLine(
      `npm install --global --prefix '${global}' '${tarball}' --prefer-offline --no-audit --no-fund --loglevel=error`,
      place,
    );
    expect(readFileSync(join(global, 'share/man/man1/copyondemand.1'), 'utf8')).toMatch(/^\.TH COPYONDEMAND 1 /);
    const path = `PATH='${join(global, 'bin')}':"$PATH"`;
    expect(await runLine(`${path} copyondemand completion bash`, place)).toContain('complete -F _copyondemand');
    const refused = runLine(`${path} COPYONDEMAND_QUIET=on copyondemand finish disk.raw`, place);
    await expect(refused).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringContaining('COPYONDEMAND_QUIET') as unknown,
    });
  });
});

test('docs/COMMAND.md lists every command and every option', async () => {
  const text = readDocument('docs/COMMAND.md');
  const program = await runLine('npx copyondemand --help', folder);
  const names = [...program.matchAll(/^ {2}([a-z-]+) /gm)].map(([, name]) => name!).filter((name) => name !== 'help');
  expect(names.length).toBeGreaterThan(10);
  for (const name of names) {
    expect(text).toMatch(new RegExp(`\`(copyondemand )?${name} ?`));
    const help = await runLine(`npx copyondemand ${name} --help`, folder);
    const options = [...help.matchAll(/^ {2}(?:-\w, )?(--[a-z0-9-]+)/gm)].map(([, option]) => option!);
    expect(options.filter((option) => option !== '--help' && !text.includes(`\`${option}`))).toEqual([]);
  }
});
