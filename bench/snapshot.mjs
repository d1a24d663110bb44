/**
 * The cost of a snapshot for a writer: writes of 4 KiB, one after another, before a snapshot and during one.
 *
 *   node bench/snapshot.mjs [--size MIB] [--rounds N] [--directory PATH] [--json]
 *
 * The device is complete, and its writer is as busy as it can be. The longest write of a round is the time for which
 * the gate was closed, and whatever else held it. A directory on xfs or btrfs shows clones beside copies; elsewhere
 * there are only copies. Prints medians over rounds. Exits with 1 if a snapshot holds the event loop for more than 10
 * ms in half of the rounds. Needs `npm run build` first.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bytesSource, openDevice, removeCopy } from '../dist/index.js';
import { nodeFileSystem } from '../dist/node.js';
import { seededRandom } from '../dist/testing.js';

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '5' },
    directory: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});

const BLOCK = 4096;
const MIB = 2 ** 20;
const BAR_MS = 10;
const size = Number(options.size) * MIB;
const rounds = Number(options.rounds);
const folder = mkdtempSync(join(options.directory, 'copyondemand-bench-'));
const files = nodeFileSystem(folder);
const random = seededRandom(1);
const bytes = random.fill(new Uint8Array(MIB));

/** Milliseconds of processor time of this thread. On Linux. */
function cpuTime() {
  return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;
}

/** @param {number[]} values */
function median(values) {
  return values.toSorted((one, other) => one - other)[values.length >> 1] ?? Number.NaN;
}

/**
 * Writes until `until` resolves. Returns writes per second, the longest write, and the most processor time for which
 * the event loop did not turn, in milliseconds.
 * @param {import('../dist/index.js').Device} device
 * @param {Promise<void>} until
 */
async function writeDuring(device, until) {
  let isOver = false;
  const over = until.then(() => (isOver = true));
  const turning = (async () => {
    let held = 0;
    for (let last = cpuTime(); !isOver; ) {
      await new Promise(setImmediate);
      const now = cpuTime();
      held = Math.max(held, now - last);
      last = now;
    }
    return held;
  })();
  const begun = performance.now();
  let [writes, longestMs] = [0, 0];
  while (!isOver) {
    const offset = random.below(size / BLOCK) * BLOCK;
    const start = performance.now();
    await device.write(bytes.subarray(0, BLOCK), offset);
    longestMs = Math.max(longestMs, performance.now() - start);
    writes++;
    await new Promise(setImmediate);
  }
  const perSecond = (writes * 1000) / (performance.now() - begun);
  await over;
  return { perSecond, longestMs, heldMs: await turning };
}

/** @param {{ name: string, fileSystem: import('../dist/index.js').FileSystem }} how */
async function measure({ name, fileSystem }) {
  const source = bytesSource(new Uint8Array(1), { identity: 'bench' });
  const device = await openDevice({
    source: { ...source, size, read: source.read, close: source.close },
    fileSystem,
    target: 'disk',
    hydrate: false,
  });
  for (let at = 0; at < size; at += MIB) await device.write(bytes, at);
  await device.checkpoint();
  /** @type {Record<string, number[]>} */
  const figures = { before: [], during: [], longestBeforeMs: [], longestMs: [], heldMs: [], snapshotMs: [] };
  for (let round = 0; round < rounds; round++) {
    await device.checkpoint();
    const before = await writeDuring(device, new Promise((resolve) => setTimeout(resolve, 1000)));
    const start = performance.now();
    const during = await writeDuring(device, device.snapshot('snap'));
    figures['snapshotMs'].push(performance.now() - start);
    figures['before'].push(before.perSecond);
    figures['during'].push(during.perSecond);
    figures['longestBeforeMs'].push(before.longestMs);
    figures['longestMs'].push(during.longestMs);
    figures['heldMs'].push(during.heldMs);
    await removeCopy({ fileSystem, target: 'snap' });
  }
  await device.close();
  await removeCopy({ fileSystem, target: 'disk' });
  return { name, ...Object.fromEntries(Object.entries(figures).map(([key, values]) => [key, median(values)])) };
}

/** Whether the directory is on a file system with reflinks. */
async function clones() {
  await (await files.open('a', { create: true })).close();
  const works = await files.clone?.('a', 'b').then(
    () => true,
    () => false,
  );
  await files.remove('b');
  await files.remove('a');
  return works === true;
}

let worst = 0;
try {
  const { clone: _, ...copying } = files;
  const cases = [{ name: 'copied', fileSystem: copying }];
  if (await clones()) cases.push({ name: 'cloned', fileSystem: files });
  for (const how of cases) {
    const result = await measure(how);
    if (result.heldMs > BAR_MS) worst = 1;
    if (options.json) console.log(JSON.stringify(result));
    else {
      const { name, before, during, longestBeforeMs, longestMs, heldMs, snapshotMs } = result;
      console.log(
        `${name}, ${options.size} MiB: ${snapshotMs.toFixed(0)} ms; writes of 4 KiB at ` +
          `${(during / before).toFixed(2)} of the speed before (${before.toFixed(0)}/s); longest write ` +
          `${longestMs.toFixed(1)} ms (before: ${longestBeforeMs.toFixed(1)} ms); event loop held ` +
          `${heldMs.toFixed(1)} ms (bar: ${BAR_MS} ms)`,
      );
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
process.exitCode = worst;
