/**
 * Each growth of the core's memory and of the bitmaps' heap fails once, whatever the device does then: the caller gets
 * a code, the device continues or is poisoned, and every acknowledged write is there when it is opened again.
 */

import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { bundleForNode } from '../support/bundle.ts';
import { ACTS, type MemoryOrder, memoryWrite, source, WRITE_BYTES } from '../support/memory-load.ts';

/** An empty device and an empty log need as much. */
const FIRST_BYTES = 2 ** 21;
/** The core's memory grows by at least as much. */
const PAGE_BYTES = 65_536;
const REFUSALS = ['-', 'COD_NO_MEMORY', 'COD_POISONED', 'COD_CLOSED'];

/** Runs the process, checks what it said, and what the copy holds. Returns what was refused. */
async function survives(order: Omit<MemoryOrder, 'directory'>): Promise<string> {
  const program = await bundleForNode('memory-user.ts');
  const directory = temporaryDirectory();
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [program, JSON.stringify({ ...order, directory } satisfies MemoryOrder)],
    { encoding: 'utf8', maxBuffer: 2 ** 26, timeout: 120_000 },
  );
  expect([status, stderr], JSON.stringify(order)).toEqual([0, '']);
  const lines = stdout.trim().split('\n');
  const codes = lines.filter((line) => !line.startsWith('wrote')).map((line) => line.split(' ').at(-1)!);
  expect(codes.length).toBe(4);
  expect(codes.filter((code) => !REFUSALS.includes(code))).toEqual([]);

  const device = await openDevice({ source, fileSystem: nodeFileSystem(directory), target: 'disk', hydrate: false });
  const found = new Uint8Array(WRITE_BYTES);
  let wrong = 0;
  const written = Number(/^wrote (\d+)$/.exec(lines.at(-1)!)![1]);
  for (let index = 0; index < written; index++) {
    const { offset, bytes } = memoryWrite(index);
    await device.read(found, offset);
    if (Buffer.compare(found, bytes) !== 0) wrong++;
  }
  expect(wrong, JSON.stringify(order)).toBe(0);
  await device.close();
  return codes[0]!;
}

describe.each(['heap', 'heap, unforeseen'] as const)('a shortage of the %s', (shortage) => {
  it.each(ACTS)('during %s loses nothing', async (act) => {
    await survives({ shortage, act });
  });

  it('refuses writes with a code', async () => {
    expect(await survives({ shortage, act: 'discard' })).not.toBe('-');
  });
});

it('a shortage of the core loses nothing, at whichever growth it comes', async () => {
  const codes = new Set<string>();
  let bytes = FIRST_BYTES;
  for (let code = ''; code !== '-'; bytes += PAGE_BYTES) {
    code = await survives({ shortage: 'core', act: 'write', coreBytes: bytes });
    codes.add(code);
  }
  console.log(`the core needs ${bytes - PAGE_BYTES} bytes`);
  expect(codes.size).toBeGreaterThan(1);
  expect((bytes - FIRST_BYTES) / PAGE_BYTES).toBeGreaterThan(5);
});
