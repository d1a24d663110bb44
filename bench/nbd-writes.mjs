/**
 * Writes over NBD by kind, to blocks that only the source has: whole blocks, sectors of 512 bytes, and whole blocks
 * with FUA.
 *
 *   node bench/nbd-writes.mjs [--beside MAIN_JS] [--depth N] [--writes N] [--rounds N] [--json]
 *
 * Figures are medians of the rounds: writes per second, and processor time of the server per write. With --beside,
 * rounds alternate with another build of the command, and the output includes ratios to it. Needs `npm run build`
 * first, and Linux.
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    beside: { type: 'string' },
    depth: { type: 'string', default: '16' },
    writes: { type: 'string', default: '16000' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
});

const BLOCK = 4096;
/** A clock tick of /proc, in seconds. */
const TICK = 0.01;
const depth = Number(options.depth);
const writes = Number(options.writes);
const KINDS = [
  { name: 'blocks', bytes: BLOCK, fua: false, count: writes },
  { name: '512 bytes', bytes: 512, fua: false, count: writes },
  { name: 'blocks with FUA', bytes: BLOCK, fua: true, count: Math.ceil(writes / 8) },
];

const builds = [
  { name: 'this build', main: fileURLToPath(new URL('../dist/cli/main.js', import.meta.url)) },
  ...(options.beside === undefined ? [] : [{ name: 'beside', main: options.beside }]),
];

const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
const source = join(folder, 'source.raw');
const size = writes * BLOCK;
writeFileSync(source, '');
truncateSync(source, size);

/** Connects, and negotiates the export with the empty name. */
function open(path) {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let received = Buffer.alloc(0);
    socket.on('error', reject);
    const onData = (data) => {
      received = Buffer.concat([received, data]);
      if (received.length === 18) {
        const name = [0, 0, 0, 3, ...Buffer.from('IHAVEOPT'), 0, 0, 0, 1, 0, 0, 0, 0];
        socket.write(Buffer.from(name));
      }
      if (received.length >= 28) {
        socket.off('data', onData);
        resolve(socket);
      }
    };
    socket.on('data', onData);
  });
}

function request({ bytes, fua }, cookie, offset) {
  const header = Buffer.alloc(28);
  header.writeUInt32BE(0x25609513, 0);
  header.writeUInt16BE(fua ? 1 : 0, 4);
  header.writeUInt16BE(1, 6);
  header.writeUInt32BE(cookie, 12);
  header.writeUInt32BE(Math.floor(offset / 2 ** 32), 16);
  header.writeUInt32BE(offset % 2 ** 32, 20);
  header.writeUInt32BE(bytes, 24);
  return Buffer.concat([header, Buffer.alloc(bytes, 7)]);
}

/** Sends all writes, with `depth` in flight. */
function writeAll(socket, kind, offsets) {
  return new Promise((resolve, reject) => {
    let next = 0;
    let answered = 0;
    let rest = Buffer.alloc(0);
    const send = (count) => {
      const wanted = offsets.slice(next, next + count).map((offset, index) => request(kind, next + index, offset));
      next += wanted.length;
      if (wanted.length > 0) socket.write(Buffer.concat(wanted));
    };
    socket.on('data', (data) => {
      rest = rest.length === 0 ? data : Buffer.concat([rest, data]);
      const replies = Math.floor(rest.length / 16);
      for (let index = 0; index < replies; index++) {
        if (rest.readUInt32BE(index * 16 + 4) !== 0) reject(new Error('a write failed'));
      }
      rest = rest.subarray(replies * 16);
      answered += replies;
      if (answered === offsets.length) resolve();
      else send(replies);
    });
    send(depth);
  });
}

/** Returns the processor time of a process so far, in seconds. */
function cpuOf(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK;
}

function shuffled(count) {
  const offsets = Array.from({ length: count }, (_, index) => index * BLOCK + 1024);
  for (let index = count - 1, state = 1; index > 0; index--) {
    state = (state * 48_271) % 2_147_483_647;
    const other = state % (index + 1);
    [offsets[index], offsets[other]] = [offsets[other], offsets[index]];
  }
  return offsets;
}

async function measure({ main }, kind, round) {
  const target = join(folder, `target-${round}`);
  const path = join(folder, 'socket');
  const args = [main, 'serve', source, target, '--socket', path, '--no-hydrate'];
  const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await new Promise((resolve) => server.stdout.once('data', resolve));
    const socket = await open(path);
    const offsets = shuffled(kind.count).map((offset) => (kind.bytes === BLOCK ? offset - 1024 : offset));
    const [before, started] = [cpuOf(server.pid), performance.now()];
    await writeAll(socket, kind, offsets);
    const seconds = (performance.now() - started) / 1000;
    const micros = ((cpuOf(server.pid) - before) * 1e6) / kind.count;
    socket.destroy();
    return { perSecond: kind.count / seconds, micros };
  } finally {
    server.kill('SIGTERM');
    await new Promise((resolve) => server.once('close', resolve));
    for (const suffix of ['', '.bak', '.bak.1', '.wil', '.wil.1']) rmSync(target + suffix, { force: true });
  }
}

const results = [];
try {
  for (const kind of KINDS) {
    const found = builds.map(() => []);
    for (let round = 0; round < Number(options.rounds); round++) {
      for (const [index, build] of builds.entries()) found[index].push(await measure(build, kind, `${index}-${round}`));
    }
    const figures = found.map((rounds) => ({
      perSecond: median(rounds.map(({ perSecond }) => perSecond)),
      micros: median(rounds.map(({ micros }) => micros)),
    }));
    results.push({ kind: kind.name, builds: builds.map(({ name }, index) => ({ name, ...figures[index] })) });
    if (options.json) continue;
    for (const [index, { name }] of builds.entries()) {
      const { perSecond, micros } = figures[index];
      const ratio = index === 0 ? '' : `; this build: ${(figures[0].perSecond / perSecond).toFixed(2)} ×`;
      console.log(
        `${kind.name}, ${name}: ${Math.round(perSecond)} a second, ${micros.toFixed(1)} µs of processor time${ratio}`,
      );
    }
  }
  if (options.json) console.log(JSON.stringify(results));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
