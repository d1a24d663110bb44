/**
 * The core against its bars (docs/BENCHMARKS.md): ratios within one run, of interleaved rounds.
 *
 * Figures are medians. Checkpoints have bars in milliseconds, so their figures are lower quartiles. Prints a table, or
 * one JSON object with `--json`. Exits with 1 if a bar is missed.
 *
 * - Replay is end to end: from the log's bytes in JavaScript's memory to a block map and a dirty map.
 * - The plain port reads the same log with a DataView into roaring-wasm and a Map.
 * - A resident core has replayed before. A new core is instantiated each time.
 */
import { statSync } from 'node:fs';
import { RoaringBitmap32, roaringLibraryInitialize } from 'roaring-wasm/browser';
import { BlockMap } from '../src/core/block-map.ts';
import { Format1Replay } from '../src/core/format1-replay.ts';
import { type Geometry, geometry, sliceCount } from '../src/core/geometry.ts';
import { GrowingBuffer } from '../src/core/growing-buffer.ts';
import { LogScan, Replay } from '../src/core/replay.ts';
import { Core } from '../src/wasm/core.ts';
import { format1, format2, histories, maps, RECORDS, replayFormat1, replayFormat2 } from './lib/core-cases.ts';

await roaringLibraryInitialize();
const json = process.argv.includes('--json');
const roundsAt = process.argv.indexOf('--rounds');
const rounds = roundsAt > 0 ? Number(process.argv[roundsAt + 1]) : 15;
const wasmFile = 'build/release/core.wasm';

/** Only reads the log, the part that depends on the format. Merging into the maps is the same for both formats. */
function readFormat1(core: Core, shape: Geometry, log: Uint8Array): void {
  const replay = new Format1Replay(core, shape);
  replay.format1(log);
  replay.dispose();
}

function readFormat2(core: Core, shape: Geometry, log: { body: Uint8Array; used: number }): void {
  const scan = new LogScan(core, shape, { epoch: 1 });
  scan.feed(log.body);
  const { endOffset } = scan.finish();
  const replay = new Replay(core, shape);
  replay.format2(log.body, endOffset - 512);
  replay.dispose();
}

/** The plain port: a straightforward version in TypeScript. */
function replayPlainly(log: Uint8Array): number {
  const view = new DataView(log.buffer, log.byteOffset, log.byteLength);
  const word = (at: number): number => view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
  const synced = new RoaringBitmap32();
  const dirty = new Map<number, [number, number][]>();
  for (let at = 0; at < log.length; ) {
    const block = word(at + 8);
    if (word(at) === 1) {
      synced.add(block);
      if (dirty.size > 0) dirty.delete(block);
      at += 16;
    } else {
      if (!synced.has(block)) {
        const part: [number, number] = [word(at + 16), word(at + 16) + word(at + 24)];
        const parts = dirty.get(block);
        if (parts) parts.push(part);
        else dirty.set(block, [part]);
      }
      at += 32;
    }
  }
  const count = synced.size + dirty.size;
  synced.dispose();
  return count;
}

interface Bar {
  readonly name: string;
  readonly value: number;
  readonly atMost?: number;
  readonly atLeast?: number;
}

const bars: Bar[] = [];
const table: Record<string, string | number>[] = [];

/** Returns the milliseconds of each task, a quantile over interleaved rounds. */
async function measure(
  tasks: Record<string, () => unknown>,
  times = rounds,
  quantile = 0.5,
): Promise<Record<string, number>> {
  const found: Record<string, number[]> = {};
  for (let round = -2; round < times; round++) {
    for (const [name, task] of Object.entries(tasks)) {
      const start = process.hrtime.bigint();
      await task();
      const elapsed = Number(process.hrtime.bigint() - start) / 1e6;
      if (round >= 0) (found[name] ??= []).push(elapsed);
    }
  }
  return Object.fromEntries(
    Object.entries(found).map(([name, list]) => [
      name,
      list.sort((a, b) => a - b)[Math.floor(list.length * quantile)]!,
    ]),
  );
}

async function benchReplay(): Promise<void> {
  for (const history of histories) {
    const shape = geometry({ size: history.blocks * 4096, blockSize: 4096 });
    const log = format1(history);
    const resident = Core.create();
    const log2 = format2(resident, history);
    const target = Buffer.alloc(log.length);
    const source = Buffer.from(log.buffer);
    const counts = [
      await replayFormat1(resident, shape, log),
      await replayFormat2(resident, shape, log2),
      replayPlainly(log),
    ];
    if (counts.some((count) => count !== counts[0])) throw new Error(`${history.name}: ${counts.join(', ')} blocks`);
    const ms = await measure({
      copy: () => source.copy(target),
      resident: () => replayFormat1(resident, shape, log),
      fresh: () => replayFormat1(Core.create(), shape, log),
      plain: () => replayPlainly(log),
      format2: () => replayFormat2(resident, shape, log2),
      read1: () => readFormat1(resident, shape, log),
      read2: () => readFormat2(resident, shape, log2),
    });
    const ns = (name: string): number => Math.round((ms[name]! * 1e7) / RECORDS) / 10;
    table.push({
      'ns a record': history.name,
      copy: ns('copy'),
      resident: ns('resident'),
      'new instance': ns('fresh'),
      'plain port': ns('plain'),
      'format 2': ns('format2'),
      'reading 1': ns('read1'),
      'reading 2': ns('read2'),
      'resident / copy': round(ms['resident']! / ms['copy']!),
      'plain / resident': round(ms['plain']! / ms['resident']!),
      'plain / new': round(ms['plain']! / ms['fresh']!),
      'bytes 1 / 2': round(log.length / log2.used),
      'time 1 / 2': round(ms['resident']! / ms['format2']!),
      'reading 1 / 2': round(ms['read1']! / ms['read2']!),
    });
    if (history.copyBar === undefined) continue;
    bars.push({
      name: `${history.name}: resident / copy`,
      value: ms['resident']! / ms['copy']!,
      atMost: history.copyBar,
    });
    bars.push({ name: `${history.name}: plain / resident`, value: ms['plain']! / ms['resident']!, atLeast: 8 });
    if (!history.extents) continue;
    bars.push({ name: `${history.name}: bytes of format 1 / 2`, value: log.length / log2.used, atLeast: 10 });
    bars.push({ name: `${history.name}: time of format 1 / 2`, value: ms['resident']! / ms['format2']!, atLeast: 5 });
  }
}

async function benchCheckpoint(): Promise<void> {
  const shape = geometry({ size: 2 ** 40, blockSize: 4096 });
  for (const { name, bar, fill } of maps) {
    const map = await BlockMap.open(shape);
    fill(map);
    const buffer = new GrowingBuffer();
    const slices = Array.from({ length: sliceCount(shape) }, (_, slice) => slice);
    /** Serializes all slices, as a checkpoint of all of them does. */
    const serialize = (from: BlockMap): void => {
      for (const slice of slices) {
        buffer.truncate(0);
        from.serialize(slice, buffer);
      }
    };
    const portable = slices.map((slice) => {
      buffer.truncate(0);
      map.serialize(slice, buffer);
      return buffer.bytes.slice();
    });
    const load = async (): Promise<void> => {
      const other = await BlockMap.open(shape);
      for (const slice of slices) {
        if (portable[slice]!.length > 0) for (const _ of other.uniting(slice, portable[slice]!));
      }
      other.dispose();
    };
    let block = 2 ** 28;
    const changing = await BlockMap.open(shape);
    fill(changing);
    const ms = await measure(
      {
        unchanged: () => serialize(map),
        change: () => changing.add(block - 1, block--),
        changed: () => serialize(changing),
        parse: load,
      },
      rounds * 4,
      0.25,
    );
    table.push({
      'checkpoint of 1 TiB, ms': name,
      'unchanged since the last': round(ms['unchanged']!),
      'one block added': round(ms['changed']!),
      'parse and check': round(ms['parse']!),
      bytes: portable.reduce((sum, { length }) => sum + length, 0),
    });
    // The bar was set for a map whose containers already have their most compact forms.
    bars.push({ name: `checkpoint, ${name}, unchanged: ms`, value: ms['unchanged']!, atMost: bar });
    map.dispose();
    changing.dispose();
  }
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

await benchReplay();
await benchCheckpoint();
bars.push({ name: 'wasm: bytes', value: statSync(wasmFile).size, atMost: 10_000 });

const missed = bars.filter(({ value, atMost = Infinity, atLeast = 0 }) => value > atMost || value < atLeast);
if (json) {
  console.log(JSON.stringify({ table, bars: bars.map((bar) => ({ ...bar, missed: missed.includes(bar) })) }));
} else {
  console.table(table.slice(0, histories.length));
  console.table(table.slice(histories.length));
  console.table(
    bars.map((bar) => ({
      bar: bar.name,
      value: round(bar.value),
      'at most': bar.atMost ?? '',
      'at least': bar.atLeast ?? '',
      missed: missed.includes(bar) ? 'MISSED' : '',
    })),
  );
}
if (missed.length > 0) process.exitCode = 1;
