/**
 * A small Linux boots from a compressed qcow2 image, or a raw image, on a web server with a latency: from `serve`, from
 * QEMU's own HTTP driver, and from qemu-nbd.
 *
 *   node bench/boot.mjs [--rounds N] [--latency MS] [--format qcow2|raw] [--compression zlib|zstd] [--json]
 *
 * Seconds from the start of the first program to the kernel's first line on the serial port, and to the line that says
 * that its disk is mounted; requests and MB until then. Medians of rounds that are interleaved.
 *
 * The image is that of examples/v86, with programs of /usr/bin in its disk. Needs `npm run build`, qemu-system-x86,
 * qemu-utils, qemu-block-extra, and what examples/v86/make-image.sh needs. There is no bar.
 */

import { execFileSync, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median, slowServer } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    latency: { type: 'string', default: '20' },
    format: { type: 'string', default: 'qcow2' },
    compression: { type: 'string', default: 'zlib' },
    json: { type: 'boolean', default: false },
  },
});

const { format } = options;

/** What the disk holds beside the kernel. The disk has 64 MiB. */
const FILES_BYTES = 40 * 2 ** 20;
const FIRST_LINE = /Linux version/;
const MOUNTED = /EXT4-fs \(sda1\): mounted/;

const root = fileURLToPath(new URL('..', import.meta.url));
const cli = join(root, 'dist', 'cli', 'main.js');
const children = new Set();

function start(program, args, stderr = 'inherit') {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', stderr] });
  children.add(child);
  child.ended = new Promise((resolve) => child.once('close', resolve)).then(() => children.delete(child));
  return child;
}

async function stop(child) {
  child.kill('SIGKILL');
  await child.ended;
}

/** Resolves when a program has printed `pattern`. */
function printed(child, pattern) {
  return new Promise((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (data) => {
      text += data;
      if (pattern.test(text)) resolve(text);
    });
    child.ended.then(() => reject(new Error(`${child.spawnfile} ended: ${text}`)));
  });
}

/** Makes the image. Returns its path. */
function makeImage(folder) {
  const files = join(folder, 'files');
  mkdirSync(files);
  let bytes = 0;
  for (const { name } of readdirSync('/usr/bin', { withFileTypes: true }).filter((entry) => entry.isFile())) {
    const path = join('/usr/bin', name);
    const { size } = statSync(path);
    if (bytes + size > FILES_BYTES) continue;
    bytes += size;
    copyFileSync(path, join(files, name));
  }
  const script = join(root, 'examples', 'v86', 'make-image.sh');
  execFileSync(script, [folder, files, 'console=ttyS0 loglevel=7'], { cwd: root, stdio: 'pipe' });
  const raw = join(folder, 'linux.img');
  if (format === 'raw') return raw;
  const image = join(folder, 'linux.qcow2');
  const packing = ['-c', '-o', `compression_type=${options.compression}`];
  execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...packing, raw, image]);
  return image;
}

const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
try {
  const image = makeImage(folder);
  const server = start(process.execPath, [slowServer, image, options.latency]);
  const port = (await printed(server, /\n/)).trim();
  const url = `http://127.0.0.1:${port}/disk`;
  const counts = async () => (await fetch(new URL('/counts', url))).json();

  const guest = (drive) => {
    // The processor of the host may not be able to virtualize this kernel, and the same one counts for all.
    const machine = ['-machine', 'accel=tcg', '-m', '256', '-nodefaults', '-display', 'none', '-no-reboot'];
    return start('qemu-system-x86_64', [...machine, '-serial', 'stdio', ...drive], 'ignore');
  };
  const overNbd = (socket) => ['-drive', `file=nbd+unix:///?socket=${socket},format=raw,if=ide`];
  const ours = async (...more) => {
    const socket = join(folder, 'socket');
    const serving = start(process.execPath, [cli, 'serve', url, join(folder, 'disk'), '--socket', socket, ...more]);
    await printed(serving, /listening/);
    return [guest(overNbd(socket)), serving];
  };
  const tasks = {
    'copyondemand serve': () => ours('--quiet'),
    'copyondemand serve --no-hydrate': () => ours('--quiet', '--no-hydrate'),
    'QEMU, HTTP': async () => [guest(['-snapshot', '-drive', `file=${url},format=${format},if=ide`])],
    'qemu-nbd, HTTP': async () => {
      const socket = join(folder, 'socket');
      // It prints nothing, and its socket exists before it listens: it says so by going to the background.
      const pid = join(folder, 'pid');
      execFileSync('qemu-nbd', ['--fork', '--pid-file', pid, '-s', '-f', format, '-k', socket, url], {
        stdio: 'ignore',
      });
      const id = Number(readFileSync(pid, 'utf8'));
      const child = guest(overNbd(socket));
      child.ended.then(() => process.kill(id));
      return [child];
    },
  };

  const results = Object.fromEntries(Object.keys(tasks).map((name) => [name, []]));
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const [name, task] of Object.entries(tasks)) {
      const before = await counts();
      const beganMs = performance.now();
      const programs = await task();
      const seconds = () => (performance.now() - beganMs) / 1000;
      const first = printed(programs[0], FIRST_LINE).then(seconds);
      const mounted = printed(programs[0], MOUNTED).then(seconds);
      const one = { first: await first, mounted: await mounted };
      const after = await counts();
      for (const program of programs) await stop(program);
      for (const name of readdirSync(folder)) if (/^disk|^socket/.test(name)) rmSync(join(folder, name));
      results[name].push({ ...one, requests: after.requests - before.requests, bytes: after.bytes - before.bytes });
    }
  }
  const rows = {};
  for (const [name, rounds] of Object.entries(results)) {
    const of = (key) => median(rounds.map((one) => one[key]));
    rows[name] = {
      'first line (s)': Number(of('first').toFixed(2)),
      'disk mounted (s)': Number(of('mounted').toFixed(2)),
      requests: of('requests'),
      MB: Number((of('bytes') / 1e6).toFixed(1)),
    };
  }
  const megabytes = (statSync(image).size / 1e6).toFixed(1);
  if (options.json) process.stdout.write(`${JSON.stringify({ megabytes, rows })}\n`);
  else {
    process.stdout.write(`an image of ${megabytes} MB; load ${readFileSync('/proc/loadavg', 'utf8').split(' ')[0]}\n`);
    console.table(rows);
  }
} finally {
  await Promise.all([...children].map(stop));
  rmSync(folder, { recursive: true, force: true });
}
