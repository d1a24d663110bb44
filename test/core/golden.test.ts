import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BlockMap } from '../../src/core/block-map.ts';
import { DirtyMap } from '../../src/core/dirty-map.ts';
import { addFormat1Bitmap } from '../../src/core/format1-bitmaps.ts';
import { Format1Replay } from '../../src/core/format1-replay.ts';
import { bytesOfBlock, geometry } from '../../src/core/geometry.ts';
import { builds } from './builds.ts';
import { merge } from './models.ts';

const folder = new URL('../fixtures/golden/', import.meta.url);
const states = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name);

interface Expected {
  deviceSize: number;
  totalBlocks: number;
  syncedBlocks: number;
  synced: [number, number][];
  dirty: { block: number; ranges: [number, number][] }[];
}

/** Reads a checkpoint of format 1 like the log module. */
function loadCheckpoint(bytes: Uint8Array, map: BlockMap, dirty: DirtyMap, shape: ReturnType<typeof geometry>): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 16;
  const next = (): number => Number(view.getBigUint64((at += 8) - 8, true));
  for (let index = 0, length = next(); length > 0; length = next(), index++) {
    addFormat1Bitmap(map, shape, index, bytes.subarray(at, at + length));
    at += length;
  }
  for (let type = next(); type === 1; type = next()) {
    const [block, offset, length] = [next(), next(), next()];
    if (block >= shape.blockCount || map.has(block)) continue;
    dirty.add(block, offset, Math.min(offset + length, bytesOfBlock(shape, block)));
  }
}

describe.each(builds)('the $name core', ({ create }) => {
  it.each(states)('reads the golden state %s of format 1', async (state) => {
    const file = (name: string): Uint8Array | undefined => {
      const url = new URL(`${state}/disk.raw.${name}`, folder);
      return existsSync(url) ? new Uint8Array(readFileSync(url)) : undefined;
    };
    const expected = JSON.parse(readFileSync(new URL(`${state}/expected.json`, folder), 'utf8')) as Expected;
    const core = create();
    const shape = geometry({ size: expected.deviceSize, blockSize: 4096 });
    const map = await BlockMap.open(shape);
    const dirty = new DirtyMap(core, shape);
    const checkpoint = file('bak.1') ?? file('bak');
    if (checkpoint) loadCheckpoint(checkpoint, map, dirty, shape);
    const replay = new Format1Replay(core, shape);
    for (const log of [file('wil.1'), file('wil')]) {
      if (!log) continue;
      for (let at = 16; at < log.length; at += 10_007) replay.format1(log.subarray(at, at + 10_007));
      replay.endFormat1();
    }
    merge(replay, map, dirty);
    expect(map.count).toBe(expected.syncedBlocks);
    expect([...map.runs()].map(([start, end]) => [start, end - 1])).toEqual(expected.synced);
    expect(
      [...dirty.blocks()].map((block) => ({
        block,
        ranges: dirty.parts(block).map(([start, end]) => [start, end - start]),
      })),
    ).toEqual(expected.dirty);
    map.dispose();
  });
});
