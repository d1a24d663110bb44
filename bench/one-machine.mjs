/**
 * Many disks of one image on one machine: each from the source, each from a local copy, and as clones of one copy.
 *
 *   node bench/one-machine.mjs [--disks N] [--size MIB] [--latency MS] [--directory PATH] [--json]
 *
 * Prints seconds until all disks are complete, images that the source has sent, and images of space that the volume
 * has lost. A directory on xfs or btrfs shows clones; elsewhere snapshots are copies. There is no bar.
 * Needs `npm run build` first.
 */

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { makeImage, slowServer } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    disks: { type: 'string', default: '10' },
    size: { type: 'string', default: '128' },
    latency: { type: 'string', default: '20' },
    directory: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});

const disks = Number(options.disks);
const imageBytes = Number(options.size) * 2 ** 20;
const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const folder = mkdtempSync(join(options.directory, 'copyondemand-bench-'));
const image = join(mkdtempSync(join(tmpdir(), 'copyondemand-bench-')), 'image');
const children = new Set();

function start(args) {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  child.ended = new Promise((resolve) => child.once('close', resolve)).then((code) => {
    children.delete(child);
    return code;
  });
  return child;
}

async function command(...args) {
  const child = start([cli, ...args]);
  child.stdout.resume();
  const code = await child.ended;
  if (code !== 0) throw new Error(`copyondemand ${args.join(' ')}: exit code ${code}`);
}

/** Serves disks from one process until all of them are complete. */
async function serve(list) {
  const config = join(folder, 'disks.json');
  writeFileSync(config, JSON.stringify({ socket: join(folder, 'socket'), disks: list }));
  const child = start([cli, 'serve', '--config', config, '--json']);
  let complete = 0;
  await new Promise((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      if (JSON.parse(line).event === 'hydrated' && ++complete === list.length) resolve();
    });
    child.ended.then(() => reject(new Error('serve has ended')));
  });
  return child;
}

async function stop(child) {
  child.kill('SIGTERM');
  await child.ended;
}

const names = Array.from({ length: disks }, (_, index) => `disk${index}`);

/** Each makes all disks in `at`, from `url`. */
const ways = {
  'each from the source, one process': async (url, at) => {
    await stop(await serve(names.map((name) => ({ name, source: url, target: join(at, name) }))));
  },
  'one from the source, the others from its file': async (url, at) => {
    const first = join(at, names[0]);
    await command('copy', url, first, '--quiet');
    if (disks > 1)
      await stop(await serve(names.slice(1).map((name) => ({ name, source: first, target: join(at, name) }))));
  },
  'one from the source, the others its snapshots': async (url, at) => {
    const first = join(at, names[0]);
    const child = await serve([{ name: 'first', source: url, target: first }]);
    for (const name of names.slice(1)) await command('snapshot', first, join(at, name), '--json');
    await stop(child);
  },
};

const freeBytes = () => {
  const { bfree, bsize } = statfsSync(folder);
  return bfree * bsize;
};

try {
  makeImage(image, Number(options.size));
  const server = start([slowServer, image, options.latency]);
  const port = await new Promise((resolve) => createInterface(server.stdout).once('line', resolve));
  const url = `http://127.0.0.1:${port}/disk`;
  const counts = async () => (await fetch(new URL('/counts', url))).json();
  const rows = {};
  for (const [name, way] of Object.entries(ways)) {
    const at = join(folder, 'disks');
    mkdirSync(at);
    const [before, free, beganMs] = [await counts(), freeBytes(), performance.now()];
    await way(url, at);
    const seconds = (performance.now() - beganMs) / 1000;
    const after = await counts();
    rows[name] = {
      seconds: Number(seconds.toFixed(1)),
      'sent (images)': Number(((after.bytes - before.bytes) / imageBytes).toFixed(2)),
      'space (images)': Number(((free - freeBytes()) / imageBytes).toFixed(2)),
    };
    rmSync(at, { recursive: true });
  }
  if (options.json) process.stdout.write(`${JSON.stringify(rows)}\n`);
  else {
    const load = readFileSync('/proc/loadavg', 'utf8').split(' ')[0];
    process.stdout.write(`${disks} disks of ${options.size} MiB; load ${load}\n`);
    console.table(rows);
  }
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
  rmSync(join(image, '..'), { recursive: true, force: true });
}
