/**
 * The export beside other servers, in one run:
 *
 * - random reads and writes of 4 KiB on a hydrated device
 * - random reads and writes of 1 MiB on a hydrated device, four in flight
 * - those of 4 KiB on a device that is still hydrating
 * - cold reads over HTTP
 *
 *   node bench/nbd.mjs [--size MIB] [--rounds N] [--seconds N] [--latency MS] [--only hot|large|hydrating|cold]
 *     [--beside MAIN_JS] [--busy N] [--json]
 *
 * With --beside, `hot` and `large` alternate with another build of the command. With --busy, N processes run in an
 * endless loop meanwhile.
 * Rounds are interleaved, figures are medians with the least and the greatest round. Processor time is that of the
 * server, in µs for each request; memory is its peak. Exits with 1 if a bar is missed. Skips programs that are not
 * installed, and their bars. Without fio's nbd engine it measures only cold reads. Needs `npm run build` first.
 */

import { spawn, spawnSync } from 'node:child_process';
import { closeSync, copyFileSync, mkdtempSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { have, makeImage, median, slowServer } from './lib/tools.mjs';
import { cpuMicroseconds, peakMiB } from './lib/usage.mjs';

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: '512' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '3' },
    latency: { type: 'string', default: '20' },
    only: { type: 'string' },
    beside: { type: 'string' },
    busy: { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
  },
});

const MiB = 2 ** 20;
const command = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const children = new Set();

/** Starts a server, which ends with the benchmark. */
function start(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  child.once('close', () => children.delete(child));
  child.stderr.resume();
  return child;
}

async function stop(child) {
  child.kill('SIGTERM');
  if (child.exitCode === null && child.signalCode === null)
    await new Promise((resolve) => child.once('close', resolve));
}

/** Resolves to the first match in the process's output. Rejects if the process ends without one. */
function line(child, pattern) {
  return new Promise((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (data) => {
      text += data;
      const found = pattern.exec(text);
      if (found) resolve(found);
    });
    child.once('close', () => reject(new Error(`ended without ${pattern}: ${text}`)));
  });
}

async function webServer(file, latencyMs) {
  const child = start(process.execPath, [slowServer, file, String(latencyMs)]);
  const [, port] = await line(child, /(\d+)\n/);
  return { child, url: `http://127.0.0.1:${port}/disk.raw` };
}

/** Starts our server as a process. Resolves when clients can connect. */
async function serveOurs(source, target, socket, flags = [], main = command) {
  const child = start(process.execPath, [main, 'serve', source, target, '--socket', socket, '--json', ...flags]);
  const hydrated = line(child, /"event":"hydrated"/);
  hydrated.catch(() => undefined);
  await line(child, /"event":"listening"/);
  return { child, hydrated };
}

async function socketThere(path) {
  for (;;) {
    const connected = await new Promise((resolve) => {
      const probe = connect(path);
      probe.once('connect', () => resolve(true));
      probe.once('error', () => resolve(false));
      probe.once('connect', () => probe.destroy());
    });
    if (connected) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Returns the operations per second of fio, with random accesses of `bytes` each. */
function fio(socket, rw, depth, seconds, bytes = 4096) {
  const job = [
    '--name=j',
    '--ioengine=nbd',
    `--uri=nbd+unix:///?socket=${socket}`,
    `--rw=${rw}`,
    `--bs=${bytes}`,
    `--iodepth=${depth}`,
  ];
  const how = [
    '--time_based',
    `--runtime=${seconds}`,
    '--norandommap',
    '--randrepeat=0',
    '--thread=0',
    '--output-format=json',
  ];
  return new Promise((resolve, reject) => {
    const child = spawn('fio', [...job, ...how], { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    child.stdout.on('data', (data) => (text += data));
    child.stderr.resume();
    child.once('close', (status) => {
      if (status !== 0) return reject(new Error(`fio: ${text}`));
      const [found] = JSON.parse(text.slice(text.indexOf('{'))).jobs;
      resolve(found[rw === 'randread' ? 'read' : 'write'].iops);
    });
  });
}

/** An NBD client with one request in flight, for cold reads. */
class Client {
  #socket;
  #received = Buffer.alloc(0);
  #wanted = 0;
  #wake = () => undefined;

  static async open(path) {
    const client = new Client();
    client.#socket = connect(path);
    client.#socket.on('data', (data) => {
      client.#received = client.#received.length === 0 ? data : Buffer.concat([client.#received, data]);
      if (client.#received.length >= client.#wanted) client.#wake();
    });
    client.#socket.on('error', () => undefined);
    await client.#take(18);
    const flags = Buffer.from([0, 0, 0, 3]);
    client.#socket.write(Buffer.concat([flags, Buffer.from('IHAVEOPT'), Buffer.from([0, 0, 0, 1, 0, 0, 0, 0])]));
    await client.#take(10);
    return client;
  }

  async #take(bytes) {
    if (this.#received.length < bytes) {
      this.#wanted = bytes;
      await new Promise((resolve) => (this.#wake = resolve));
    }
    const taken = this.#received.subarray(0, bytes);
    this.#received = this.#received.subarray(bytes);
    return taken;
  }

  async read(offset, length) {
    const request = Buffer.alloc(28);
    request.writeUInt32BE(0x25609513, 0);
    request.writeBigUInt64BE(BigInt(offset), 16);
    request.writeUInt32BE(length, 24);
    this.#socket.write(request);
    const head = await this.#take(16);
    if (head.readUInt32BE(4) !== 0) throw new Error(`the server replied with error ${head.readUInt32BE(4)}`);
    return this.#take(length);
  }

  close() {
    this.#socket.destroy();
  }
}

/** Figures by group and label. */
class Table {
  rows = [];

  add(group, label, value) {
    let row = this.rows.find((each) => each.group === group && each.label === label);
    if (row === undefined) this.rows.push((row = { group, label, values: [] }));
    row.values.push(value);
  }

  median(group, label) {
    const row = this.rows.find((each) => each.group === group && each.label === label);
    return row && median(row.values);
  }
}

async function main() {
  const directory = mkdtempSync(join(tmpdir(), 'cod-bench-nbd-'));
  const ended = () => {
    for (const child of children) child.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  };
  process.once('exit', ended);
  process.once('SIGINT', () => process.exit(130));
  process.once('SIGTERM', () => process.exit(143));
  const image = join(directory, 'image');
  makeImage(image, Number(options.size));
  const table = new Table();
  const bars = [];
  const wants = (name) => options.only === undefined || options.only === name;
  const haveFio = have('fio') && spawnSync('fio', ['--enghelp=nbd'], { encoding: 'utf8' }).stdout.includes('uri');
  for (let count = 0; count < Number(options.busy); count++) start(process.execPath, ['-e', 'for (;;);']);
  if (haveFio && wants('hot')) await hydrated('hot', FORMS.hot, directory, image, table, bars);
  if (haveFio && wants('large')) await hydrated('large', FORMS.large, directory, image, table, bars);
  if (haveFio && wants('hydrating')) await hydrating(directory, image, table, bars);
  if (wants('cold')) await cold(directory, image, table, bars);
  report(table, bars);
  process.exitCode = bars.every(({ met }) => met) ? 0 : 1;
}

const DEPTHS = [1, 8, 32];

/** The lengths of requests on a hydrated device, and how many are in flight. */
const FORMS = { hot: { bytes: 4096, depths: DEPTHS }, large: { bytes: MiB, depths: [4] } };

/** Measures all servers alternately, at each depth. */
async function measure(table, group, servers, rws, { bytes, depths }) {
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const rw of rws) {
      for (const depth of depths) {
        for (const { label, socket, pid } of servers) {
          const before = cpuMicroseconds(pid);
          const rate = await fio(socket, rw, depth, options.seconds, bytes);
          const name = `${group} ${rw} depth ${depth}`;
          table.add(name, label, rate);
          table.add(`${name}, CPU µs`, label, (cpuMicroseconds(pid) - before) / (rate * Number(options.seconds)));
        }
      }
    }
  }
}

function addBars(table, bars, group, rws, peer, factor) {
  for (const rw of rws) {
    for (const depth of DEPTHS) {
      const name = `${group} ${rw} depth ${depth}`;
      const [ours, theirs] = [table.median(name, 'ours'), table.median(name, peer)];
      if (theirs === undefined) continue;
      bars.push({ name: `${name}: at least ${factor} x ${peer}`, value: ours / theirs, met: ours >= factor * theirs });
    }
  }
}

/** Processor time beside nbdkit: the client's share of two processors hides the rate of a server. */
function addCostBars(table, bars, group, rws) {
  for (const rw of rws) {
    const name = `${group} ${rw} depth 4, CPU µs`;
    const theirs = table.median(name, 'nbdkit file');
    if (theirs === undefined) continue;
    const value = table.median(name, 'ours') / theirs;
    bars.push({ name: `${name}: at most 1.2 x nbdkit file`, value, met: value <= 1.2 });
  }
}

async function hydrated(group, form, directory, image, table, bars) {
  const at = (name) => join(directory, `${group}-${name}`);
  const servers = [];
  const peers = [];
  const builds = [['ours', command], ...(options.beside === undefined ? [] : [['beside', options.beside]])];
  for (const [label, main] of builds) {
    const { child, hydrated } = await serveOurs(image, at(label), at(`${label}.sock`), [], main);
    await hydrated;
    servers.push({ label, socket: at(`${label}.sock`), pid: child.pid });
    peers.push(child);
  }
  const peer = async (label, program, args, socket) => {
    if (!have(program)) return;
    const child = start(program, args);
    peers.push(child);
    await socketThere(socket);
    servers.push({ label, socket, pid: child.pid });
  };
  for (const name of ['file', 'qemu']) copyFileSync(image, at(name));
  await peer('nbdkit file', 'nbdkit', ['-f', '-U', at('file.sock'), 'file', at('file')], at('file.sock'));
  const cow = ['--filter=cow', 'file', image, 'cow-on-read=true', 'cow-block-size=4096'];
  await peer('nbdkit cow', 'nbdkit', ['-f', '-U', at('cow.sock'), ...cow], at('cow.sock'));
  await peer(
    'qemu-nbd',
    'qemu-nbd',
    ['-f', 'raw', '-t', '--shared=0', '-k', at('qemu.sock'), at('qemu')],
    at('qemu.sock'),
  );
  const rws = ['randread', 'randwrite'];
  await measure(table, group, servers, rws, form);
  for (const { label, pid } of servers) table.add(`${group} peak memory, MiB`, label, peakMiB(pid));
  if (group === 'hot')
    for (const label of ['nbdkit file', 'nbdkit cow', 'qemu-nbd']) addBars(table, bars, 'hot', rws, label, 1);
  else addCostBars(table, bars, group, rws);
  for (const child of peers) await stop(child);
}

async function hydrating(directory, image, table, bars) {
  const rws = ['randread', 'randwrite'];
  if (!have('nbdkit')) return;
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const rw of rws) {
      for (const depth of DEPTHS) {
        const name = `hydrating ${rw} depth ${depth}`;
        const [target, socket] = [join(directory, 'slow'), join(directory, 'slow.sock')];
        // At this rate the copy takes longer than the measurement.
        const ours = await serveOurs(image, target, socket, ['--rate', '8M']);
        table.add(name, 'ours', await fio(socket, rw, depth, options.seconds));
        await stop(ours.child);
        for (const file of [target, `${target}.bak`, `${target}.bak.1`, `${target}.wil`, `${target}.wil.1`])
          rmSync(file, { force: true });
        const cow = ['--filter=cow', 'file', image, 'cow-on-read=true', 'cow-block-size=4096'];
        const peer = start('nbdkit', ['-f', '-U', join(directory, 'cow.sock'), ...cow]);
        await socketThere(join(directory, 'cow.sock'));
        table.add(name, 'nbdkit cow', await fio(join(directory, 'cow.sock'), rw, depth, options.seconds));
        await stop(peer);
        rmSync(join(directory, 'cow.sock'), { force: true });
      }
    }
  }
  addBars(table, bars, 'hydrating', rws, 'nbdkit cow', 0.9);
}

/** Measures the time from the command's start to the first byte, single cold reads, and a cold sequential run. */
async function cold(directory, image, table, bars) {
  const { size } = statSync(image);
  const content = openSync(image, 'r');
  for (const latencyMs of [0, Number(options.latency)]) {
    const web = await webServer(image, latencyMs);
    for (let round = 0; round < Number(options.rounds); round++) {
      const [target, socket] = [join(directory, `cold-${latencyMs}-${round}`), join(directory, 'cold.sock')];
      const began = performance.now();
      const ours = await serveOurs(web.url, target, socket, ['--no-hydrate']);
      const client = await Client.open(socket);
      await client.read(size - 4096, 4096);
      table.add(`first byte, ms, latency ${latencyMs}`, 'ours', performance.now() - began);
      const expected = Buffer.alloc(4096);
      for (let count = 0; count < 100; count++) {
        const offset = Math.floor(Math.random() * (size / 2 / 4096)) * 4096;
        const asked = performance.now();
        const found = await client.read(offset, 4096);
        table.add(`cold 4 KiB, ms, latency ${latencyMs}`, 'ours', performance.now() - asked);
        readSync(content, expected, 0, 4096, offset);
        if (!found.equals(expected)) throw new Error(`wrong bytes at ${offset}`);
      }
      const runBytes = Math.min(32 * MiB, size / 4);
      const started = performance.now();
      for (let offset = size / 2; offset < size / 2 + runBytes; offset += 65_536) await client.read(offset, 65_536);
      table.add(
        `cold run of 64 KiB, MB/s, latency ${latencyMs}`,
        'ours',
        runBytes / 1e3 / (performance.now() - started),
      );
      client.close();
      await stop(ours.child);
    }
    await stop(web.child);
  }
  closeSync(content);
  const bar = (group, limit, lower) => {
    const value = table.median(group, 'ours');
    bars.push({
      name: `${group}: ${lower ? 'at most' : 'at least'} ${limit}`,
      value,
      met: lower ? value <= limit : value >= limit,
    });
  };
  bar('first byte, ms, latency 0', 200, true);
  bar('cold 4 KiB, ms, latency 0', 0.45, true);
  bar(`cold 4 KiB, ms, latency ${options.latency}`, Number(options.latency) + 1, true);
  bar(`cold run of 64 KiB, MB/s, latency ${options.latency}`, 32, false);
}

function report(table, bars) {
  if (options.json) {
    const figures = table.rows.map(({ group, label, values }) => ({
      ...{ group, label, median: median(values) },
      ...{ least: Math.min(...values), greatest: Math.max(...values) },
    }));
    process.stdout.write(`${JSON.stringify({ figures, bars })}\n`);
    return;
  }
  for (const { group, label, values } of table.rows) {
    const figure = median(values).toFixed(2).padStart(12);
    const spread = `${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}`;
    process.stdout.write(`${group.padEnd(40)} ${label.padEnd(14)} ${figure}  ${spread}\n`);
  }
  for (const { name, value, met } of bars)
    process.stdout.write(`${met ? 'met   ' : 'MISSED'} ${name}: ${value.toFixed(2)}\n`);
}

await main();
