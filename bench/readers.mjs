/**
 * What readers and the background copy cost each other: cold random reads of 4 KiB alone, the copy alone, and both at
 * once, over HTTP with a latency.
 *
 *   node bench/readers.mjs [--size MIB] [--rounds N] [--latency MS] [--readers N] [--seconds S]
 *
 * Rounds are interleaved, and figures are medians. Exits with 1 if a bar is missed: under readers the copy reaches 0.6
 * of its speed alone, and beside the copy the readers' 99th percentile is at most 1.2 of that alone. Needs
 * `npm run build` first.
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { httpSource, openDevice } from '../dist/index.js';
import { nodeFileSystem } from '../dist/node.js';
import { makeImage, median, slowServer } from './lib/tools.mjs';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '3' },
    latency: { type: 'string', default: '20' },
    readers: { type: 'string', default: '8' },
    seconds: { type: 'string', default: '4' },
  },
});
const size = Number(values.size) * 2 ** 20;
const readerCount = Number(values.readers);
const limitMs = Number(values.seconds) * 1000;

/** One copy into a new folder: the copy's MB/s, and the readers' times in ms, ascending. */
async function run(parent, url, { hydrate, reads }) {
  const folder = mkdtempSync(join(parent, 'copy-'));
  const source = await httpSource(url);
  const device = await openDevice({ source, fileSystem: nodeFileSystem(folder), target: 'copy.img', hydrate });
  const times = [];
  let isOver = false;
  const begun = performance.now();
  const late = new Promise((resolve) => setTimeout(resolve, limitMs).unref());
  const over = Promise.race(hydrate ? [device.hydrated, late] : [late]).then(() => (isOver = true));
  const reader = async () => {
    const into = new Uint8Array(4096);
    while (!isOver) {
      const askedMs = performance.now();
      await device.read(into, Math.floor(Math.random() * (size / 4096)) * 4096);
      times.push(performance.now() - askedMs);
    }
  };
  await Promise.all(reads ? Array.from({ length: readerCount }, reader) : [over]);
  const seconds = (performance.now() - begun) / 1000;
  const { sourceBytes } = device.status();
  await device.close();
  await source.close();
  rmSync(folder, { recursive: true });
  return { rate: sourceBytes / seconds / 1e6, times: times.sort((one, other) => one - other) };
}

const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
const image = join(folder, 'disk.img');
makeImage(image, Number(values.size));
const server = spawn(process.execPath, [slowServer, image, values.latency], { stdio: ['ignore', 'pipe', 'inherit'] });
try {
  const port = await new Promise((resolve) =>
    server.stdout.once('data', (line) => resolve(Number(String(line).trim()))),
  );
  const url = `http://127.0.0.1:${port}/disk.img`;
  const found = { copyAlone: [], copyUnder: [], p50Alone: [], p50Beside: [], p99Alone: [], p99Beside: [] };
  const at = (times, part) => times[Math.floor(times.length * part)];
  for (let round = 0; round < Number(values.rounds); round++) {
    const alone = await run(folder, url, { hydrate: true, reads: false });
    const readers = await run(folder, url, { hydrate: false, reads: true });
    const both = await run(folder, url, { hydrate: true, reads: true });
    found.copyAlone.push(alone.rate);
    found.copyUnder.push(both.rate);
    found.p50Alone.push(at(readers.times, 0.5));
    found.p50Beside.push(at(both.times, 0.5));
    found.p99Alone.push(at(readers.times, 0.99));
    found.p99Beside.push(at(both.times, 0.99));
  }
  const of = (name) => median(found[name]);
  const copyRatio = of('copyUnder') / of('copyAlone');
  const readRatio = of('p99Beside') / of('p99Alone');
  console.table({
    'copy [MB/s]': { alone: of('copyAlone'), together: of('copyUnder'), ratio: copyRatio },
    'reads, p50 [ms]': { alone: of('p50Alone'), together: of('p50Beside'), ratio: of('p50Beside') / of('p50Alone') },
    'reads, p99 [ms]': { alone: of('p99Alone'), together: of('p99Beside'), ratio: readRatio },
  });
  process.exitCode = copyRatio < 0.6 || readRatio > 1.2 ? 1 : 0;
} finally {
  server.kill();
  rmSync(folder, { recursive: true, force: true });
}
