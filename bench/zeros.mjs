/**
 * What zeros cost, beside other programs in one run: a sparse file, an empty NBD export with a latency, and trimming of
 * what was never written.
 *
 *   node bench/zeros.mjs [--rounds N] [--size GIB] [--nbd GIB] [--only file|nbd|trim] [--json]
 *
 * Seconds from a command's start to its exit, with a sync of the copies of others, whose programs do not sync. Medians
 * of interleaved rounds. Exits with 1 if a bar is missed. Skips programs that are not installed, and their bars. Needs
 * `npm run build` first.
 */

import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openDevice } from '../dist/index.js';
import { nodeFileSystem } from '../dist/node.js';
import { zeros } from './lib/no-target.mjs';
import { have, median } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    size: { type: 'string', default: '20' },
    nbd: { type: 'string', default: '256' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const DATA_BYTES = 256 * MIB;
const LATENCY_MS = 20;
const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const rounds = Number(options.rounds);
/** The start of our process and of Node, which the bar for files leaves out. */
const startSeconds = () => seconds(`node "${cli}" --version`);

function seconds(command) {
  const start = process.hrtime.bigint();
  const { status, stderr } = spawnSync('bash', ['-c', command], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (status !== 0) throw new Error(`${command}: exit ${status}: ${stderr}`);
  return Number(process.hrtime.bigint() - start) / 1e9;
}

function makeSparse(path, size) {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, size);
  const piece = Buffer.alloc(MIB, 7);
  const pieces = DATA_BYTES / MIB;
  for (let index = 0; index < pieces; index++)
    writeSync(fd, piece, 0, MIB, Math.floor((size / pieces / MIB) * index) * MIB);
  closeSync(fd);
}

/** Runs the commands of each program alternately, and returns the medians. */
function compare(folder, commands) {
  const times = {};
  const present = Object.entries(commands).filter(([, { program }]) => program === undefined || have(program));
  for (let round = 0; round < rounds; round++) {
    for (const [name, { command }] of present) {
      for (const left of readdirSync(folder)) if (left.startsWith('copy')) rmSync(join(folder, left), { force: true });
      (times[name] ??= []).push(seconds(command));
    }
  }
  return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]));
}

/** Trims 1 GiB at a time on a new copy and on one that was opened again. Returns the times for all of them, in ms. */
async function trim(folder) {
  const size = Number(options.size) * GIB;
  const open = () =>
    openDevice({ source: zeros(size), fileSystem: nodeFileSystem(folder), target: 'copy', hydrate: false });
  const times = {};
  for (const [name, first] of [
    ['new', 0],
    ['opened again', size / 2],
  ]) {
    const device = await open();
    const start = performance.now();
    for (let at = first; at < first + size / 2; at += GIB) await device.discard(at, GIB);
    times[name] = performance.now() - start;
    await device.close();
  }
  return times;
}

const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
const results = {};
const missed = [];
const bar = (name, value, most) => {
  if (value > most) missed.push(`${name}: ${value.toFixed(2)}, at most ${most}`);
};
const wants = (name) => options.only === undefined || options.only === name;
try {
  const target = join(folder, 'copy');
  const ours = (source) => `node "${cli}" copy --quiet "${source}" "${target}"`;
  if (wants('file')) {
    const image = join(folder, 'image');
    makeSparse(image, Number(options.size) * GIB);
    const start = median(Array.from({ length: 5 }, startSeconds));
    const found = compare(folder, {
      ours: { command: ours(image) },
      'cp, sync': { command: `cp --reflink=never "${image}" "${target}" && sync "${target}"` },
      'qemu-img, sync': {
        command: `qemu-img convert -O raw -f raw "${image}" "${target}" && sync "${target}"`,
        program: 'qemu-img',
      },
      'a direct read': { command: `dd if="${image}" of=/dev/null bs=2M iflag=direct status=none` },
    });
    results[`sparse file of ${options.size} GiB, s`] = { ...found, 'start of the process': start };
    bar(
      'sparse file / (cp with sync + a direct read)',
      (found.ours - start) / (found['cp, sync'] + found['a direct read']),
      1.5,
    );
    rmSync(image);
  }
  if (wants('nbd') && have('nbdkit')) {
    const delay = `delay-read=${LATENCY_MS}ms delay-extents=${LATENCY_MS}ms`;
    const exported = (command) => `nbdkit -U - --filter=delay memory ${options.nbd}G ${delay} --run '${command}'`;
    const nbdcopy = `nbdcopy --destination-is-zero "$uri" "${target}"`;
    const found = compare(folder, {
      ours: { command: exported(`node "${cli}" copy --quiet "$uri" "${target}"`) },
      'qemu-img': { command: exported(`qemu-img convert -f raw -O raw "$uri" "${target}"`), program: 'qemu-img' },
      nbdcopy: {
        command: `truncate -s ${options.nbd}G "${target}"; ${exported(nbdcopy)}`,
        program: 'nbdcopy',
      },
    });
    results[`empty NBD export of ${options.nbd} GiB at ${LATENCY_MS} ms, s`] = found;
    bar('empty NBD export, s', found.ours, 3);
  }
  if (wants('trim')) {
    for (const left of readdirSync(folder)) rmSync(join(folder, left), { force: true });
    const found = await trim(folder);
    results[`trim of ${Number(options.size) / 2} GiB never written, ms`] = found;
    bar('trim on a new copy, ms', found.new, 10);
    bar('trim on a copy that was opened again, ms', found['opened again'], 10);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (options.json) process.stdout.write(`${JSON.stringify({ results, missed })}\n`);
else {
  for (const [group, figures] of Object.entries(results)) {
    console.log(`${group}:`);
    for (const [name, value] of Object.entries(figures)) console.log(`  ${name.padEnd(28)} ${value.toFixed(2)}`);
  }
  for (const each of missed) console.log(`MISSED ${each}`);
}
process.exitCode = missed.length > 0 ? 1 : 0;
