/**
 * Makes the frozen states of format 2 (test/fixtures/format2/README.md). The log itself writes the files; a plain model
 * of the writes says what must be read.
 */

import { mkdir, rm, writeFile } from 'node:fs/promises';
import { geometry } from '../../src/core/geometry.ts';
import { type Inspection, inspectMetadata } from '../../src/log/inspect.ts';
import { type OpenLog, openLog } from '../../src/log/intent-log.ts';
import { SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { Model } from '../core/models.ts';
import { type Images, MemoryFiles } from './memory-files.ts';

const TARGET = 'disk.raw';
const CELL = 4096;

/** A run of equal bytes. */
export type Run = readonly [offset: number, length: number, value: number];

/** A target as a map of cells, zeros elsewhere, so that it may be as large as the device of a test. */
class Storage {
  readonly cells = new Map<number, Uint8Array>();

  async read(into: Uint8Array, offset: number): Promise<void> {
    for (let at = 0; at < into.length; at++) {
      const place = offset + at;
      into[at] = this.cells.get(Math.floor(place / CELL))?.[place % CELL] ?? 0;
    }
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    for (let at = 0; at < from.length; at++) {
      const cell = Math.floor((offset + at) / CELL);
      if (!this.cells.has(cell)) this.cells.set(cell, new Uint8Array(CELL));
      this.cells.get(cell)![(offset + at) % CELL] = from[at]!;
    }
  }

  async sync(): Promise<void> {}
}

interface Shape {
  readonly size: number;
  readonly blockSize: number;
  readonly identity?: string;
}

/** A copy in use, and everything that became true. */
class Copy {
  readonly fileSystem: MemoryFiles = new MemoryFiles();
  readonly shape: Shape;
  readonly random: ReturnType<typeof seededRandom> = seededRandom(26);
  log!: OpenLog;
  readonly #storage = new Storage();
  readonly #extents: { offset: number; length: number; isFill: boolean }[] = [];
  #firm = 0;
  #value = 0;

  private constructor(shape: Shape) {
    this.shape = shape;
  }

  static async open(shape: Shape): Promise<Copy> {
    const copy = new Copy(shape);
    copy.log = await openLog(
      { clock: new SimulatedClock(), randomBytes: (into) => into.set(into.map((_, index) => 0x60 + index)) },
      { fileSystem: copy.fileSystem, name: TARGET, storage: copy.#storage, ...shape },
    );
    return copy;
  }

  /** A user's write of one byte's value, which differs from the value of the last write. */
  async write(offset: number, length: number): Promise<void> {
    const bytes = new Uint8Array(Math.min(length, this.shape.size - offset)).fill((this.#value++ % 255) + 1);
    const transaction = this.log.begin();
    await transaction.intend(offset, bytes);
    await this.#storage.write(bytes, offset);
    await this.log.commit(transaction);
    this.#extents.push({ offset, length: bytes.length, isFill: false });
  }

  /** Copies blocks of a source of zeros, which share an append. */
  async fill(blocks: readonly (readonly [first: number, count: number])[]): Promise<void> {
    const transaction = this.log.begin();
    const { size, blockSize } = this.shape;
    for (const [first, count] of blocks) {
      const offset = first * blockSize;
      const length = Math.min(count * blockSize, size - offset);
      transaction.filled(offset, length);
      this.#extents.push({ offset, length, isFill: true });
    }
    await this.log.commit(transaction);
  }

  async writes(count: number, options: { below?: number; longest?: number } = {}): Promise<void> {
    const { below = this.shape.size, longest = 9000 } = options;
    for (let left = count; left > 0; left--) {
      const offset = this.random.below(below);
      const length = 1 + this.random.below(longest);
      const isBlock = this.random.oneIn(3);
      await this.write(isBlock ? offset - (offset % this.shape.blockSize) : offset, isBlock ? CELL : length);
    }
  }

  async flush(): Promise<void> {
    await this.log.flush();
    this.#firm = this.#extents.length;
  }

  async checkpoint(): Promise<void> {
    await this.log.checkpoint();
    this.#firm = this.#extents.length;
  }

  /** What the target's bytes prove, and what counts without them. */
  models(): { withTarget: Model; withoutTarget: Model; changed: ReadonlySet<number> } {
    const shape = geometry(this.shape);
    const [withTarget, withoutTarget] = [new Model(shape), new Model(shape)];
    for (const [index, { offset, length, isFill }] of this.#extents.entries()) {
      if (index < this.#firm) withoutTarget.extent(offset, length);
      if (index < this.#firm || !isFill) withTarget.extent(offset, length);
    }
    const changed = new Set<number>();
    for (const { offset, length, isFill } of this.#extents)
      for (let at = offset - (offset % shape.blockSize); !isFill && at < offset + length; at += shape.blockSize)
        changed.add(at / shape.blockSize);
    return { withTarget, withoutTarget, changed };
  }

  /** The bytes of the cells that were written since the last flush. */
  target(): Run[] {
    const cells = new Set<number>();
    for (const { offset, length, isFill } of this.#extents.slice(this.#firm))
      for (let cell = Math.floor(offset / CELL); !isFill && cell * CELL < offset + length; cell++) cells.add(cell);
    const runs: [number, number, number][] = [];
    for (const cell of [...cells].sort((one, other) => one - other)) {
      for (const [at, value] of this.#storage.cells.get(cell)!.entries()) {
        const last = runs.at(-1);
        const offset = cell * CELL + at;
        if (last !== undefined && last[0] + last[1] === offset && last[2] === value) last[1]++;
        else runs.push([offset, 1, value]);
      }
    }
    return runs.filter(([, , value]) => value !== 0);
  }
}

interface Kept {
  readonly copy: Copy;
  readonly images: Images;
  readonly note: string;
}

/** Runs `work`, and returns the files before the last of its calls that `isCall` accepts. */
async function interrupted(
  copy: Copy,
  work: () => Promise<unknown>,
  isCall: (call: { kind: string; name: string; offset: number; length: number }) => boolean,
): Promise<Images> {
  let images: Images | undefined;
  const before = copy.fileSystem.before;
  copy.fileSystem.before = async (call) => {
    await before?.(call);
    if (isCall(call)) images = copy.fileSystem.images();
  };
  await work();
  return images!;
}

async function fresh(): Promise<Kept> {
  const copy = await Copy.open({ size: 409_601, blockSize: 4096, identity: 'etag "fresh"' });
  return { copy, images: copy.fileSystem.images(), note: 'a copy that has just begun' };
}

async function midCopy(): Promise<Kept> {
  const copy = await Copy.open({ size: 81_920_077, blockSize: 4096, identity: 'etag "mid-copy"' });
  await copy.fill([[5000, 700]]);
  await copy.writes(100);
  await copy.checkpoint();
  await copy.writes(60);
  for (let round = 0; round < 4; round++)
    await copy.fill(Array.from({ length: 9 }, () => [copy.random.below(20_000), 1 + copy.random.below(40)] as const));
  await copy.flush();
  await copy.writes(20);
  await copy.flush();
  await copy.fill([
    [600, 30],
    [100, 20],
  ]);
  // Some of them change each other's cells, and blocks of the fill before.
  await copy.writes(45, { below: 2 ** 21, longest: 20_000 });
  await copy.writes(7, { below: 2 ** 15 });
  const note =
    'many writes since the last checkpoint, the last 52 of them not flushed; two fills before them are not, either';
  return { copy, images: copy.fileSystem.images(), note };
}

async function checkpointUnderWay(): Promise<Kept> {
  const copy = await Copy.open({ size: 4_096_000, blockSize: 4096 });
  await copy.writes(60);
  await copy.checkpoint();
  await copy.writes(30);
  await copy.flush();
  await copy.writes(20, { below: 2 ** 20 });
  // The body is written: the checkpoint has its maps, so these records belong to the next log.
  let isBusy = false;
  copy.fileSystem.before = async ({ kind, name, offset }) => {
    if (isBusy || kind !== 'write' || name !== `${TARGET}.bak.1` || offset < 512) return;
    isBusy = true;
    await copy.writes(15, { below: 2 ** 20 });
  };
  const images = await interrupted(
    copy,
    () => copy.log.checkpoint(),
    ({ kind, name, offset }) => kind === 'write' && name === `${TARGET}.bak.1` && offset === 0,
  );
  const note =
    'killed while a checkpoint was being taken: its header is not written yet, and both logs count; ' +
    'a source without identity';
  return { copy, images, note };
}

async function largeBlocks(): Promise<Kept> {
  const copy = await Copy.open({ size: 13_107_134_469, blockSize: 65_536, identity: 'etag "large"' });
  const { random } = copy;
  // Blocks of three containers: some far apart, more than an array holds, and runs. None is in the first 16 MiB.
  const sparse = Array.from({ length: 200 }, () => [256 + random.below(65_000), 1] as const);
  const dense = Array.from({ length: 5200 }, () => [65_536 + random.below(65_536), 1] as const);
  const runs = Array.from({ length: 60 }, () => [131_072 + random.below(60_000), 1 + random.below(300)] as const);
  for (const blocks of [sparse, dense.slice(0, 4900), runs])
    for (let at = 0; at < blocks.length; at += 100) await copy.fill(blocks.slice(at, at + 100));
  await copy.writes(40);
  await copy.checkpoint();
  await copy.fill(dense.slice(4900));
  await copy.writes(20);
  await copy.flush();
  await copy.writes(12, { below: 2 ** 22, longest: 70_000 });
  return { copy, images: copy.fileSystem.images(), note: 'blocks of 64 KiB, containers of all three forms' };
}

async function standalone(): Promise<Kept> {
  const copy = await Copy.open({ size: 262_144, blockSize: 4096, identity: 'etag "done"' });
  await copy.fill([[0, 64]]);
  await copy.write(5000, 10_000);
  await copy.checkpoint();
  const images = await interrupted(
    copy,
    () => copy.log.remove(),
    ({ kind }) => kind === 'remove',
  );
  const note = 'a complete copy, all of whose metadata but the last, standalone checkpoint is removed';
  return { copy, images, note };
}

const MAKERS: Readonly<Record<string, () => Promise<Kept>>> = {
  'checkpoint-under-way': checkpointUnderWay,
  fresh,
  'large-blocks': largeBlocks,
  'mid-copy': midCopy,
  standalone,
};

/** The metadata files, and the target's runs as a file that ends with a whole cell. */
function filesOf(images: Images, target: readonly Run[]): MemoryFiles {
  const files = new Map([...images].filter(([name]) => name.startsWith(`${TARGET}.`)));
  if (target.length > 0) {
    const [offset, length] = target.at(-1)!;
    const bytes = new Uint8Array(Math.ceil((offset + length) / CELL) * CELL);
    for (const [start, count, value] of target) bytes.fill(value, start, start + count);
    files.set(TARGET, { bytes, size: bytes.length });
  }
  return new MemoryFiles(files);
}

/** Whether an inspection agrees with the model. */
function agrees(
  model: Model,
  changed: ReadonlySet<number>,
  found: Awaited<ReturnType<typeof inspectMetadata>>,
): boolean {
  const { synced, dirty } = model.state();
  const held = [...synced, ...dirty.map(([block]) => block)].sort((one, other) => one - other);
  const blocksOf = (runs: Inspection['synced']): number[] =>
    runs.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, index) => first + index));
  const foundParts = found.dirty.map(({ block, ranges }) => [
    block,
    ranges.map(([offset, length]) => [offset, offset + length]),
  ]);
  return (
    JSON.stringify([synced, dirty, held.filter((block) => changed.has(block))]) ===
    JSON.stringify([blocksOf(found.synced), foundParts, blocksOf(found.modified)])
  );
}

/** Writes all states into `folder`. @throws if the model and the reader disagree */
export async function freezeStates(folder: URL): Promise<void> {
  for (const [name, make] of Object.entries(MAKERS)) {
    const { copy, images, note } = await make();
    const target = copy.target();
    const models = copy.models();
    const read: Record<string, object> = {};
    for (const kind of ['withTarget', 'withoutTarget'] as const) {
      const found = await inspectMetadata(filesOf(images, kind === 'withTarget' ? target : []), TARGET);
      if (!agrees(models[kind], models.changed, found))
        throw new Error(`${name}, ${kind}: the reader disagrees with the model`);
      const { identity, syncedBlocks, synced, dirty, modifiedBlocks, modified, files } = found;
      read[kind] = { identity, syncedBlocks, synced, dirty, modifiedBlocks, modified, files };
    }
    const { size, blockSize } = copy.shape;
    const totalBlocks = geometry({ size, blockSize }).blockCount;
    const own = new URL(`${name}/`, folder);
    await rm(own, { recursive: true, force: true });
    await mkdir(own);
    const expected = { note, size, blockSize, totalBlocks, target, ...read };
    await writeFile(new URL('expected.json', own), `${JSON.stringify(expected)}\n`);
    for (const [file, { bytes, size }] of images) {
      if (!file.startsWith(`${TARGET}.`)) continue;
      // Logs are sparse.
      const whole = new Uint8Array(file.includes('.wil') ? bytes.length : size);
      whole.set(bytes);
      await writeFile(new URL(file, own), whole);
    }
  }
}
