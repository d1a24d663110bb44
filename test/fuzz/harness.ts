/** Runs one case through recovery, an inspection or an open, and checks the result. */

import { openDeviceIn } from '../../src/device/open.ts';
import { isCodError } from '../../src/errors.ts';
import type { File, FileSystem, OpenOptions, Source } from '../../src/index.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import { recover } from '../../src/log/recovery.ts';
import { Slots } from '../../src/log/slots.ts';
import { SimulatedClock } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { type Image, type Images, MemoryFiles } from '../log/memory-files.ts';
import { countingMemory } from '../support/counting-memory.ts';
import { BASES, type FuzzCase, imagesOf, TARGET } from './cases.ts';
import { isWithin, lastFrame, meaningOf, type Ranges, union } from './plain-recovery.ts';

const MIB = 2 ** 20;
const REFUSALS: ReadonlySet<string> = new Set(['COD_CORRUPT', 'COD_VERSION', 'COD_EXISTS', 'COD_SIZE_MISMATCH']);
/** One core for all cases: a refusal must leave it usable. */
const core = Core.create();
const PROBE = 'golden/log-torn-word';

/** Counts the bytes read, and stops endless reading. */
class Metered implements FileSystem {
  readonly #inner: MemoryFiles;
  #left: number;

  constructor(inner: MemoryFiles, limit: number) {
    this.#inner = inner;
    this.#left = limit;
  }

  async open(name: string, options?: OpenOptions): Promise<File> {
    const file = await this.#inner.open(name, options);
    return {
      ...file,
      read: (into, offset) => {
        this.#left -= into.length;
        if (this.#left < 0) throw new Error('read more bytes than the files have');
        return file.read(into, offset);
      },
    };
  }

  remove(name: string): Promise<void> {
    return this.#inner.remove(name);
  }
}

interface Reading {
  readonly size: number;
  readonly truth: Ranges;
  readonly modified: Ranges;
  readonly identity: string | undefined;
}

/** The state that recovery reports. */
async function readState(fileSystem: FileSystem, size: number, via: FuzzCase['via']): Promise<Reading | undefined> {
  if (via === 'inspect') {
    const found = await inspectMetadata(fileSystem, TARGET, { size });
    const bytesOf = ([first, last]: readonly [number, number]): [number, number] => [
      first * found.blockSize,
      Math.min(found.size, (last + 1) * found.blockSize),
    ];
    const synced = found.synced.map(bytesOf);
    const modified = found.modified.map(bytesOf);
    const dirty = found.dirty.flatMap(({ block, ranges }) =>
      ranges.map(([offset, length]): [number, number] => [
        block * found.blockSize + offset,
        block * found.blockSize + offset + length,
      ]),
    );
    return { size: found.size, truth: union([...synced, ...dirty]), modified, identity: undefined };
  }
  const found = await recover(core, new Slots(fileSystem, TARGET, { readOnly: true }), {
    size: async () => size,
    read: async (into, offset) => (await fileSystem.open(TARGET)).read(into, offset),
  });
  if (found === undefined) return undefined;
  const { state, identity } = found;
  const { geometry } = state;
  const { blockSize } = geometry;
  const bytesOf = ([start, end]: readonly [number, number]): [number, number] => [
    start * blockSize,
    Math.min(geometry.size, end * blockSize),
  ];
  const ranges = Array.from(state.syncedRuns(), bytesOf);
  const modified = Array.from(state.modified.runs(), bytesOf);
  for (const { block, parts } of state.dirtyBlocks()) {
    for (const [start, end] of parts) ranges.push([block * blockSize + start, block * blockSize + end]);
  }
  state.dispose();
  return { size: geometry.size, truth: union(ranges), modified, identity };
}

/** Opens and closes a device on an accepted state. This repair must keep the state. */
async function repair(images: Images, target: Uint8Array, { size, identity }: Reading): Promise<Images> {
  const image: Image = { bytes: target.subarray(0, size), size };
  const fileSystem = new MemoryFiles(new Map(images).set(TARGET, image));
  const source: Source = {
    size,
    ...(identity === undefined ? {} : { identity }),
    read: async (into) => void into.fill(1),
    close: async () => undefined,
  };
  const device = await openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.fill(7) },
    { source, fileSystem, target: TARGET, hydrate: false },
  );
  await device.close();
  return fileSystem.images();
}

const promises = new Map<string, { durable: Ranges; all: Ranges }>();

/** The promises of a frozen state: what survives a power cut, and everything it contains. */
function promised(name: string): { durable: Ranges; all: Ranges } {
  let known = promises.get(name);
  if (known === undefined) {
    const { images, size, targets } = BASES.get(name)!;
    known = {
      durable: meaningOf(images, TARGET, { target: targets.lost, size }).truth,
      all: meaningOf(images, TARGET, { target: targets.kept, size }).truth,
    };
    promises.set(name, known);
  }
  return known;
}

/**
 * Whether the changes may have put the log of the newest checkpoint back to an earlier state, which cannot be detected.
 * Its last frame proves every durable frame before it.
 */
function mayBeEarlier(base: Images, images: Images): boolean {
  const last = lastFrame(base, TARGET);
  if (last === undefined) return false;
  const [before, now] = [base, images].map((files) => files.get(last.name)?.bytes.subarray(last.start, last.end));
  return now !== undefined && Buffer.compare(before!, now) !== 0;
}

function hasSameLogs(base: Images, images: Images): boolean {
  return [...base].every(([name, { bytes, size }]) => {
    const now = images.get(name);
    return !name.includes('.wil') || (now?.size === size && Buffer.compare(bytes, now.bytes) === 0);
  });
}

/** A target of this beginning, longer than any device. */
function withTarget(images: Images, target: Uint8Array): MemoryFiles {
  return new MemoryFiles(new Map(images).set(TARGET, { bytes: target, size: Number.MAX_SAFE_INTEGER }));
}

/** Returns the outcome of a case and the name of its kind of result. @throws when a promise is broken */
export async function runCase(one: FuzzCase): Promise<{ outcome: string; way: string }> {
  const base = BASES.get(one.base)!;
  const images = imagesOf(core, one);
  const target = base.targets[one.target];
  // Each record of 16 bytes may name two cells of the target.
  const readable = [...images.values()].reduce(
    (sum, { size, bytes }) => sum + 3 * Math.min(size, 2 ** 28) + 512 * bytes.length,
    MIB,
  );
  const allowed = [...images.values()].reduce((sum, { size }) => sum + 8 * Math.min(size, 2 ** 22), 16 * MIB);
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  let outcome: { outcome: string; way: string };
  try {
    const { result, bytes } = await countingMemory(() =>
      readState(new Metered(withTarget(images, target), readable), base.size, one.via),
    );
    if (bytes > allowed) throw new Error(`${bytes} bytes of memory were allocated, the limit is ${allowed}`);
    if (result !== undefined) await checkReading(one, images, target, result);
    outcome = { outcome: 'read', way: result === undefined ? 'nothing' : 'read' };
  } catch (error) {
    const isNothing = isCodError(error, 'COD_NOT_FOUND') && one.via === 'inspect';
    if (!isCodError(error) || !(REFUSALS.has(error.code) || isNothing)) throw error;
    outcome = {
      outcome: error.code,
      way: error.message.replace(/0x[0-9a-f]+|\b[0-9a-f]{2}( [0-9a-f]{2})*\b|\d+/g, '#').replace(/^\S+: /, ''),
    };
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
  if (core.memoryBytes > 256 * MIB) throw new Error(`the core has grown to ${core.memoryBytes} bytes`);
  const probe = BASES.get(PROBE)!;
  const found = await readState(withTarget(probe.images, probe.targets.kept), probe.size, 'recover');
  if (JSON.stringify(found!.truth) !== JSON.stringify(promised(PROBE).all))
    throw new Error('the core reads a good state wrongly afterwards');
  return outcome;
}

async function checkReading(one: FuzzCase, images: Images, target: Uint8Array, reading: Reading): Promise<void> {
  const base = BASES.get(one.base)!;
  const meaning = meaningOf(images, TARGET, { target, size: base.size });
  for (const map of ['truth', 'modified'] as const) {
    const [found, expected] = [JSON.stringify(reading[map]), JSON.stringify(meaning[map])];
    if (found !== expected)
      throw new Error(`reads as ${map} ${found.slice(0, 300)}, expected ${expected.slice(0, 300)}`);
  }
  if (base.format === 2 && !one.sealed) {
    const { durable, all } = promised(one.base);
    if (!isWithin(reading.truth, all)) throw new Error('reads bytes as written that no write covered');
    if (!mayBeEarlier(base.images, images) && !isWithin(durable, reading.truth)) throw new Error('lost durable bytes');
    if (one.target === 'kept' && hasSameLogs(base.images, images) && !isWithin(all, reading.truth))
      throw new Error('lost acknowledged bytes');
  }
  if (one.via !== 'open' || reading.size === 0) return;
  const repaired = await repair(images, target, reading);
  const again = await readState(withTarget(repaired, base.targets.lost), base.size, 'recover');
  for (const map of ['truth', 'modified'] as const)
    if (JSON.stringify(again?.[map]) !== JSON.stringify(reading[map]))
      throw new Error(`reads another state after an open and a close: ${map}`);
}
