/**
 * The story of a device with crashes.
 *
 * Several concurrent users write, read, discard, zero, flush and checkpoint during a background copy. After each crash
 * every byte and the map of modified blocks are compared with the promises. At the end the copy is finished and
 * compared.
 */

import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import type { FileSystem } from '../../src/fs/file-system.ts';
import { CodError, type CodErrorCode, isCodError } from '../../src/index.ts';
import { removeCopyIn } from '../../src/log/removal.ts';
import type { Environment } from '../../src/platform/clock.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import type { Life, Random, SimulatedClock, Story } from '../../src/testing/index.ts';
import { SECTOR_BYTES } from '../../src/testing/index.ts';
import { ByteHistory, type Counting, type HistoricWrite } from '../support/byte-history.ts';
import { ModifiedHistory } from '../support/modified-history.ts';
import { type Owner, Owners, type Seat } from './owners.ts';

/** A device and its load. */
export interface Shape {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  readonly hydrate: boolean;
  /** The number of concurrent users, and of operations of each in one life. */
  readonly users: number;
  readonly steps: number;
  /** Whether users, source and target use the synchronous calls where possible. */
  readonly inline?: boolean;
  /** Whether target and source fail at random. */
  readonly faults?: boolean;
  /**
   * `absent`: after a crash, users work without the source. `comes and goes`: the source is a function that fails at
   * random or returns another image, and so do the reads of what it returns. Default: the source is always there.
   */
  readonly source?: 'absent' | 'comes and goes';
  /** Whether owners replace each other: so many in one life, at random steps of the owner before. Default: 1. */
  readonly owners?: number;
}

/** A range that the story uses and checks, and its initial content. Begins with a block. */
export interface Window {
  readonly offset: number;
  readonly content: Uint8Array;
}

/** The content of the source, and the initial state of its copy. */
export interface Image {
  readonly target: string;
  /** Names the source's content. `undefined` if the source has no identity. */
  readonly identity: string | undefined;
  /** Fills `into` with the source's bytes. */
  read(into: Uint8Array, offset: number): void;
  /** The ranges in use. A window of the whole device also lets the story finish the copy. */
  readonly windows: readonly Window[];
}

/** The machine that a device runs on. */
export interface Machine {
  readonly bootId: string | undefined;
  /**
   * True: users write whole sectors, and no sector may be torn. False: users write any bytes, and a killed process may
   * leave any part of a write.
   */
  readonly sectors: boolean;
}

const INTERVAL_MS = 50;
const PATIENCE_MS = 300_000;
const CELL_BYTES = 4096;

/** Bytes that were compared with a promise. */
export const checked = { bytes: 0 };

/** The errors that an operation may report under faults. */
const FAULTS: readonly CodErrorCode[] = ['COD_TARGET_IO', 'COD_NO_SPACE', 'COD_POISONED', 'COD_SOURCE_IO'];

/** The errors of an owner that was replaced. COD_EXISTS: its successor has made the target meanwhile. */
const REPLACED: readonly CodErrorCode[] = ['COD_LOCKED', 'COD_POISONED', 'COD_TARGET_IO', 'COD_EXISTS'];
/** Owners of a new copy can meet an empty file that the owner before makes late, and then try again. */
const ATTEMPTS = 5;

/** A source that answers synchronously or after a random delay, and sometimes fails if `faults` is set. */
function sourceOf(
  image: Image,
  { size, inline = false }: Shape,
  clock: SimulatedClock,
  random: Random,
  faults: boolean,
): InlineSource {
  const fail = (): void => {
    if (faults && random.oneIn(12)) throw new CodError('COD_SOURCE_IO', 'injected failure');
  };
  const wait = async (signal: AbortSignal | undefined): Promise<void> => {
    await clock.sleep(random.below(4), signal);
    fail();
  };
  return {
    size,
    ...(image.identity === undefined ? {} : { identity: image.identity }),
    read: async (into, offset, { signal } = {}) => {
      await wait(signal);
      image.read(into, offset);
    },
    ...(inline && {
      submitRead: (into: Uint8Array, offset: number) => {
        if (random.oneIn(2)) return wait(undefined).then(() => image.read(into, offset));
        fail();
        image.read(into, offset);
        return undefined;
      },
    }),
    ...(inline &&
      random.oneIn(2) && {
        readNow: (into: Uint8Array, offset: number) => {
          if (random.oneIn(2)) return false;
          fail();
          image.read(into, offset);
          return true;
        },
      }),
    stream: async function* (offset, length, { signal } = {}) {
      for (let at = offset; at < offset + length; ) {
        await wait(signal);
        const end = Math.min(offset + length, at + 1 + random.below(20_000));
        const piece = new Uint8Array(end - at);
        image.read(piece, at);
        yield piece;
        at = end;
      }
    },
    close: async () => undefined,
  };
}

/** A function that opens the source, and often fails or opens another one. A new copy needs it once. */
function unreliable(image: Image, shape: Shape, life: Life, isNew: boolean): () => Promise<InlineSource> {
  const { clock } = life;
  const random = life.random.fork();
  let isNeeded = isNew;
  return async () => {
    await clock.sleep(random.below(20));
    if (isNeeded) {
      isNeeded = false;
      return sourceOf(image, shape, clock, random.fork(), true);
    }
    if (random.oneIn(3)) throw new CodError('COD_SOURCE_IO', 'injected absence');
    if (image.identity === undefined || random.oneIn(2)) return sourceOf(image, shape, clock, random.fork(), true);
    const other: Image = { ...image, identity: 'another image', read: (into) => void into.fill(0xee) };
    return sourceOf(other, shape, clock, random.fork(), false);
  };
}

function environmentOf({ clock, random }: Life): Environment {
  return { clock, randomBytes: (into) => random.fill(into) };
}

/** Makes the story of one device. */
export function deviceStory(shape: Shape, machine: Machine, image: Image): Story {
  const { size, blockSize } = shape;
  const parts = image.windows.map(({ offset, content }) => ({
    base: offset,
    length: content.length,
    /** What was read after the last crash. */
    before: content,
    /** Where the last write began. */
    hot: 0,
    // Format 1 may leave dirty parts that end within a sector.
    history: new ByteHistory(content, { wholeSectors: machine.sectors && content.length === size }),
  }));
  const isWhole = parts[0]!.length === size;
  const changes = new ModifiedHistory(blockSize);
  /** The device that recovery has left open, and where. */
  let current: { readonly device: InlineDevice; readonly seat: Seat } | undefined;
  let owners: Owners;
  /** Whether removing the metadata of the complete copy has begun, or removing the copy. */
  let isFinishing = false;
  let isRemoving = false;
  /** The target, once the copy was found finished. */
  let finished: Uint8Array | undefined;
  /** Whether no device has opened the copy so far. */
  let isNew = true;
  /** Which writes since the last check are promised, given the crashes and faults since. */
  let counts: Counting = 'acknowledged';

  const firstSeat = (life: Life): Seat => {
    if (shape.owners === undefined) return { fileSystem: life.fileSystem, isReplaced: false };
    owners = new Owners(life, image.target);
    return owners.next();
  };

  /** An owner that was replaced has acknowledged what it must not. */
  const refuseLate = (seat: Seat, what: string): void => {
    if (seat.isReplaced) throw new Error(`${what} was acknowledged after another owner had taken over`);
  };

  const open = (
    life: Life,
    seat: Seat,
    hydrate: boolean,
    how: 'faults' | 'reliable' | 'absent',
  ): Promise<InlineDevice> =>
    openDeviceIn(environmentOf(life), {
      source:
        how === 'absent'
          ? undefined
          : how === 'faults' && shape.source === 'comes and goes'
            ? unreliable(image, shape, life, isNew)
            : sourceOf(image, shape, life.clock, life.random.fork(), how === 'faults' && (shape.faults ?? false)),
      fileSystem: seat.fileSystem,
      target: image.target,
      blockSize,
      hydrate: hydrate ? {} : false,
      checkpointIntervalMs: INTERVAL_MS,
    });

  /** Reads all parts. */
  const readAll = async (from: InlineDevice): Promise<Uint8Array[]> =>
    Promise.all(
      parts.map(async ({ base, length }) => {
        const bytes = new Uint8Array(length);
        await from.read(bytes, base);
        checked.bytes += length;
        return bytes;
      }),
    );

  const step = async (from: InlineDevice, seat: Seat, clock: SimulatedClock, random: Random): Promise<void> => {
    const part = parts[parts.length === 1 ? 0 : random.below(parts.length)]!;
    const { base, length: all, history } = part;
    // Small and large, aligned and unaligned, within blocks and across them. Offsets are relative to the window.
    const unit = random.oneIn(3) ? blockSize : machine.sectors ? SECTOR_BYTES : 1;
    const offset = random.below(Math.ceil(all / unit)) * unit;
    const longest = random.oneIn(2) ? 3 * blockSize : 3 * SECTOR_BYTES;
    const length = Math.min(all - offset, (1 + random.below(Math.ceil(longest / unit))) * unit);
    const flush = async (): Promise<void> => {
      const done = [changes.beginFlush(), ...parts.map((part) => part.history.beginFlush())];
      await from.flush();
      refuseLate(seat, 'a flush');
      for (const note of done) note();
    };
    /** Notes that a change begins. */
    const begin = (place: number, bytes: Uint8Array): HistoricWrite & { place: number; length: number } => {
      changes.begin(base + place, bytes.length);
      return Object.assign(history.begin(place, bytes), { place, length: bytes.length });
    };
    /** Makes a change, and reports its outcome to the histories. */
    const change = async (write: ReturnType<typeof begin>, work: Promise<void>, durable = false): Promise<void> => {
      try {
        await work;
      } catch (error) {
        if (!seat.isReplaced) history.fail(write);
        throw error;
      }
      if (durable) refuseLate(seat, 'a write with FUA');
      // Not promised, and the next owner has settled what was in flight.
      if (seat.isReplaced) return;
      history.acknowledge(write, { durable });
      changes.acknowledge(base + write.place, write.length, { durable });
    };
    const write = (place: number, bytes: Uint8Array, fua: boolean): Promise<void> => {
      part.hot = place;
      const historic = begin(place, bytes);
      const writing = shape.inline
        ? submitWrite(from, bytes, base + place, { fua, commit: random.oneIn(2) })
        : from.write(bytes, base + place, { fua });
      return change(historic, writing, fua);
    };
    /** Several writes of one cell in one turn, perhaps with a flush among them. */
    const burst = async (): Promise<void> => {
      const grain = machine.sectors ? SECTOR_BYTES : 1;
      const near = random.oneIn(2) ? Math.min(part.hot, all - 1) : offset;
      const start = near - (near % CELL_BYTES);
      const end = Math.min(all, start + CELL_BYTES);
      const works: Promise<void>[] = [];
      for (let count = 1 + random.below(4); count > 0; count--) {
        const at = random.oneIn(4) ? start : start + random.below(Math.ceil((end - start) / grain)) * grain;
        const most = random.oneIn(4) ? end - at : Math.min(end - at, 2 * SECTOR_BYTES);
        const bytes = random.oneIn(4) ? most : Math.min(most, (1 + random.below(Math.ceil(most / grain))) * grain);
        works.push(write(at, random.fill(new Uint8Array(bytes)), false));
        if (random.oneIn(4)) works.push(flush());
      }
      const failed = (await Promise.allSettled(works)).find(({ status }) => status === 'rejected');
      if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
    };
    switch (random.below(14)) {
      case 0:
      case 1:
        return flush();
      case 2:
        await from.checkpoint();
        refuseLate(seat, 'a checkpoint');
        return burst();
      case 3: {
        const into = new Uint8Array(length);
        const check = history.beginRead(offset);
        await (shape.inline ? from.submitRead(into, base + offset) : from.read(into, base + offset));
        if (seat.isReplaced) return;
        checked.bytes += length;
        const wrong = check(into);
        if (wrong !== undefined) throw new Error(`a read from offset ${base}: ${wrong}`);
        return;
      }
      case 4:
        return change(begin(offset, new Uint8Array(length)), from.writeZeroes(base + offset, length));
      case 5: {
        const start = Math.ceil(offset / blockSize) * blockSize;
        const isLast = base + offset + length === size;
        const end = isLast ? all : Math.floor((offset + length) / blockSize) * blockSize;
        if (start >= end) return from.discard(base + offset, length);
        return change(begin(start, new Uint8Array(end - start)), from.discard(base + offset, length));
      }
      case 6:
        return clock.sleep(random.below(2 * INTERVAL_MS));
      case 7:
      case 8:
        return burst();
      default:
        return write(offset, random.fill(new Uint8Array(length)), random.oneIn(4));
    }
  };

  /** A block that has changed since the last check and is not modified, also by a write that was in flight. */
  const unmarked = (from: InlineDevice, found: readonly Uint8Array[]): string | undefined => {
    // Before a flush the target may have bytes that neither it nor the log promises.
    if (counts === 'durable') return undefined;
    for (const [index, { base, length, before }] of parts.entries()) {
      for (let at = 0; at < length; at += blockSize) {
        const [one, other] = [before, found[index]!].map((bytes) => bytes.subarray(at, at + blockSize));
        if (Buffer.compare(one!, other!) !== 0 && !from.modified.has((base + at) / blockSize))
          return `block ${(base + at) / blockSize} has changed, but is not modified`;
      }
    }
    return undefined;
  };

  /** A call of an owner that was replaced, at least 10 s ago. */
  const lateStep = async (from: InlineDevice, random: Random): Promise<void> => {
    const offset = random.below(Math.ceil(size / SECTOR_BYTES)) * SECTOR_BYTES;
    const bytes = random.fill(new Uint8Array(Math.min(SECTOR_BYTES, size - offset)));
    // A successor that is opening may read that it is about to be modified, and no byte of it.
    changes.begin(offset, bytes.length);
    const calls = {
      flush: () => from.flush(),
      checkpoint: () => from.checkpoint(),
      'write with FUA': () => from.write(bytes, offset, { fua: true }),
      write: () => from.write(bytes, offset),
      read: () => from.read(bytes, offset),
    };
    const [name, call] = Object.entries(calls)[random.below(5)]!;
    await call();
    throw new Error(`a ${name} of an owner that was replaced was acknowledged`);
  };

  const tolerant = async (seat: Seat, work: Promise<void>): Promise<void> => {
    try {
      await work;
    } catch (error) {
      if (seat.isReplaced && REPLACED.some((code) => isCodError(error, code))) return;
      if (!(shape.faults || shape.source) || !FAULTS.some((code) => isCodError(error, code))) throw error;
    }
  };

  /** Injects a fault: immediately or later, temporary or permanent. */
  const putFault = async ({ clock, random, fileSystem }: Life): Promise<void> => {
    await clock.sleep(random.below(20));
    if (random.oneIn(2)) fileSystem.limitSpace(random.below(12) * 4096);
    else {
      const from = fileSystem.operationCount + 1 + random.below(40);
      // Failed writes and syncs have the most consequences.
      const kinds = machine.sectors
        ? (['write', 'write', 'sync', 'sync', 'sync', 'truncate', 'open', 'read', undefined] as const)
        : (['write', 'write', 'write', 'truncate', 'open', 'read'] as const);
      const kind = kinds[random.below(kinds.length)];
      const stays = random.oneIn(2);
      const metadataOnly = random.oneIn(2);
      fileSystem.failWhen(
        (operation) => {
          // After a failed sync the log writes a mark, and that write must succeed as a whole.
          if (metadataOnly && operation.name === image.target) return false;
          const fails =
            operation.number >= from &&
            (kind === undefined ? !(stays && operation.kind === 'sync') : operation.kind === kind);
          // After a failed sync only flushed writes are promised.
          if (fails && operation.kind === 'sync') counts = 'durable';
          return fails;
        },
        { stays, ...(random.oneIn(2) ? { code: 'COD_NO_SPACE' as const } : {}) },
      );
    }
    if (random.oneIn(2)) return;
    await clock.sleep(random.below(60));
    fileSystem.clearFaults();
  };

  /** Finishes the copy, and compares the target as an ordinary file. */
  const finish = async (life: Life, opened: InlineDevice, found: readonly Uint8Array[]): Promise<void> => {
    await opened.hydrated;
    expectSame((await readAll(opened))[0]!, found[0]!, 'once the copy is complete');
    await opened.finish();
    expectSame(await contentOf(life.fileSystem, image.target), found[0]!, 'the finished target');
  };

  /** Completes the copy and removes its metadata. */
  const complete = async (opened: InlineDevice, seat: Seat, clock: SimulatedClock): Promise<void> => {
    await opened.hydrateRange(0, size);
    // The copy waits for room as long as a disk is full, and that may be forever here.
    const late = clock.sleep(PATIENCE_MS).then(() => Promise.reject(new CodError('COD_NO_SPACE', 'no room so far')));
    await Promise.race([opened.hydrated, late]);
    if (!seat.isReplaced) isFinishing = true;
    await opened.finish();
    refuseLate(seat, 'a finish');
    closed.add(opened);
  };

  /** Devices that were closed by their owner, for whom another call of `close` does nothing. */
  const closed = new WeakSet<InlineDevice>();

  const close = async (opened: InlineDevice, seat: Seat): Promise<void> => {
    await opened.close();
    if (!closed.has(opened)) refuseLate(seat, 'a close');
    closed.add(opened);
  };

  /** Abandons the copy. */
  const remove = async (opened: InlineDevice, seat: Seat, life: Life): Promise<void> => {
    await close(opened, seat);
    isRemoving = true;
    await removeCopyIn(environmentOf(life), { fileSystem: seat.fileSystem, target: image.target });
    refuseLate(seat, 'a removal');
  };

  /** Whether the copy was abandoned, also by a removal that was interrupted: then all bytes are the source's. */
  const isAbandoned = (found: readonly Uint8Array[]): boolean =>
    isRemoving &&
    parts.every(({ base, length }, index) => {
      const original = new Uint8Array(length);
      image.read(original, base);
      return Buffer.compare(original, found[index]!) === 0;
    });

  /** Compares a target whose metadata is gone. Finishing makes everything durable before it removes any of it. */
  const checkFinished = async ({ fileSystem }: Seat, after: string, counting: Counting): Promise<void> => {
    const content = await contentOf(fileSystem, image.target);
    const wrong = parts[0]!.history.violation(content, counting);
    if (wrong !== undefined) throw new Error(`finished, ${after}: ${wrong}`);
    if (finished !== undefined) expectSame(content, finished, 'the finished target after another crash');
    finished = content;
  };

  /** Opens the copy, whatever a removal or a finish has left. Undefined: its metadata is gone. */
  const openFound = async (life: Life, seat: Seat, hydrate: boolean): Promise<InlineDevice | undefined> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await open(life, seat, hydrate, 'reliable');
      } catch (error) {
        if (!isCodError(error, 'COD_EXISTS') || seat.isReplaced) throw error;
        if (shape.owners !== undefined && attempt < ATTEMPTS) {
          await life.clock.sleep(10);
          continue;
        }
        if (isFinishing) return undefined;
        if (!isRemoving) throw error;
        // A power cut may bring back the name of a removed target, but no byte of it.
        const content = await contentOf(seat.fileSystem, image.target);
        if (content.length > 0) throw error;
        await seat.fileSystem.remove(image.target);
      }
    }
  };

  /** Opens the copy and compares it with what was promised. Undefined: it was finished. */
  const reopen = async (
    life: Life,
    seat: Seat,
    hydrate: boolean,
    { after, countsFinished }: { after: string; countsFinished: Counting },
  ): Promise<{ opened: InlineDevice; found: readonly Uint8Array[] } | undefined> => {
    const opened = await openFound(life, seat, hydrate);
    if (opened === undefined) {
      await checkFinished(seat, after, countsFinished);
      return undefined;
    }
    const found = await readAll(opened);
    // The next owner compares it.
    if (seat.isReplaced) return { opened, found };
    isFinishing = false;
    if (isAbandoned(found)) {
      for (const [index, part] of parts.entries()) {
        part.history.settle(found[index]!);
        part.before = found[index]!;
      }
      changes.settle(opened.modified);
    }
    isRemoving = false;
    const missing = changes.violation(opened.modified, counts) ?? unmarked(opened, found);
    if (missing !== undefined) throw new Error(`${after}: ${missing}`);
    changes.settle(opened.modified);
    for (const [index, { base, history }] of parts.entries()) {
      const wrong = history.violation(found[index]!, counts);
      if (wrong !== undefined) throw new Error(`${after}, from ${base} on: ${wrong}`);
      // An open device has made its recovered state durable.
      history.settle(found[index]!);
      parts[index]!.before = found[index]!;
    }
    counts = 'acknowledged';
    return { opened, found };
  };

  /** Lets the users work, and ends the work. */
  const use = async (life: Life, seat: Seat, opened: InlineDevice, onEnd = () => {}): Promise<void> => {
    const { clock, random } = life;
    const fault = shape.faults && random.oneIn(2) ? putFault(life) : undefined;
    const user = async (mine: Random): Promise<void> => {
      for (let count = 0; count < shape.steps; count++)
        await tolerant(seat, seat.isReplaced ? lateStep(opened, mine) : step(opened, seat, clock, mine));
    };
    await Promise.all([fault, ...Array.from({ length: shape.users }, () => user(random.fork()))]);
    onEnd();
    if (random.oneIn(shape.owners === undefined ? 6 : 2))
      await tolerant(seat, isWhole && random.oneIn(2) ? complete(opened, seat, clock) : remove(opened, seat, life));
    await tolerant(seat, close(opened, seat));
  };

  /** Works as an owner that is perhaps replaced at one of its steps, and then continues beside its successor. */
  const reign = async (life: Life, owner: Owner, given: InlineDevice | undefined, heirs: number): Promise<void> => {
    const { clock, random } = life;
    // An opening takes more steps than most calls, and few owners would be replaced in a finish.
    const where = (['opening', 'use', 'end'] as const)[random.below(3)]!;
    const pauseIn = (phase: typeof where): void => {
      if (heirs > 0 && phase === where) owner.pauseAt(1 + random.below(phase === 'use' ? 40 : 100));
    };
    const work = async (): Promise<void> => {
      pauseIn('opening');
      const found = { after: 'after a take-over', countsFinished: counts };
      const opened = given ?? (await reopen(life, owner, shape.hydrate, found))?.opened;
      pauseIn('use');
      if (opened !== undefined) await use(life, owner, opened, () => pauseIn('end'));
    };
    const working = tolerant(owner, work());
    if (await Promise.race([owner.wrong, owner.paused.then(() => true), working.then(() => false)])) {
      // Files close, and what has passed its last check is acknowledged.
      await clock.sleep(5);
      const next = owners.next();
      const waking = clock.sleep(random.below(random.oneIn(2) ? 20 : 100)).then(() => owner.resume());
      await Promise.race([owner.wrong, Promise.all([working, waking, reign(life, next, undefined, heirs - 1)])]);
    }
  };

  return {
    work: async (life) => {
      if (finished !== undefined) return;
      const { device, seat } = current ?? { seat: firstSeat(life) };
      current = undefined;
      if (shape.owners !== undefined) return reign(life, seat as Owner, device, shape.owners - 1);
      const opened = device ?? (await open(life, seat, shape.hydrate, 'faults'));
      // Format 1 has modified blocks from the start.
      if (device === undefined) changes.settle(opened.modified);
      await use(life, seat, opened);
    },
    recover: async (life) => {
      isNew = false;
      const countsFinished = counts;
      if (life.crash !== 'process') counts = 'durable';
      const seat = firstSeat(life);
      const after = `after a ${life.crash} crash`;
      const hydrate = isWhole && (shape.hydrate || life.isLast);
      const { opened, found } = (await reopen(life, seat, hydrate, { after, countsFinished })) ?? {};
      if (opened === undefined) return;
      if (!life.isLast && shape.source === undefined) current = { device: opened, seat };
      else if (!life.isLast) {
        await opened.close();
        current = {
          device: await open(life, seat, shape.hydrate, shape.source === 'absent' ? 'absent' : 'faults'),
          seat,
        };
      } else if (isWhole && life.random.oneIn(2)) await finish(life, opened, found!);
      else await opened.close();
    },
  };
}

/** Writes as the NBD server does. */
function submitWrite(
  to: InlineDevice,
  bytes: Uint8Array,
  offset: number,
  { fua, commit }: { fua: boolean; commit: boolean },
): Promise<void> {
  return new Promise((resolve, reject) => {
    to.submitWrite(bytes, offset, fua, (error) => (error === undefined ? resolve() : reject(error)));
    if (commit) to.commitWrites();
  });
}

async function contentOf(fileSystem: FileSystem, name: string): Promise<Uint8Array> {
  const file = await fileSystem.open(name);
  const bytes = new Uint8Array(await file.size());
  await file.read(bytes, 0);
  await file.close();
  checked.bytes += bytes.length;
  return bytes;
}

function expectSame(found: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(found, expected) === 0) return;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  throw new Error(
    `${what}: ${found.length} bytes, ${expected.length} expected; ` +
      `byte ${at} is ${found[at]}, ${expected[at]} expected`,
  );
}
