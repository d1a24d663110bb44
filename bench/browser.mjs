/**
 * The device in Chromium beside the browser's own means, in one run, with a profile on disk:
 *
 * - hydration over HTTP on loopback, from open to a complete durable copy, beside a plain fetch into a file of the same
 *   file system
 * - a read of 4 KiB beside a message with 4 KiB to a worker and back
 * - replay and serialization in the core beside the same in Node
 *
 *   node bench/browser.mjs [--size MIB] [--rounds N] [--only hydration|reads|core] [--json]
 *
 * Rounds are interleaved. A ratio is the median of the ratios of all rounds. Exits with 1 if a bar is missed. Measures
 * nothing without Chromium. Needs `npm run build` first.
 */

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { chromium } from 'playwright';
import { runTs } from '../scripts/run-ts.mjs';
import { makeImage, median, slowServer } from './lib/tools.mjs';

const { chromiumArguments, chromiumPath } = await runTs(
  new URL('../test/support/chromium-program.ts', import.meta.url),
);
const { startSite } = await runTs(new URL('../test/support/site.ts', import.meta.url));
const { coreCases, coreTimer } = await runTs(new URL('lib/core-timer.ts', import.meta.url));

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '9' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const sizeMiB = Number(options.size);
const rounds = Number(options.rounds);

const here = fileURLToPath(new URL('.', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));

/** The results. `figures` are medians. */
const results = [];

function tell(result) {
  results.push(result);
  if (options.json) return;
  const figures = Object.entries(result.figures).map(([what, figure]) => `${what} ${figure}`);
  console.log(
    `${result.name}: ${figures.join(', ')}: ${result.ratio.toFixed(2)} × ` +
      `(bar: ${result.bar}, ${result.met ? 'met' : 'missed'})`,
  );
}

async function bundlePage() {
  const outdir = join(folder, 'page');
  await build({
    entryPoints: ['page', 'fetch-worker', 'echo-worker', 'core-worker'].map((name) =>
      join(here, 'browser', `${name}.ts`),
    ),
    outdir,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    logLevel: 'error',
  });
  return outdir;
}

/** Serves the image from another process, and so from another origin. */
async function serveImage(image) {
  const server = spawn(process.execPath, [slowServer, image, '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const port = await new Promise((resolve, reject) => {
    server.stdout.once('data', (line) => resolve(String(line).trim()));
    server.once('exit', () => reject(new Error('the server ended')));
  });
  return { server, url: `http://127.0.0.1:${port}/disk.img` };
}

/** Returns a function that calls the functions of browser/page.ts by name. */
function callsOf(page) {
  return (name, ...args) => page.evaluate(([name, args]) => globalThis.bench[name](...args), [name, args]);
}

/** Rotates the list by `round`, so that no task always follows the same one. */
function rotated(list, round) {
  return list.map((_, index) => list[(index + round) % list.length]);
}

/**
 * Ways of a plain fetch: pieces as they arrive, or reads of up to 1 MiB into one buffer. 256 KiB and 4 MiB are slower.
 */
const plainWays = { 'default reader': undefined, 'BYOB reader': 2 ** 20 };

async function benchHydration(call, url, image) {
  const sha256 = createHash('sha256').update(readFileSync(image)).digest('hex');
  const ours = [];
  const plain = new Map(Object.keys(plainWays).map((name) => [name, []]));
  for (let round = -1; round < rounds; round++) {
    for (const way of rotated(['ours', ...Object.keys(plainWays)], round + 1)) {
      if (way === 'ours') {
        const outcome = await call('hydrate', url, { digest: round < 0 });
        if (round < 0 && outcome.sha256 !== sha256)
          throw new Error(`the SHA-256 of the copy is ${outcome.sha256}, not ${sha256}`);
        if (round >= 0) ours.push(outcome.ms);
      } else {
        const ms = await call('plain', url, plainWays[way]);
        if (round >= 0) plain.get(way).push(ms);
      }
    }
  }
  const speed = (times) => `${Math.round((sizeMiB * 1048.576) / median(times))} MB/s`;
  const [fastest, times] = [...plain].sort(([, one], [, other]) => median(one) - median(other))[0];
  const ratio = median(ours.map((ms, round) => times[round] / ms));
  tell({
    name: `hydration of ${sizeMiB} MiB`,
    figures: {
      ours: speed(ours),
      ...Object.fromEntries([...plain].map(([way, times]) => [way, speed(times)])),
      'beside the': fastest,
    },
    ratio,
    bar: 'at least 0.85',
    met: ratio >= 0.85,
  });
}

async function benchReads(call, url) {
  await call('prepareReads', url);
  for (const depth of [1, 16]) {
    const count = 2000;
    const times = { read: [], message: [] };
    for (let round = -1; round < 3 * rounds; round++) {
      for (const what of rotated(['read', 'message'], round + 1)) {
        const found = await call(what === 'read' ? 'reads' : 'roundTrips', count, depth);
        if (round >= 0) times[what].push(found);
      }
    }
    const ratio = median(times.read.map((found, round) => found / times.message[round]));
    const micro = (list) => `${median(list).toFixed(1)} µs`;
    tell({
      name: `reads of 4 KiB, ${depth} at a time`,
      figures: { read: micro(times.read), 'message there and back': micro(times.message) },
      ratio,
      bar: 'at most 1.5',
      met: ratio <= 1.5,
    });
  }
  await call('finishReads');
}

async function benchCore(call) {
  for (const name of coreCases) {
    const timeNode = await coreTimer(name);
    await call('timeCore', name);
    const times = { node: [], chromium: [] };
    for (let round = -2; round < rounds; round++) {
      for (const where of rotated(['node', 'chromium'], round + 2)) {
        const ms = where === 'node' ? await timeNode() : await call('timeCore');
        if (round >= 0) times[where].push(ms);
      }
    }
    const ratio = median(times.chromium.map((ms, round) => ms / times.node[round]));
    tell({
      name,
      figures: { Chromium: `${median(times.chromium).toFixed(2)} ms`, Node: `${median(times.node).toFixed(2)} ms` },
      ratio,
      bar: 'at most 1.3',
      met: ratio <= 1.3,
    });
  }
}

async function main() {
  const image = join(folder, 'disk.img');
  makeImage(image, sizeMiB);
  const { server, url } = await serveImage(image);
  const site = await startSite({ folders: { '/dist/': join(here, '../dist'), '/': await bundlePage() } });
  const browser = await chromium.launchPersistentContext(join(folder, 'profile'), {
    executablePath: chromiumPath,
    args: [...chromiumArguments],
  });
  try {
    const page = await browser.newPage();
    await page.goto(`${site.url}/blank`);
    await page.addScriptTag({ type: 'module', url: '/page.js' });
    await page.waitForFunction(() => 'bench' in globalThis);
    const call = callsOf(page);
    const wanted = (group) => options.only === undefined || options.only === group;
    if (wanted('hydration')) await benchHydration(call, url, image);
    if (wanted('reads')) await benchReads(call, url);
    if (wanted('core')) await benchCore(call);
  } finally {
    await browser.close();
    await site.close();
    server.kill();
  }
  if (options.json) console.log(JSON.stringify({ sizeMiB, rounds, results }));
  if (results.some(({ met }) => !met)) process.exitCode = 1;
}

if (!existsSync(chromiumPath)) {
  console.log(`nothing to measure: Chromium is not installed at ${chromiumPath}`);
} else {
  try {
    await main();
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
