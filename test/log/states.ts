/**
 * Small states of a copy as a device leaves them on disk, with the expected contents of each.
 * Some states are at rest, the others follow each step of an operation.
 */

import { openDeviceIn } from '../../src/device/open.ts';
import type { Device } from '../../src/index.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { ByteHistory, type Counting } from '../support/byte-history.ts';
import { type Call, type Image, type Images, MemoryFiles } from './memory-files.ts';

export const BLOCK = 4096;
export const SIZE: number = 5 * BLOCK + 700;

/** Never zero, so that lost bytes are detected. */
export const SOURCE: Uint8Array = seededRandom(1)
  .fill(new Uint8Array(SIZE))
  .map((byte) => byte | 1);

type Event = { readonly offset: number; readonly bytes: Uint8Array } | 'flushed';

/** The disk at one moment, and the expected contents. */
export interface State {
  readonly name: string;
  readonly images: Images;
  /** The target with the bytes of its last sync only: everything after it was lost. */
  readonly syncedTarget: Image | undefined;
  /** The acknowledged writes and flushes. */
  readonly events: readonly Event[];
  /** Distinct earlier versions of each file, the latest last. */
  readonly earlier: ReadonlyMap<string, readonly Image[]>;
}

/** Describes the first byte that breaks a promise. */
export function violation(state: State, found: Uint8Array, promised: Counting): string | undefined {
  const history = new ByteHistory(SOURCE);
  for (const event of state.events) {
    if (event === 'flushed') history.beginFlush()();
    else history.acknowledge(history.begin(event.offset, event.bytes));
  }
  return history.violation(found, promised);
}

export interface OpenOptions {
  /** Fills the session ID. */
  readonly session?: number;
  readonly size?: number;
}

export function open(fileSystem: MemoryFiles, { session = 7, size = SIZE }: OpenOptions = {}): Promise<Device> {
  return openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.fill(session) },
    {
      source: bytesSource(SOURCE.slice(0, size), { identity: 'the source' }),
      fileSystem,
      target: 'disk',
      hydrate: false,
    },
  );
}

/** A copy that keeps its states. */
export class Life {
  readonly fileSystem: MemoryFiles;
  readonly states: State[] = [];
  readonly #options: OpenOptions;
  readonly #events: Event[];
  readonly #earlier = new Map<string, Image[]>();
  #device: Device | undefined;
  #seed = 100;

  constructor(images: Images = new Map(), events: readonly Event[] = [], options: OpenOptions = {}) {
    this.#options = options;
    this.fileSystem = new MemoryFiles(images);
    this.#events = [...events];
    this.#remember();
  }

  get device(): Device {
    return this.#device!;
  }

  /** Opens the device; in every life but the first this is a recovery. */
  async start(): Promise<void> {
    this.#device = await open(this.fileSystem, this.#options);
    this.#remember();
  }

  async write(offset: number, length: number): Promise<void> {
    const bytes = seededRandom(this.#seed++).fill(new Uint8Array(length));
    await this.device.write(bytes, offset);
    this.#events.push({ offset, bytes });
    this.#remember();
  }

  async flush(): Promise<void> {
    await this.#durably(() => this.device.flush());
  }

  async checkpoint(): Promise<void> {
    await this.#durably(() => this.device.checkpoint());
  }

  /** After the call, every earlier acknowledged write is durable. */
  async #durably(work: () => Promise<void>): Promise<void> {
    const before = this.#events.length;
    await work();
    this.#events.splice(before, 0, 'flushed');
    this.#remember();
  }

  /** Keeps the current state. */
  keep(name: string): State {
    const state = {
      name,
      images: this.fileSystem.images(),
      syncedTarget: this.fileSystem.syncedImage('disk'),
      events: [...this.#events],
      earlier: new Map([...this.#earlier].map(([file, images]) => [file, [...images]])),
    };
    this.states.push(state);
    return state;
  }

  /** Runs `work` and keeps the state before each of its calls. `meanwhile` may do more before each call. */
  async steps(name: string, work: () => Promise<unknown>, meanwhile?: (call: Call) => Promise<void>): Promise<void> {
    let inside = false;
    let last = 'before the first call';
    this.fileSystem.before = async (call) => {
      if (inside) return;
      inside = true;
      await meanwhile?.(call);
      inside = false;
      if (call.kind === 'sync') return;
      this.keep(`${name}, ${last}`);
      this.#remember();
      last = `after ${call.kind} of ${call.name} at ${call.offset}, ${call.length} bytes`;
    };
    await work();
    this.fileSystem.before = undefined;
    this.keep(`${name}, at the end`);
    this.#remember();
  }

  #remember(): void {
    for (const [name, image] of this.fileSystem.images()) {
      const known = this.#earlier.get(name) ?? [];
      if (!known.some((other) => other.size === image.size && Buffer.compare(other.bytes, image.bytes) === 0))
        known.push(image);
      this.#earlier.set(name, known);
    }
  }
}

function words(...values: number[]): Uint8Array {
  return new Uint8Array(new BigUint64Array(values.map(BigInt)).buffer);
}

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

const MAGIC = { bak: new TextEncoder().encode('COD BAK\0'), wil: new TextEncoder().encode('COD WIL\0') };

/** A state of format 1. `checkpoint` is the valid slot; two logs continue it. */
export function format1State(checkpoint: 'disk.bak' | 'disk.bak.1'): { images: Map<string, Image>; events: Event[] } {
  const target = new Uint8Array(SIZE);
  const events: Event[] = [];
  const put = (offset: number, length: number): void => {
    const bytes = seededRandom(offset + 7).fill(new Uint8Array(length));
    target.set(bytes, offset);
    events.push({ offset, bytes });
  };
  put(0, BLOCK);
  put(3 * BLOCK + 10, 50);
  put(2 * BLOCK, BLOCK);
  put(4 * BLOCK + 600, 600);
  put(5 * BLOCK, 700);
  events.push('flushed');
  // One array container with block 0: cookie, one container, key 0 of cardinality 1, its offset, its value.
  const roaring = new Uint8Array([0x3a, 0x30, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0]);
  const files: [string, Uint8Array][] = [
    ['disk', target],
    [checkpoint, join(MAGIC.bak, words(1, roaring.length), roaring, words(0, 1, 3, 10, 50, 0))],
    ['disk.wil.1', join(MAGIC.wil, words(1, 1, 2, 2, 4, 600, 600))],
    ['disk.wil', join(MAGIC.wil, words(1, 1, 5, 0, 0))],
  ];
  return { images: new Map(files.map(([name, bytes]) => [name, { bytes, size: bytes.length }])), events };
}

/** At rest: one state of each kind, with all slots in use. */
export async function statesAtRest(): Promise<State[]> {
  const life = new Life();
  await life.start();
  life.keep('a new copy');
  await life.write(BLOCK, BLOCK);
  await life.write(3 * BLOCK + 100, 200);
  await life.flush();
  await life.write(10, 20);
  life.keep('a copy with its first log');
  await life.checkpoint();
  await life.write(3 * BLOCK + 1000, 30);
  await life.checkpoint();
  await life.write(5 * BLOCK, 700);
  await Promise.all([life.write(2 * BLOCK - 5, 10), life.write(3 * BLOCK + 150, 3000)]);
  await life.flush();
  life.keep('a flushed copy');
  await life.write(BLOCK, 2 * BLOCK);
  await life.write(4 * BLOCK + 1, 1);
  life.keep('a copy with writes that were not flushed');
  return life.states;
}

/** The states at each step of the operations that change more than a log. */
export async function statesInBetween(): Promise<{ name: string; states: State[] }[]> {
  const groups: { name: string; states: State[] }[] = [];

  const creation = new Life();
  await creation.steps('creation', () => creation.start());
  groups.push({ name: 'a creation', states: creation.states });

  const checkpoint = new Life();
  await checkpoint.start();
  await checkpoint.write(BLOCK, BLOCK);
  await checkpoint.checkpoint();
  await checkpoint.write(3 * BLOCK + 100, 200);
  await checkpoint.flush();
  await checkpoint.write(3 * BLOCK + 50, 200);
  let wrote = 0;
  await checkpoint.steps(
    'checkpoint',
    () => checkpoint.checkpoint(),
    async ({ name, kind }) => {
      // The checkpoint has its maps, so further records belong to the new log.
      if (name.startsWith('disk.bak') && kind === 'write' && wrote++ < 2)
        await checkpoint.write(wrote * 2 * BLOCK, BLOCK - 1);
    },
  );
  groups.push({ name: 'a checkpoint', states: checkpoint.states });

  const cut = checkpoint.states.find((state) => state.name.includes(`bak.1 at 512`))!;
  const recovery = new Life(cut.images, cut.events);
  await recovery.steps('recovery from two logs', () => recovery.start());
  groups.push({ name: 'a recovery from two logs', states: recovery.states });

  const rest = new Life();
  await rest.start();
  await rest.write(BLOCK + 5, BLOCK);
  await rest.flush();
  const again = new Life(rest.fileSystem.images(), rest.keep('').events);
  await again.steps('recovery', () => again.start());
  groups.push({ name: 'a recovery', states: again.states });

  for (const slot of ['disk.bak', 'disk.bak.1'] as const) {
    const { images, events } = format1State(slot);
    const over = new Life(images, events);
    await over.steps(`taking over ${slot}`, () => over.start());
    groups.push({ name: `taking over format 1 from ${slot}`, states: over.states });
  }

  const finish = new Life();
  await finish.start();
  await finish.write(0, SIZE);
  await finish.checkpoint();
  await finish.steps('finish', () => finish.device.finish());
  groups.push({ name: 'finishing', states: finish.states });
  return groups;
}

/**
 * Some sectors of frames that a flush made durable, and the same with as many sectors without a flush. `flushedEnd` is
 * the end of the log after the flush.
 */
export async function statesWithLongLog(): Promise<{ flushed: State; state: State; flushedEnd: number }> {
  const life = new Life();
  await life.start();
  await life.write(BLOCK, 500);
  await life.checkpoint();
  for (let count = 0; count < 48; count++) await life.write((count % 5) * BLOCK + 30 * count, 20);
  await life.flush();
  const flushed = life.keep('a long log, flushed');
  const flushedEnd = flushed.images.get('disk.wil')!.bytes.length;
  for (let count = 0; count < 60; count++) await life.write((count % 5) * BLOCK + 30 * count, 20);
  return { flushed, state: life.keep('a long log'), flushedEnd };
}
