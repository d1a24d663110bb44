/**
 * What a device costs as it grows: its size, and the number of extents of its map.
 *
 *   node bench/growth.mjs [--sizes GIB,…] [--states STATE,…] [--plot FOLDER]
 *
 * STATE is `empty`, `full`, or a number of random blocks that were written, such as `1000000`. A state that the size
 * cannot hold is left out. Each pair of size and state runs in a process of its own, metadata in real files, over a
 * target that keeps nothing.
 *
 * --plot: writes growth-*.svg to a folder. Exits with 1 if the event loop is held for longer than the bar, or a write
 * costs more than the bar times that of the smallest empty device. Needs `npm run build` first.
 */

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openDevice } from '../dist/index.js';
import { seededRandom } from '../dist/testing.js';
import { measured } from './lib/event-loop.mjs';
import { withoutTarget, zeros } from './lib/no-target.mjs';
import { lineChart } from './lib/plot.mjs';

const { values: options } = parseArgs({
  options: {
    sizes: { type: 'string', default: '1,64,1024,16384,65536' },
    states: { type: 'string', default: 'empty,1000000,10000000,full' },
    plot: { type: 'string' },
    cell: { type: 'string' },
  },
});

const GIB = 2 ** 30;
const BLOCK = 4096;
/** A map of more blocks is refused. */
const MAX_BLOCKS = 2 ** 33;
const AT_ONCE = 64;
/** Longest time for which the event loop may be held, in ms, and a write's time beside that to the smallest device. */
const BARS = { heldMs: 10, write: 1.5 };

/** Measures one device. */
async function cell(gib, state) {
  const size = gib * GIB;
  const blockSize = BLOCK * 2 ** Math.max(0, Math.ceil(Math.log2(size / BLOCK / MAX_BLOCKS)));
  const blocks = size / BLOCK;
  const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
  const random = seededRandom(1);
  const bytes = new Uint8Array(BLOCK).fill(1);
  const openAt = (at, targetSize) =>
    openDevice({
      ...{ source: zeros(size), fileSystem: withoutTarget(at, 'disk', targetSize), target: 'disk' },
      ...{ blockSize, hydrate: false, checkpointIntervalMs: 1e9 },
    });
  let device;
  const write = async (count) => {
    for (let done = 0; done < count; done += AT_ONCE) {
      const now = Math.min(AT_ONCE, count - done);
      await Promise.all(Array.from({ length: now }, () => device.write(bytes, random.below(blocks) * BLOCK)));
    }
  };
  const memory = () => {
    globalThis.gc();
    return process.memoryUsage().rss;
  };
  try {
    const idle = memory();
    device = await openAt(folder);
    if (state === 'full') await device.discard(0, size);
    else if (state !== 'empty') await write(Number(state));
    await device.checkpoint();
    const result = { gib, state, memory: memory() - idle };

    const writes = 20_000;
    const { ms: writeMs } = await measured(() => write(writes));
    result.writeUs = (writeMs * 1000) / writes;
    await device.checkpoint();
    await write(1);
    const checkpoint = await measured(() => device.checkpoint());
    await write(1);
    const flush = await measured(() => device.flush());
    await write(50_000);
    const crashed = join(folder, 'crashed');
    mkdirSync(crashed);
    for (const name of readdirSync(folder))
      if (/\.(bak|wil)(\.1)?$/.test(name)) cpSync(join(folder, name), join(crashed, name));
    const close = await measured(() => device.close());
    const open = await measured(async () => (device = await openAt(folder, size)));
    await device.close();
    const replay = await measured(async () => (device = await openAt(crashed, size)));
    await device.close();
    result.metadata = readdirSync(folder)
      .filter((name) => /\.bak(\.1)?$/.test(name))
      .reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
    return Object.assign(result, {
      ...{ checkpointMs: checkpoint.ms, flushMs: flush.ms, closeMs: close.ms, openMs: open.ms, replayMs: replay.ms },
      heldMs: Math.max(...[checkpoint, flush, close, open, replay].map(({ held }) => held)),
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const COLUMNS = [
  ['memory, MiB', ({ memory }) => memory / 2 ** 20, 0],
  ['checkpoints, KiB', ({ metadata }) => metadata / 2 ** 10, 0],
  ['write, µs', ({ writeUs }) => writeUs, 1],
  ['checkpoint, ms', ({ checkpointMs }) => checkpointMs, 1],
  ['flush, ms', ({ flushMs }) => flushMs, 1],
  ['close, ms', ({ closeMs }) => closeMs, 1],
  ['open, ms', ({ openMs }) => openMs, 0],
  ['open with 50,000 records, ms', ({ replayMs }) => replayMs, 0],
  ['event loop held, ms', ({ heldMs }) => heldMs, 1],
];

const sizeName = (gib) => (gib >= 1024 ? `${gib / 1024} TiB` : `${gib} GiB`);
const stateName = (state) => (/^\d/.test(state) ? `${Number(state) / 1e6} M extents` : state);

/** Draws a figure over the sizes, a line for each state. */
function plot(folder, name, title, y, of, results) {
  const states = [...new Set(results.map(({ state }) => state))];
  const series = states.map((state) => ({
    name: stateName(state),
    points: results.filter((result) => result.state === state).map((result) => [result.gib, of(result)]),
  }));
  const description = `${title}: one line for each state of the map, from the smallest to the largest device.`;
  const x = { label: 'size of the device, GiB', isLog: true };
  writeFileSync(join(folder, `growth-${name}.svg`), lineChart({ title, description, x, y, series }));
}

if (options.cell !== undefined) {
  const [gib, state] = options.cell.split(':');
  console.log(JSON.stringify(await cell(Number(gib), state)));
} else {
  const results = [];
  console.log(`| size | map | ${COLUMNS.map(([name]) => name).join(' | ')} |`);
  console.log(`| --- | --- |${' --- |'.repeat(COLUMNS.length)}`);
  for (const state of options.states.split(',')) {
    for (const gib of options.sizes.split(',').map(Number)) {
      if (Number(state) > (gib * GIB) / BLOCK / 2) continue;
      const args = ['--expose-gc', fileURLToPath(import.meta.url), '--cell', `${gib}:${state}`];
      const result = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
      results.push(result);
      const figures = COLUMNS.map(([, of, digits]) => of(result).toFixed(digits));
      console.log(`| ${sizeName(gib)} | ${stateName(state)} | ${figures.join(' | ')} |`);
    }
  }
  if (options.plot !== undefined) {
    const log = (label) => ({ label, isLog: true });
    plot(options.plot, 'memory', 'Memory of a device', log('MiB'), ({ memory }) => memory / 2 ** 20, results);
    plot(options.plot, 'open', 'Time to open', log('ms'), ({ openMs }) => openMs, results);
    plot(options.plot, 'write', 'Time of a write of 4 KiB', { label: 'µs' }, ({ writeUs }) => writeUs, results);
  }
  const least = results[0];
  for (const { gib, state, heldMs, writeUs } of results) {
    if (heldMs > BARS.heldMs)
      console.log(`MISSED: ${sizeName(gib)}, ${stateName(state)}: held ${heldMs.toFixed(1)} ms`);
    if (writeUs > BARS.write * least.writeUs)
      console.log(
        `MISSED: ${sizeName(gib)}, ${stateName(state)}: a write takes ${(writeUs / least.writeUs).toFixed(2)} ×`,
      );
    if (heldMs > BARS.heldMs || writeUs > BARS.write * least.writeUs) process.exitCode = 1;
  }
}
