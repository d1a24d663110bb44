/**
 * The cost of the fence: a write of 4 KiB and its flush, with and without the check of the lock after the last sync.
 *
 *   node bench/fence.mjs [--flushes N] [--rounds N] [--directory PATH] [--json]
 *
 * Both devices use the same `FileSystem`; the lock of one of them always says that it is still the owner. Rounds are
 * interleaved in one process, and figures are medians. A directory in memory, such as /dev/shm, shows the dearest case,
 * since a sync costs nothing there. Exits with 1 if a flush costs more than 1.1 times as much. Needs `npm run build`
 * first.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bytesSource, openDevice } from '../dist/index.js';
import { nodeFileSystem } from '../dist/node.js';

const { values: options } = parseArgs({
  options: {
    flushes: { type: 'string', default: '200' },
    rounds: { type: 'string', default: '25' },
    directory: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});

const BAR = 1.1;
const SIZE = 2 ** 24;
const folder = mkdtempSync(join(options.directory, 'copyondemand-bench-'));
const fenced = nodeFileSystem(folder);
const unfenced = {
  ...fenced,
  lock: async (name, how) => {
    const lease = await fenced.lock(name, how);
    const member = (key) => {
      const value = Reflect.get(lease, key, lease);
      return typeof value === 'function' ? value.bind(lease) : value;
    };
    return new Proxy(lease, { get: (_, key) => (key === 'check' ? async () => true : member(key)) });
  },
};

const source = bytesSource(new Uint8Array(SIZE), { identity: 'bench' });
const open = (fileSystem, target) => openDevice({ source, fileSystem, target, hydrate: false });
const devices = [await open(fenced, 'fenced'), await open(unfenced, 'unfenced')];
const bytes = new Uint8Array(4096).fill(1);

/** Returns microseconds of a write and its flush. */
async function measure(device) {
  const begun = performance.now();
  for (let flush = 0; flush < Number(options.flushes); flush++) {
    await device.write(bytes, (flush * 4096) % SIZE);
    await device.flush();
  }
  return ((performance.now() - begun) * 1000) / Number(options.flushes);
}

const median = (values) => values.sort((one, other) => one - other)[values.length >> 1];
const figures = [[], []];
try {
  for (const device of devices) await measure(device);
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const index of round % 2 === 0 ? [0, 1] : [1, 0]) figures[index].push(await measure(devices[index]));
  }
} finally {
  for (const device of devices) await device.close();
  rmSync(folder, { recursive: true });
}
const ratio = median(figures[0].map((us, round) => us / figures[1][round]));
const [withFence, without] = figures.map(median);
const times = { withUs: Number(withFence.toFixed(1)), withoutUs: Number(without.toFixed(1)) };
const result = { ...times, ratio: Number(ratio.toFixed(3)) };
if (options.json) console.log(JSON.stringify(result));
else {
  console.log('a write of 4 KiB and its flush, in µs');
  console.log(`with the fence ${result.withUs}, without ${result.withoutUs}: ${result.ratio} times`);
}
if (ratio > BAR) process.exitCode = 1;
