/**
 * Copies of a qcow2 image as a disk, beside `qemu-img convert` of the same image and our copy of the same disk as a raw
 * image: from a file, and over HTTP with a latency.
 *
 *   node bench/qcow2.mjs [--folder DIR] [--rounds N] [--latency MS] [--json]
 *
 * The disk is an ext4 with the files of DIR (default: /usr/bin), half of it free. Figures are medians of rounds that
 * are interleaved: MB/s of the disk, seconds of the processor for each GiB of it, and requests and MB over HTTP.
 *
 * Needs `npm run build`, curl, e2fsprogs, qemu-utils and qemu-block-extra. There is no bar.
 */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median, slowServer } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    folder: { type: 'string', default: '/usr/bin' },
    rounds: { type: 'string', default: '3' },
    latency: { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});

const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const FORMATS = { 'not compressed': [], zlib: ['-c'], zstd: ['-c', '-o', 'compression_type=zstd'] };

/** Runs a command. Returns its time, and that of the processors, in seconds. */
function run(command, env) {
  const timed = `TIMEFORMAT='%R %U %S'; time { ${command}; }`;
  const { status, stderr } = spawnSync('bash', ['-c', timed], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const [seconds, user, system] = stderr.trim().split('\n').at(-1).split(' ').map(Number);
  if (status !== 0) throw new Error(`${command}: ${stderr}`);
  return { seconds, processor: user + system };
}

/** Starts the server for a file. Returns its URL. */
async function serve(path, children) {
  const child = spawn(process.execPath, [slowServer, path, options.latency], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const port = await new Promise((resolve) => child.stdout.once('data', (line) => resolve(String(line).trim())));
  return `http://127.0.0.1:${port}/disk`;
}

/** By curl: a connection of this process would not survive the time that it is blocked. */
function counts(url) {
  return JSON.parse(execFileSync('curl', ['-s', new URL('/counts', url).href], { encoding: 'utf8' }));
}

const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
const children = [];
try {
  const raw = join(folder, 'disk.raw');
  const target = join(folder, 'copy');
  const kibibytes = Number(execFileSync('du', ['-sk', options.folder], { encoding: 'utf8' }).split('\t')[0]);
  const mebibytes = Math.ceil(kibibytes / 512);
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', options.folder, raw, `${mebibytes}M`], { stdio: 'pipe' });
  const ours = (source) => `node "${cli}" copy --quiet "${source}" "$DST"`;
  const tasks = [];
  for (const [name, more] of [['raw', undefined], ...Object.entries(FORMATS)]) {
    const path = more === undefined ? raw : join(folder, `${name}.qcow2`);
    if (more !== undefined) execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...more, raw, path]);
    const url = await serve(path, children);
    const megabytes = Math.round((statSync(path).blocks * 512) / 1e6);
    const format = more === undefined ? 'raw' : 'qcow2';
    const convert = (source) => `qemu-img convert -f ${format} -O raw "${source}" "$DST"`;
    tasks.push([`${name} (${megabytes} MB), file`, ours(path)]);
    tasks.push([`${name}, file, qemu-img`, convert(path)]);
    tasks.push([`${name}, HTTP`, ours(url), url]);
    if (more !== undefined) tasks.push([`${name}, HTTP, qemu-img`, convert(url), url]);
  }

  const results = new Map(tasks.map(([name]) => [name, []]));
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const [name, command, url] of tasks) {
      rmSync(target, { force: true });
      spawnSync('sync');
      const before = url && counts(url);
      const { seconds, processor } = run(command, { DST: target });
      const after = url && counts(url);
      if (round === 0 && spawnSync('cmp', ['-s', raw, target]).status !== 0) throw new Error(`${name}: other bytes`);
      results.get(name).push({
        seconds,
        processor,
        requests: url && after.requests - before.requests,
        bytes: url && after.bytes - before.bytes,
      });
    }
  }
  const rows = {};
  for (const [name, rounds] of results) {
    const of = (key) => median(rounds.map((one) => one[key]));
    rows[name] = {
      'MB/s': Math.round((mebibytes * 1.048576) / of('seconds')),
      'processor s/GiB': Number(((of('processor') * 1024) / mebibytes).toFixed(2)),
      ...(of('requests') === undefined ? {} : { requests: of('requests'), MB: Math.round(of('bytes') / 1e6) }),
    };
  }
  if (options.json) process.stdout.write(`${JSON.stringify({ mebibytes, rows })}\n`);
  else {
    process.stdout.write(`a disk of ${mebibytes} MiB; load ${readFileSync('/proc/loadavg', 'utf8').split(' ')[0]}\n`);
    console.table(rows);
  }
} finally {
  for (const child of children) child.kill();
  rmSync(folder, { recursive: true, force: true });
}
