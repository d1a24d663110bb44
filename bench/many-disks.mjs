/**
 * Many disks in one process, beside one disk: memory, processor time while nothing happens, and reads of 4 KiB by one
 * client of a hydrated disk. Many disks are measured twice: when all copies are complete, and while the copies of all
 * but the first disk run at a low rate, which they share in one group. Rounds of reads are interleaved, figures are
 * medians.
 *
 *   node bench/many-disks.mjs [--disks N] [--idle SECONDS] [--reads N]
 *
 * Exits with 1 if a bar is missed. Needs `npm run build` first.
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { nbdSource } from '../dist/nbd.js';
import { makeImage, median } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    disks: { type: 'string', default: '100' },
    idle: { type: 'string', default: '10' },
    reads: { type: 'string', default: '5000' },
  },
});

/** Resident bytes of one more disk, and the ratio of the 99th percentiles of reads when all copies are complete. */
const BARS = { bytesPerDisk: 1.5 * 2 ** 20, p99: 1.5 };
const MiB = 2 ** 20;
const READ_BYTES = 4096;
/** The unit of the times in /proc/PID/stat, in ms. */
const TICK_MS = 10;
const command = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
const image = join(folder, 'image');
makeImage(image, 8);

/** Serves `count` disks. Resolves when the first `hydrated` of them are complete. */
async function serve(name, count, hydrated) {
  const config = join(folder, `${name}.json`);
  const disks = Array.from({ length: count }, (_, index) => ({
    ...{ name: `${index}`, source: image, target: join(folder, `${name}-${index}`) },
    ...(index >= hydrated && { rate: '400k', rateGroup: `bench-${process.pid}` }),
  }));
  writeFileSync(config, JSON.stringify({ socket: join(folder, name), disks }));
  const child = spawn(process.execPath, [command, 'serve', '--config', config, '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let complete = 0;
  await new Promise((resolve) => {
    createInterface(child.stdout).on('line', (line) => {
      if (JSON.parse(line).event === 'hydrated' && ++complete === hydrated) resolve();
    });
  });
  return { child, name };
}

/** Processor time of a process so far, in ms. */
function processorMs({ pid }) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

function residentBytes({ pid }) {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))[1]) * 1024;
}

/** Reads at random, one after the other. Returns percentiles in µs. */
async function reads(name) {
  const source = await nbdSource(`nbd+unix:///0?socket=${join(folder, name)}`);
  const into = new Uint8Array(READ_BYTES);
  const times = [];
  for (let left = Number(options.reads); left > 0; left--) {
    const offset = Math.floor((Math.random() * 8 * MiB) / READ_BYTES) * READ_BYTES;
    const at = performance.now();
    await source.read(into, offset);
    times.push((performance.now() - at) * 1000);
  }
  await source.close();
  times.sort((a, b) => a - b);
  return { p50: times[times.length >> 1], p99: times[Math.floor(times.length * 0.99)] };
}

async function stop({ child }) {
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGTERM');
  await ended;
}

const count = Number(options.disks);
const kinds = [
  ['one disk', 'one', 1, 1],
  [`${count} disks`, 'many', count, count],
  [`${count} disks, copying`, 'copying', count, 1],
];
const ROUNDS = 5;
const idleMs = Number(options.idle) * 1000;
const served = [];
const found = [];
try {
  for (const [, name, disks, hydrated] of kinds) served.push(await serve(name, disks, hydrated));
  await sleep(3000);
  const before = served.map(({ child }) => processorMs(child));
  await sleep(idleMs);
  const after = served.map(({ child }) => processorMs(child));
  const resident = served.map(({ child }) => residentBytes(child));
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) {
    const times = [];
    for (const { name } of served) times.push(await reads(name));
    rounds.push(times);
  }
  for (const [index, [label]] of kinds.entries()) {
    const [p50, p99] = ['p50', 'p99'].map((which) => median(rounds.map((times) => times[index][which])));
    const processor = (after[index] - before[index]) / idleMs;
    found.push({ resident: resident[index], p99 });
    console.log(
      `${label}: ${(resident[index] / MiB).toFixed(1)} MiB resident, ${(processor * 100).toFixed(2)} % of a ` +
        `processor, reads p50 ${p50.toFixed(0)} µs, p99 ${p99.toFixed(0)} µs`,
    );
  }
} finally {
  await Promise.all(served.map(stop));
  rmSync(folder, { recursive: true, force: true });
}
const [one, many] = found;
const bytesPerDisk = (many.resident - one.resident) / (count - 1);
const p99 = many.p99 / one.p99;
console.log(
  `one more disk: ${Math.round(bytesPerDisk / 1024)} KiB resident; p99 of reads: ${p99.toFixed(2)} × one disk`,
);
if (bytesPerDisk > BARS.bytesPerDisk || p99 > BARS.p99) process.exitCode = 1;
