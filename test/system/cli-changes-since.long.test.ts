/** `changes --since` as a process: the chain of incremental backups that it makes, and what it refuses. */

import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { bytesSource, type Device, openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { eventsOf, type Result, runCommand } from '../cli/command.ts';
import { contentsOf, temporaryDirectory } from '../cli/temporary.ts';
import { expectBytes } from '../support/bytes.ts';
import { mustRun } from '../support/programs.ts';
import { describeWith } from '../support/tools.ts';

const BLOCK = 4096;
/** More than one L2 table of the qcow2 images. */
const SIZE = 5 * 2 ** 20 + 512;
const IMAGE = seededRandom(3).fill(new Uint8Array(SIZE));

async function openCopy(directory: string, options: { hydrate?: false } = {}): Promise<Device> {
  const source = bytesSource(IMAGE, { identity: 'the image' });
  const device = await openDevice({ source, fileSystem: nodeFileSystem(directory), target: 'disk', ...options });
  if (options.hydrate === undefined) await device.hydrated;
  return device;
}

function run(directory: string, ...args: string[]): Promise<Result> {
  return runCommand(['changes', ...args], { cwd: directory });
}

/** Takes a snapshot, changes the copy, and takes another one. */
async function twoSnapshots(change: (device: Device) => Promise<void>, options?: { hydrate: false }): Promise<string> {
  const directory = temporaryDirectory();
  const device = await openCopy(directory, options);
  await device.write(new Uint8Array(3 * BLOCK).fill(1), 8 * BLOCK);
  await device.snapshot('one');
  await change(device);
  await device.snapshot('two');
  await device.close();
  return directory;
}

async function change(device: Device): Promise<void> {
  await device.write(new Uint8Array(100).fill(2), 9 * BLOCK + 50);
  // The same bytes again.
  await device.write(new Uint8Array(BLOCK).fill(1), 10 * BLOCK);
  await device.discard(100 * BLOCK, 2 * BLOCK);
  await device.write(new Uint8Array(1), SIZE - 1);
}

const CHANGED = [
  [9 * BLOCK, BLOCK],
  [100 * BLOCK, 2 * BLOCK],
  [SIZE - 512, 512],
];

describe('lists what has changed since a snapshot', () => {
  const lines = CHANGED.map(([offset, length]) => `${offset} ${length}\n`).join('');

  test('and not what was modified before, or written as it was', async () => {
    const directory = await twoSnapshots(change);
    const before = contentsOf(directory);
    const since = await run(directory, 'two', '--since', 'one');
    expect(since).toMatchObject({ exitCode: 0, stdout: lines });
    expect(since.stderr).toBe('two: since one changed 12.5 KiB of 5.00 MiB in 3 extents\n');
    expect(await run(directory, 'disk', '--since', 'one')).toMatchObject({ exitCode: 0, stdout: lines });
    expect(await run(directory, 'two', '--since', 'two.bak.1')).toMatchObject({ exitCode: 1 });
    const none = await run(directory, 'disk', '--since', 'two');
    expect(none).toMatchObject({ exitCode: 0, stdout: '', stderr: 'disk: as two\n' });
    const json = await run(directory, 'two', '--since', 'one', '--json');
    expect(eventsOf(json)).toEqual([
      ...CHANGED.map(([offset, length]) => ({ event: 'changed', offset, length })),
      { event: 'done', target: 'two', size: SIZE, extents: 3, bytes: 3 * BLOCK + 512, since: 'one' },
    ]);
    expect(contentsOf(directory)).toEqual(before);
  });

  test('of a copy in use, and since an image without metadata', async () => {
    const directory = await twoSnapshots(change);
    const device = await openCopy(directory);
    expect(await run(directory, 'disk', '--since', 'one')).toMatchObject({ exitCode: 0, stdout: lines });
    await device.close();
    cpSync(join(directory, 'one'), join(directory, 'restored'));
    expect(await run(directory, 'two', '--since', 'restored')).toMatchObject({ exitCode: 0, stdout: lines });
  });

  test('and what only one of them holds', async () => {
    const directory = await twoSnapshots((device) => device.write(new Uint8Array(5).fill(1), 20 * BLOCK), {
      hydrate: false,
    });
    // Block 20 is not copied, so `two` has a part of it.
    expect(await run(directory, 'two', '--since', 'one')).toMatchObject({ stdout: `${20 * BLOCK} ${BLOCK}\n` });
    // What only the earlier one has is a change, too.
    expect(await run(directory, 'one', '--since', 'two')).toMatchObject({ stdout: `${20 * BLOCK} ${BLOCK}\n` });
    const saved = await run(directory, 'two', '--since', 'one', '--output', 'o.qcow2');
    expect(saved.stderr).toContain('COD_INCOMPLETE: two does not hold all of block 20');
  });
});

describeWith(['qemu-img', 'qemu-nbd', 'nbdcopy'], 'a full backup and three increments', () => {
  test('of a disk under load are the disk each time, for qemu-img, qemu-nbd and nbdcopy', async () => {
    const directory = temporaryDirectory();
    const at = (name: string): string => join(directory, name);
    const device = await openCopy(directory);
    const random = seededRandom(5);
    let isLoaded = true;
    const load = (async () => {
      for (let count = 0; isLoaded; count++) {
        const length = 1 + random.below(3 * BLOCK);
        const offset = random.below(SIZE - length);
        if (random.oneIn(8)) await device.writeZeroes(offset, length);
        else await device.write(random.fill(new Uint8Array(length)), offset);
        if (count % 16 === 0) await new Promise(setImmediate);
      }
    })();
    await device.snapshot('s0');
    cpSync(at('s0'), at('full.raw'));
    const backups = ['full.raw', '1.qcow2', '2.qcow2', '3.qcow2'];
    for (let index = 1; index < backups.length; index++) {
      const writes = device.status().writes;
      while (device.status().writes === writes) await new Promise(setImmediate);
      await device.snapshot(`s${index}`);
      const [backing, output] = [backups[index - 1]!, backups[index]!];
      const args = [`s${index}`, '--since', `s${index - 1}`, '--output', output, '--backing-file', backing];
      const saved = await run(directory, ...args);
      expect(saved).toMatchObject({ exitCode: 0 });
      expect(saved.stdout).not.toBe('');
    }
    isLoaded = false;
    await load;
    await device.close();
    for (const [index, backup] of backups.entries()) {
      const expected = readFileSync(at(`s${index}`));
      const format = backup.endsWith('.raw') ? 'raw' : 'qcow2';
      if (format === 'qcow2') await mustRun('qemu-img', 'check', at(backup));
      await mustRun('qemu-img', 'convert', '-f', format, '-O', 'raw', at(backup), at('restored'));
      expectBytes(readFileSync(at('restored')).subarray(0, SIZE), expected);
      rmSync(at('restored'));
      await mustRun('nbdcopy', '--', '[', 'qemu-nbd', '--read-only', '-f', format, at(backup), ']', at('restored'));
      expectBytes(readFileSync(at('restored')).subarray(0, SIZE), expected);
      rmSync(at('restored'));
    }
    // Merged into the full backup, which no program has changed so far.
    for (const backup of ['3.qcow2', '2.qcow2', '1.qcow2']) await mustRun('qemu-img', 'commit', at(backup));
    expectBytes(readFileSync(at('full.raw')).subarray(0, SIZE), readFileSync(at('s3')));
  });
});

describeWith(['qemu-img'], 'an increment', () => {
  test.each([
    { name: 'with many clusters', blockSize: 4096 },
    { name: 'of a copy with blocks larger than a cluster', blockSize: 2 ** 22 },
  ])('$name is an image without errors', async ({ blockSize }) => {
    const directory = temporaryDirectory();
    // More clusters of 4 KiB than one cluster has counts of references.
    const bytes = seededRandom(9).fill(new Uint8Array(20 * 2 ** 20));
    bytes.fill(0, 12 * 2 ** 20, 16 * 2 ** 20);
    const source = bytesSource(bytes, { identity: 'random' });
    const options = { source, fileSystem: nodeFileSystem(directory), target: 'disk', blockSize };
    const device = await openDevice(options);
    await device.hydrated;
    await device.write(bytes.subarray(0, 1), 0);
    await device.close();
    const base = bytes.slice().fill(7);
    base.set(bytes.subarray(blockSize, 2 * blockSize), blockSize);
    writeFileSync(join(directory, 'base'), base);
    const saved = await run(directory, 'disk', '--since', 'base', '--output', 'o.qcow2');
    expect(saved).toMatchObject({ exitCode: 0 });
    expect(saved.stdout).toBe(`0 ${blockSize}\n${2 * blockSize} ${bytes.length - 2 * blockSize}\n`);
    await mustRun('qemu-img', 'check', join(directory, 'o.qcow2'));
    await mustRun('qemu-img', 'convert', '-O', 'raw', join(directory, 'o.qcow2'), join(directory, 'restored'));
    expectBytes(readFileSync(join(directory, 'restored')), bytes);
    const info = JSON.parse(await mustRun('qemu-img', 'info', '--output=json', join(directory, 'o.qcow2')));
    expect(info).toMatchObject({
      'cluster-size': Math.min(blockSize, 2 ** 21),
      'backing-filename': 'base',
      'backing-filename-format': 'raw',
    });
    expect(info['actual-size']).toBeLessThan(19 * 2 ** 20);
  });
});

describe('refuses, and changes nothing,', () => {
  test.each([
    { name: 'a snapshot that is missing', args: ['--since', 'none'], exitCode: 1, code: 'COD_NOT_FOUND' },
    { name: 'an image of another size', args: ['--since', 'short'], exitCode: 1, code: 'COD_SIZE_MISMATCH' },
    { name: 'a damaged snapshot', args: ['--since', 'damaged'], exitCode: 1, code: 'COD_CORRUPT' },
    { name: 'a snapshot of another copy', args: ['--since', 'other'], exitCode: 1, code: 'COD_SOURCE_CHANGED' },
    { name: 'an output that exists', args: ['--since', 'one', '--output', 'short'], exitCode: 1, code: 'COD_EXISTS' },
    { name: 'an empty path', args: ['--since', ''], exitCode: 2, code: 'UsageError' },
    { name: 'the copy itself', args: ['--since', './two'], exitCode: 2, code: 'UsageError' },
    { name: '--output alone', args: ['--output', 'o'], exitCode: 2, code: 'UsageError' },
    { name: '--backing-file alone', args: ['--since', 'one', '--backing-file', 'b'], exitCode: 2, code: 'UsageError' },
  ])('$name', async ({ args, exitCode, code }) => {
    const directory = await twoSnapshots(change);
    writeFileSync(join(directory, 'short'), 'my notes');
    cpSync(join(directory, 'one'), join(directory, 'damaged'));
    const metadata = readFileSync(join(directory, 'one.bak.1'));
    metadata[42]! ^= 1;
    writeFileSync(join(directory, 'damaged.bak.1'), metadata);
    const source = bytesSource(IMAGE, { identity: 'another image' });
    const device = await openDevice({ source, fileSystem: nodeFileSystem(directory), target: 'other', hydrate: false });
    await device.close();
    const before = contentsOf(directory);
    const result = await run(directory, 'two', ...args, '--json');
    expect(result.exitCode).toBe(exitCode);
    expect(result.stderr).toMatch(/^copyondemand: .+\n$/);
    expect(eventsOf(result).at(-1)).toMatchObject({ event: 'error', code });
    expect(contentsOf(directory)).toEqual(before);
  });

  test('to save a copy in use, and to compare with one', async () => {
    const directory = await twoSnapshots(change);
    const device = await openCopy(directory);
    const saved = await run(directory, 'disk', '--since', 'one', '--output', 'o');
    expect(saved).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('COD_LOCKED') });
    const compared = await run(directory, 'two', '--since', 'disk');
    expect(compared).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('COD_LOCKED') });
    await device.close();
  });

  test('a disk that qcow2 cannot hold', async () => {
    const directory = temporaryDirectory();
    const source = bytesSource(IMAGE.subarray(0, 1000), { identity: 'odd' });
    const device = await openDevice({ source, fileSystem: nodeFileSystem(directory), target: 'disk' });
    await device.hydrated;
    await device.close();
    writeFileSync(join(directory, 'base'), IMAGE.subarray(0, 1000));
    truncateSync(join(directory, 'base'), 1000);
    const result = await run(directory, 'disk', '--since', 'base', '--output', 'o');
    expect(result.stderr).toContain('COD_UNSUPPORTED: a qcow2 image has whole sectors of 512 bytes');
  });
});
