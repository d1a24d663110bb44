/**
 * How long a checkpoint and an open hold the event loop with a large map: every second block of a part of the device is
 * synced, or as many blocks are dirty as the map allows.
 *
 *   node bench/checkpoint-stall.mjs [--size TIB] [--synced TIB] [--dirty BLOCKS] [--within TIB] [--rounds N]
 *
 * The dirty blocks are spread over the first part of the device, and `--within 0.015` puts them side by side. The map
 * comes from a checkpoint of format 1, so that it need not be written block by block. The target keeps nothing.
 * Exits with 1 if the event loop was held for longer than the bar. Needs `npm run build` first.
 */

import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openDevice } from '../dist/index.js';
import { measured } from './lib/event-loop.mjs';
import { withoutTarget, zeros } from './lib/no-target.mjs';
import { median } from './lib/tools.mjs';

const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: '16' },
    synced: { type: 'string', default: '8' },
    dirty: { type: 'string', default: '0' },
    within: { type: 'string' },
    rounds: { type: 'string', default: '5' },
  },
});

/** Longest time for which the event loop may be held, in ms. */
const BAR_MS = 10;
const TIB = 2 ** 40;
const BLOCK = 4096;
const CONTAINER_BLOCKS = 65_536;
const BITSET_BYTES = 8192;
/** Bytes of a dirty part in a checkpoint of format 1. */
const PART_BYTES = 32;
const size = Number(options.size) * TIB;
const dirtyBlocks = Number(options.dirty);
/** Blocks from one dirty block to the next. An odd block, since the even ones are synced. */
const dirtyStep = Math.max(2, Math.floor((Number(options.within ?? options.size) * TIB) / BLOCK / dirtyBlocks / 2) * 2);
const folder = mkdtempSync(join(tmpdir(), 'copyondemand-bench-'));

/** Writes a checkpoint of format 1: every second block of the first `bytes` is synced, and some others are dirty. */
function writeFormat1(name, bytes) {
  const file = openSync(name, 'w');
  const shardContainers = 65_536;
  const begin = Buffer.alloc(16);
  begin.write('COD BAK\0', 'latin1');
  begin.writeUInt32LE(1, 8);
  writeSync(file, begin);
  for (let left = Math.ceil(bytes / BLOCK / CONTAINER_BLOCKS); left > 0; left -= shardContainers) {
    const containers = Math.min(left, shardContainers);
    const head = Buffer.alloc(8 + 8 + containers * 8);
    head.writeBigUInt64LE(BigInt(8 + containers * 8 + containers * BITSET_BYTES), 0);
    head.writeUInt32LE(12_346, 8);
    head.writeUInt32LE(containers, 12);
    for (let i = 0; i < containers; i++) {
      head.writeUInt16LE(i, 16 + i * 4);
      head.writeUInt16LE(CONTAINER_BLOCKS / 2 - 1, 18 + i * 4);
      head.writeUInt32LE(8 + containers * 8 + i * BITSET_BYTES, 16 + containers * 4 + i * 4);
    }
    writeSync(file, head);
    const bodies = Buffer.alloc(256 * BITSET_BYTES, 0x55);
    for (let i = 0; i < containers; i += 256) writeSync(file, bodies, 0, Math.min(256, containers - i) * BITSET_BYTES);
  }
  writeSync(file, Buffer.alloc(8));
  const parts = Buffer.alloc(2 ** 16 * PART_BYTES);
  for (let done = 0; done < dirtyBlocks; done += 2 ** 16) {
    const count = Math.min(dirtyBlocks - done, 2 ** 16);
    for (let i = 0; i < count; i++) {
      parts.writeBigUInt64LE(1n, i * PART_BYTES);
      parts.writeBigUInt64LE(BigInt((done + i) * dirtyStep + 1), i * PART_BYTES + 8);
      parts.writeBigUInt64LE(512n, i * PART_BYTES + 16);
      parts.writeBigUInt64LE(1024n, i * PART_BYTES + 24);
    }
    writeSync(file, parts, 0, count * PART_BYTES);
  }
  writeSync(file, Buffer.alloc(8));
  closeSync(file);
}

let device;
const open = async () => {
  device = await openDevice({
    ...{ source: zeros(size), fileSystem: withoutTarget(folder, 'disk', size), target: 'disk' },
    ...{ hydrate: false, checkpointIntervalMs: 1e9 },
  });
};

/** Prints the medians of a step, and returns the time for which the event loop was held. */
function report(name, results) {
  const held = median(results.map((result) => result.held));
  const ms = median(results.map((result) => result.ms));
  console.log(`${name}: ${ms.toFixed(1)} ms, event loop held ${held.toFixed(1)} ms${held > BAR_MS ? ' MISSED' : ''}`);
  return held;
}

try {
  writeFormat1(join(folder, 'disk.bak'), Number(options.synced) * TIB);
  console.log(
    `${options.size} TiB, every second block of ${options.synced} TiB is synced, ` +
      `${dirtyBlocks} of the others are dirty; bar: ${BAR_MS} ms`,
  );
  report('conversion of format 1 (no bar)', [await measured(open)]);
  await device.write(new Uint8Array(BLOCK).fill(1), BLOCK);
  const held = [report('checkpoint of the whole map', [await measured(() => device.checkpoint())])];
  const checkpoints = [];
  const flushes = [];
  for (let round = 0; round < Number(options.rounds); round++) {
    await device.write(new Uint8Array(BLOCK).fill(1), (2 * round + 3) * BLOCK);
    flushes.push(await measured(() => device.flush()));
    await device.write(new Uint8Array(BLOCK).fill(1), (2 * round + 1003) * BLOCK);
    checkpoints.push(await measured(() => device.checkpoint()));
  }
  held.push(report('flush', flushes), report('checkpoint of one changed block', checkpoints));
  const left = device.status().dirtyBlocks;
  if (left < dirtyBlocks - 3 * Number(options.rounds)) throw new Error(`only ${left} blocks are dirty`);
  if (dirtyBlocks > 0) {
    // Blocks that were not written above.
    const partial = [];
    const counts = [];
    for (let round = 0; round < Number(options.rounds); round++) {
      await device.write(new Uint8Array(10).fill(1), BLOCK * (1 + dirtyStep * (5000 + round)) + 2048);
      partial.push(await measured(() => device.checkpoint()));
      const parts = [1, 100, 1000, 4096, 10_000][round % 5];
      if (options.synced === '0')
        counts.push(await measured(async () => void device.countBlocks(0, size / BLOCK, parts)));
    }
    held.push(report('checkpoint of a changed dirty block', partial));
    if (counts.length > 0) {
      held.push(Math.max(...counts.map((count) => count.held)));
      console.log(
        `countBlocks of 1, 100, 1000, 4096, 10000 parts: ${counts.map(({ ms }) => ms.toFixed(1)).join(', ')} ms`,
      );
    }
    held.push(report('status', [await measured(async () => void device.status())]));
  }
  held.push(report('close', [await measured(() => device.close())]));
  held.push(report('open', [await measured(open)]));
  await device.close();
  console.log(`memory: ${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB`);
  if (held.some((ms) => ms > BAR_MS)) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
