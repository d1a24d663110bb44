/**
 * The overhead of the device for a writer: writes of 4 KiB beside the same writes to a plain file, with 16 in flight.
 *
 *   node bench/write-path.mjs [--size MIB] [--rounds N] [--json]
 *
 * Rounds are interleaved in one process, and figures are medians. Both sides use the same `FileSystem`, bytes and
 * offsets, in the same random order, and sync outside the measured time. Exits with 1 if a bar is missed. Needs
 * `npm run build` first.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bytesSource, openDevice } from '../dist/index.js';
import { nodeFileSystem } from '../dist/node.js';
import { seededRandom } from '../dist/testing.js';

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '15' },
    json: { type: 'boolean', default: false },
  },
});

const BLOCK = 4096;
const AT_ONCE = 16;
const BAR = 1.5;
const size = Number(options.size) * 2 ** 20;
const rounds = Number(options.rounds);
const random = seededRandom(1);
const bytes = random.fill(new Uint8Array(AT_ONCE * BLOCK));
const pieces = Array.from({ length: AT_ONCE }, (_, index) => bytes.subarray(index * BLOCK, (index + 1) * BLOCK));
const offsets = random.shuffle(Array.from({ length: size / BLOCK }, (_, index) => index * BLOCK));
const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));
const fileSystem = nodeFileSystem(folder);
const source = bytesSource(new Uint8Array(size), { identity: 'bench' });
let files = 0;

async function plainFile() {
  const name = `plain${files++}`;
  const file = await fileSystem.open(name, { create: true });
  await file.truncate(size);
  return {
    write: (from, offset) => file.write(from, offset),
    flush: () => file.sync(),
    close: async () => {
      await file.close();
      rmSync(join(folder, name));
    },
  };
}

async function device() {
  const target = `device${files++}`;
  const opened = await openDevice({ source, fileSystem, target, hydrate: false });
  return {
    write: (from, offset) => opened.write(from, offset),
    flush: () => opened.flush(),
    close: async () => {
      await opened.close();
      for (const suffix of ['', '.bak', '.bak.1', '.wil', '.wil.1'])
        rmSync(join(folder, target + suffix), { force: true });
    },
  };
}

/** Returns the milliseconds for one write of each block, with 16 in flight. */
async function writeAll(target) {
  const start = performance.now();
  for (let at = 0; at < offsets.length; at += AT_ONCE) {
    const batch = [];
    for (let index = 0; index < AT_ONCE; index++) batch.push(target.write(pieces[index], offsets[at + index]));
    await Promise.all(batch);
  }
  return performance.now() - start;
}

const cases = [
  {
    name: 'blocks that the target has',
    // All blocks are written and durable before the measurement, so the device has them.
    prepare: async (make) => {
      const target = await make();
      await writeAll(target);
      await target.flush();
      return target;
    },
    keep: true,
  },
  { name: 'blocks that only the source has', prepare: (make) => make(), keep: false },
];

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

async function run({ name, prepare, keep }) {
  const sides = { plain: plainFile, device };
  const times = { plain: [], device: [] };
  const kept = {};
  for (let round = -1; round < rounds; round++) {
    // The sides alternate in going first. The first round is a warm-up.
    const order = round % 2 === 0 ? ['plain', 'device'] : ['device', 'plain'];
    for (const side of order) {
      kept[side] ??= await prepare(sides[side]);
      const ms = await writeAll(kept[side]);
      if (round >= 0) times[side].push(ms);
      await kept[side].flush();
      if (keep) continue;
      await kept[side].close();
      kept[side] = undefined;
    }
  }
  for (const side of Object.values(kept)) await side?.close();
  const perWrite = (side) => (median(times[side]) * 1000) / offsets.length;
  const ratio = median(times.device.map((ms, index) => ms / times.plain[index]));
  return {
    name,
    plainMicroseconds: perWrite('plain'),
    deviceMicroseconds: perWrite('device'),
    ratio,
    bar: BAR,
    met: ratio <= BAR,
  };
}

try {
  const results = [];
  for (const one of cases) results.push(await run(one));
  if (options.json) console.log(JSON.stringify({ sizeMiB: Number(options.size), rounds, results }));
  else {
    console.log(
      `writes of 4 KiB, ${AT_ONCE} at once, to ${options.size} MiB in random order, medians of ${rounds} rounds`,
    );
    for (const { name, plainMicroseconds, deviceMicroseconds, ratio, met } of results) {
      const figures = `plain ${plainMicroseconds.toFixed(1)} µs, device ${deviceMicroseconds.toFixed(1)} µs a write`;
      console.log(`  ${name}: ${figures}, ${ratio.toFixed(2)} × (bar: ${BAR})${met ? '' : ' MISSED'}`);
    }
  }
  if (results.some(({ met }) => !met)) process.exitCode = 1;
} finally {
  await source.close();
  rmSync(folder, { recursive: true, force: true });
}
