/**
 * Cold reads of 4 KiB in random order from a local file, one after another in one process, beside the two calls that
 * they cannot do without: a read of the source and a write of the copy. And reads of the copied blocks.
 *
 *   node bench/cold-reads.mjs [--size MIB] [--rounds N]
 *
 * Rounds are interleaved, and figures are medians: µs of time and of the processor for each read. Exits with 1 if a
 * cold read takes more than 2 × the processor time of the two calls. Needs `npm run build` first.
 */

import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openDevice } from '../dist/index.js';
import { fileSource, nodeFileSystem } from '../dist/node.js';
import { seededRandom } from '../dist/testing.js';
import { median } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '7' },
  },
});

const BLOCK = 4096;
const BAR = 2;
const size = Number(options.size) * 2 ** 20;
const random = seededRandom(1);
const offsets = random.shuffle(Array.from({ length: size / BLOCK }, (_, index) => index * BLOCK));
const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
const image = join(folder, 'image');
const into = new Uint8Array(BLOCK);

/** µs for each read: time, and time of the processor. */
async function measured(read) {
  const cpu = process.cpuUsage();
  const beganMs = performance.now();
  for (const offset of offsets) await read(offset);
  const ms = performance.now() - beganMs;
  const { user, system } = process.cpuUsage(cpu);
  return { time: (ms * 1000) / offsets.length, processor: (user + system) / offsets.length };
}

async function calls() {
  const copy = join(folder, 'plain');
  const [from, to] = [openSync(image, 'r'), openSync(copy, 'w')];
  const both = await measured((offset) => {
    readSync(from, into, 0, BLOCK, offset);
    writeSync(to, into, 0, BLOCK, offset);
  });
  closeSync(from);
  closeSync(to);
  rmSync(copy);
  return both;
}

try {
  writeFileSync(image, random.fill(new Uint8Array(size)));
  const rounds = { 'a read and a write': [], 'a cold read': [], 'the same again': [] };
  for (let round = 0; round < Number(options.rounds); round++) {
    rounds['a read and a write'].push(await calls());
    const place = mkdtempSync(join(folder, 'copy-'));
    const source = await fileSource(image);
    const device = await openDevice({ source, fileSystem: nodeFileSystem(place), target: 'copy', hydrate: false });
    for (const name of ['a cold read', 'the same again'])
      rounds[name].push(await measured((offset) => device.read(into, offset)));
    await device.close();
    await source.close();
    rmSync(place, { recursive: true });
  }
  const of = (name, key) => median(rounds[name].map((one) => one[key]));
  const row = (name) => ({ µs: of(name, 'time').toFixed(1), 'processor µs': of(name, 'processor').toFixed(1) });
  console.table(Object.fromEntries(Object.keys(rounds).map((name) => [name, row(name)])));
  const ratio = of('a cold read', 'processor') / of('a read and a write', 'processor');
  console.log(`a cold read takes ${ratio.toFixed(2)} × the processor time of the two calls; the bar is ${BAR} ×`);
  if (ratio > BAR) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
