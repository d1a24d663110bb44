/**
 * Faults of datto/copyondemand, in Go, each with a test of the correct behaviour. Every fault was seen in that program.
 *
 * Not covered here: its NBD server's trims and read errors, and its rate files.
 */

import { Volume } from 'memfs';
import { afterEach, describe, expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { CodError, type Device, type FileSystem, type OpenDeviceOptions, type Source } from '../../src/index.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { CrashingFileSystem, SimulatedClock, type StorageOperation, seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { ControlledSource, TimedSource } from '../support/controlled-source.ts';
import { nextEvent } from '../support/device-events.ts';

const BLOCK = 4096;
const DAY_MS = 86_400_000;

function pattern(size: number, seed = 1): Uint8Array {
  return seededRandom(seed)
    .fill(new Uint8Array(size))
    .map((byte) => byte | 1);
}

const opened: { device: Device; machine: Machine }[] = [];

afterEach(async () => {
  for (const { device, machine } of opened.splice(0)) {
    if (!machine.dead) await device.close().catch(() => undefined);
  }
});

/** A computer with one process, which can crash and restart. */
class Machine {
  readonly clock = new SimulatedClock({ settle: () => new Promise((resolve) => setImmediate(resolve)) });
  readonly fileSystem: CrashingFileSystem;
  readonly #seed: number;
  dead = false;

  constructor(seed = 1, fileSystem = new CrashingFileSystem({ random: seededRandom(seed), bootId: 'boot' })) {
    this.#seed = seed;
    this.fileSystem = fileSystem;
  }

  open(source: Source, options: Partial<OpenDeviceOptions> = {}): Promise<Device> {
    return this.openIn(this.fileSystem, source, options);
  }

  async openIn(fileSystem: FileSystem, source: Source, options: Partial<OpenDeviceOptions> = {}): Promise<Device> {
    const random = seededRandom(this.#seed);
    const device = await openDeviceIn(
      { clock: this.clock, randomBytes: (into) => random.fill(into) },
      { source, fileSystem, target: 'disk', ...options },
    );
    opened.push({ device, machine: this });
    return device;
  }

  crash(kind: 'process' | 'power'): Machine {
    this.dead = true;
    return new Machine(this.#seed + 1, this.fileSystem.crash({ kind, random: seededRandom(this.#seed) }));
  }

  async file(name = 'disk'): Promise<Uint8Array> {
    const file = await this.fileSystem.open(name);
    const bytes = new Uint8Array(await file.size());
    await file.read(bytes, 0);
    await file.close();
    return bytes;
  }

  async put(name: string, bytes: Uint8Array): Promise<void> {
    const file = await this.fileSystem.open(name, { create: true });
    let end = bytes.length;
    while (end > 0 && bytes[end - 1] === 0) end--;
    await file.truncate(0);
    await file.write(bytes.subarray(0, end), 0);
    await file.truncate(bytes.length);
    await file.sync();
    await file.close();
  }
}

async function readAll(device: Device): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

/** Opens the copy after a crash. Device and target file must equal the model, before and after the background copy. */
async function expectAfterRestart(
  machine: Machine,
  source: Uint8Array,
  model: Uint8Array,
  options: Partial<OpenDeviceOptions> = {},
) {
  const device = await machine.open(bytesSource(source, { identity: 'x' }), { hydrate: false, ...options });
  expectBytes(await readAll(device), model);
  await device.close();
  const again = await machine.open(bytesSource(source, { identity: 'x' }));
  await again.hydrated;
  expectBytes(await readAll(again), model);
  expectBytes(await machine.file(), model);
}

const targetWrite = ({ kind, name }: StorageOperation): boolean => kind === 'write' && name === 'disk';

describe('the log records', () => {
  it.each([0, 1, 5, 8, 9])(
    'a write of one whole block at any index, here %i (original: only block 0)',
    async (block) => {
      for (const durable of [false, true]) {
        const source = pattern(9 * BLOCK + 100);
        const model = source.slice();
        const machine = new Machine();
        const device = await machine.open(bytesSource(source, { identity: 'x' }), { hydrate: false });
        const written = pattern(Math.min(BLOCK, source.length - block * BLOCK), 7);
        await device.write(written, block * BLOCK);
        if (durable) await device.flush();
        model.set(written, block * BLOCK);
        await expectAfterRestart(machine.crash(durable ? 'power' : 'process'), source, model);
      }
    },
  );

  it.each([
    { name: 'followed by a partial last one', offset: 3 * BLOCK, length: BLOCK + 100, synced: undefined },
    { name: 'followed by one that is already synced', offset: 3 * BLOCK, length: 2 * BLOCK, synced: 4 },
    { name: 'followed by a part of one that is already synced', offset: 3 * BLOCK, length: BLOCK + 100, synced: 4 },
    { name: 'after a partial first one', offset: 2 * BLOCK + 50, length: 2 * BLOCK - 50, synced: undefined },
    { name: 'between two partial ones', offset: 2 * BLOCK + 50, length: 2 * BLOCK, synced: undefined },
  ])('a whole block $name (original: lost the whole block)', async ({ offset, length, synced }) => {
    const source = pattern(10 * BLOCK);
    const model = source.slice();
    const machine = new Machine();
    const device = await machine.open(bytesSource(source, { identity: 'x' }), { hydrate: false });
    const write = async (at: number, bytes: Uint8Array): Promise<void> => {
      await device.write(bytes, at);
      model.set(bytes, at);
    };
    if (synced !== undefined) await write(synced * BLOCK, pattern(BLOCK, 2));
    await write(offset, pattern(length, 3));
    await expectAfterRestart(machine.crash('process'), source, model);
  });

  it('a write to a block that the background copy stored (original: logged neither, lost flushed writes)', async () => {
    for (const kind of ['process', 'power'] as const) {
      const bytes = pattern(64 * BLOCK);
      const model = bytes.slice();
      const source = new ControlledSource(bytes, { pieceBytes: () => 16 * BLOCK });
      const machine = new Machine();
      const device = await machine.open(source);
      const first = await source.next();
      // Blocks are recorded after some bytes or after some time.
      await machine.clock.advance(1000);
      first.release();
      await source.next();
      await expect.poll(() => device.status().syncedBlocks).toBe(16);
      for (const [offset, length] of [
        [2 * BLOCK, BLOCK],
        [5 * BLOCK + 17, 100],
        [15 * BLOCK + 4000, 200],
      ] as const) {
        const written = pattern(length, offset);
        await device.write(written, offset);
        model.set(written, offset);
      }
      if (kind === 'power') await device.flush();
      const after = machine.crash(kind);
      const again = new ControlledSource(bytes);
      const second = await after.open(again);
      await again.serve(second.hydrated);
      expectBytes(await readAll(second), model);
      expectBytes(await after.file(), model);
    }
  });

  it('a write to a block that a reader fetched', async () => {
    const source = pattern(8 * BLOCK);
    const model = source.slice();
    const machine = new Machine();
    const device = await machine.open(bytesSource(source, { identity: 'x' }), { hydrate: false });
    await device.read(new Uint8Array(10), 3 * BLOCK);
    await expect.poll(() => device.status().syncedBlocks).toBe(1);
    await device.write(pattern(10, 2), 3 * BLOCK + 20);
    model.set(pattern(10, 2), 3 * BLOCK + 20);
    await expectAfterRestart(machine.crash('process'), source, model);
  });

  it('writes to a complete copy: no crash restores source bytes (original: no last checkpoint)', async () => {
    for (const kind of ['process', 'power'] as const) {
      const bytes = pattern(64 * BLOCK);
      const model = bytes.slice();
      const machine = new Machine();
      const source = new ControlledSource(bytes);
      const device = await machine.open(source);
      await source.serve(device.hydrated);
      for (let day = 0; day < 5; day++) {
        const written = pattern(3 * BLOCK + 5, day);
        await device.write(written, (60 - 13 * day) * BLOCK + day);
        model.set(written, (60 - 13 * day) * BLOCK + day);
        await machine.clock.advance(DAY_MS);
      }
      const after = machine.crash(kind);
      const untouched = new ControlledSource(bytes);
      const second = await after.open(untouched);
      await second.hydrated;
      expect(untouched.asked()).toEqual([]);
      expectBytes(await after.file(), model);
    }
  });
});

describe('a write of the target that fails', () => {
  it('during hydration never leaves zeros in a synced block (original: marked the block first)', async () => {
    for (let failing = 1; failing <= 8; failing++) {
      for (const reader of [false, true]) {
        const bytes = pattern(8 * BLOCK);
        const machine = new Machine(failing);
        let writes = 0;
        machine.fileSystem.failWhen((operation) => targetWrite(operation) && ++writes === failing, {
          code: 'COD_NO_SPACE',
        });
        const source = new ControlledSource(bytes, { pieceBytes: () => BLOCK });
        const device = await machine.open(source, { hydrate: reader ? false : {} });
        if (reader) {
          for (let block = 0; block < 8; block++) {
            const into = new Uint8Array(BLOCK);
            await source.serve(device.read(into, block * BLOCK));
            expectBytes(into, bytes.slice(block * BLOCK, (block + 1) * BLOCK));
          }
        } else expect(await source.serve(nextEvent(device, 'retry'))).toMatchObject({ code: 'COD_NO_SPACE' });
        machine.fileSystem.clearFaults();
        expectBytes(await source.serve(readAll(device)), bytes);
        await expectCopyAfterRestart(machine.crash('process'), source, bytes);
      }
    }
  });

  it('during the merge of a dirty block loses no written byte (original: dropped the dirty parts first)', async () => {
    for (let failing = 1; failing <= 12; failing++) {
      const bytes = pattern(4 * BLOCK);
      const model = bytes.slice();
      const machine = new Machine(failing);
      const source = new ControlledSource(bytes);
      let device = await machine.open(source, { hydrate: false });
      for (const at of [100, BLOCK + 700, BLOCK + 900, 2 * BLOCK - 50, 3 * BLOCK + 4000]) {
        await device.write(pattern(60, at), at);
        model.set(pattern(60, at), at);
      }
      await device.close();
      let writes = 0;
      machine.fileSystem.failWhen((operation) => targetWrite(operation) && ++writes === failing, {
        code: 'COD_NO_SPACE',
        stays: false,
      });
      device = await machine.open(source);
      // Some of these writes do not exist.
      const failed = await source.serve(Promise.race([nextEvent(device, 'retry'), device.hydrated]));
      if (failed !== undefined) expect(failed.code).toBe('COD_NO_SPACE');
      machine.fileSystem.clearFaults();
      expectBytes(await source.serve(readAll(device)), model);
      await expectCopyAfterRestart(machine.crash('process'), source, model);
    }
  });

  it('because the disk is full reaches the writer, and the device works again when there is room', async () => {
    const bytes = pattern(8 * BLOCK);
    const model = bytes.slice();
    const machine = new Machine();
    const source = bytesSource(bytes, { identity: 'x' });
    const device = await machine.open(source, { hydrate: false });
    machine.fileSystem.limitSpace(0);
    await expect(device.write(pattern(2 * BLOCK, 2), BLOCK)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    expectBytes(await readAll(device), model);
    machine.fileSystem.clearFaults();
    await device.write(pattern(2 * BLOCK, 3), BLOCK);
    model.set(pattern(2 * BLOCK, 3), BLOCK);
    await expectAfterRestart(machine.crash('process'), bytes, model);
  });
});

/** Opens the copy after a crash, from a source that the test serves. The device must equal the model. */
async function expectCopyAfterRestart(machine: Machine, source: ControlledSource, model: Uint8Array): Promise<void> {
  const device = await machine.open(source);
  await source.serve(device.hydrated);
  expectBytes(await readAll(device), model);
  expectBytes(await machine.file(), model);
}

describe('a source that fails', () => {
  it.each(['fails', 'returns too few bytes'])(
    'changes no target byte when it %s (original: wrote stale memory and marked it synced)',
    async (how) => {
      for (const streams of [true, false]) {
        for (const reader of [true, false]) {
          const bytes = pattern(16 * BLOCK);
          const machine = new Machine();
          const source = new ControlledSource(bytes, { streams, pieceBytes: () => 3 * BLOCK });
          const device = await machine.open(source, { hydrate: reader ? false : {} });
          const retry = nextEvent(device, 'retry').then(({ code }) => Promise.reject(new CodError(code as never, '')));
          const result = reader ? device.read(new Uint8Array(BLOCK), 5 * BLOCK) : retry;
          retry.catch(() => undefined);
          const answer = await source.next();
          if (how === 'fails') answer.fail();
          else {
            answer.bytes = answer.bytes.slice(0, 100);
            answer.release();
            if (answer.ask.kind === 'stream') (await source.next()).end();
          }
          await expect(result).rejects.toBeInstanceOf(CodError);
          expect(device.status().syncedBlocks).toBe(0);
          expectBytes(await source.serve(readAll(device)), bytes);
          await expectCopyAfterRestart(machine.crash('process'), source, bytes);
        }
      }
    },
  );
});

describe('existing files', () => {
  it('from an earlier copy are never read as this copy’s log (original: did not truncate its log)', async () => {
    const bytes = pattern(32 * BLOCK);
    const first = new Machine(1);
    const device = await first.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
    for (let block = 0; block < 32; block++) await device.write(pattern(BLOCK, block + 50), block * BLOCK);
    const names = ['disk.wil', 'disk.wil.1'];
    const stale = new Map<string, Uint8Array>();
    for (const name of names) stale.set(name, await first.file(name).catch(() => new Uint8Array(0)));
    for (const name of names) {
      if (stale.get(name)!.length === 0) continue;
      const machine = new Machine(2);
      await machine.put(name, stale.get(name)!);
      // The open may refuse the stale log or start a new copy. It must not read the stale log.
      const outcome = await machine.open(bytesSource(bytes, { identity: 'x' })).catch((error: CodError) => error.code);
      if (typeof outcome === 'string') {
        expect(outcome).toBe('COD_CORRUPT');
        continue;
      }
      await outcome.write(pattern(10, 3), 100);
      const model = bytes.slice();
      model.set(pattern(10, 3), 100);
      await expectAfterRestart(machine.crash('process'), bytes, model);
    }
  });

  it('from an earlier use of a slot add no records to the log that reuses the slot', async () => {
    for (const kind of ['process', 'power'] as const) {
      const bytes = pattern(64 * BLOCK);
      const machine = new Machine();
      const device = await machine.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
      const model = bytes.slice();
      for (let round = 0; round < 5; round++) {
        for (let write = 0; write < 40 - 8 * round; write++) {
          const at = ((write * 37 + round * 11) % 64) * BLOCK + 17 * round;
          await device.write(pattern(300, write), at);
          model.set(pattern(300, write), at);
        }
        await device.checkpoint();
      }
      const before = { ...device.status() };
      const after = machine.crash(kind);
      const again = await after.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
      expect(again.status()).toMatchObject({ syncedBlocks: before.syncedBlocks, dirtyBlocks: before.dirtyBlocks });
      expectBytes(await readAll(again), model);
    }
  });

  it('of any size without metadata are refused and left unchanged', async () => {
    for (const size of [0, 5, 10 * BLOCK, 20 * BLOCK]) {
      const machine = new Machine();
      await machine.put('disk', pattern(size, 9));
      await expect(machine.open(bytesSource(pattern(10 * BLOCK)))).rejects.toMatchObject({ code: 'COD_EXISTS' });
      expectBytes(await machine.file(), pattern(size, 9));
    }
  });

  it('of a copy take no byte of another size or source (original: adopted the target without a check)', async () => {
    const bytes = pattern(10 * BLOCK);
    const machine = new Machine();
    const device = await machine.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
    await device.write(pattern(BLOCK, 2), 0);
    await device.close();
    const before = await machine.file();
    for (const other of [
      bytesSource(pattern(10 * BLOCK + 1), { identity: 'x' }),
      bytesSource(pattern(9 * BLOCK), { identity: 'x' }),
      bytesSource(bytes, { identity: 'y' }),
    ]) {
      const again = await machine.open(other);
      await expect(again.read(new Uint8Array(1), 5 * BLOCK)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
      expect(again.status()).toMatchObject({ state: 'waiting', size: 10 * BLOCK, sourceBytes: 0 });
      await again.close();
      expectBytes(await machine.file(), before);
    }
  });

  it.each([
    { size: 10 * BLOCK - 1, code: 'COD_CORRUPT' },
    { size: 10 * BLOCK + 1, code: 'COD_SIZE_MISMATCH' },
  ])('are refused when the target was resized to $size bytes', async ({ size, code }) => {
    const machine = new Machine();
    const source = bytesSource(pattern(10 * BLOCK), { identity: 'x' });
    const device = await machine.open(source);
    await device.hydrated;
    await device.close();
    const file = await machine.fileSystem.open('disk');
    await file.truncate(size);
    await file.close();
    await expect(machine.open(source)).rejects.toMatchObject({ code });
  });

  it('of an image of the same name elsewhere have no effect (original: logs in the current directory)', async () => {
    const volume = new Volume();
    volume.mkdirSync('/a');
    volume.mkdirSync('/b');
    const fileSystem = memfsFileSystem(volume);
    const machine = new Machine();
    const [a, b] = [pattern(6 * BLOCK, 1), pattern(6 * BLOCK, 2)];
    const first = await machine.openIn(fileSystem, bytesSource(a), { target: 'a/disk', hydrate: false });
    const second = await machine.openIn(fileSystem, bytesSource(b), { target: 'b/disk', hydrate: false });
    await first.write(pattern(4 * BLOCK, 3), 0);
    await second.write(pattern(10, 4), 5 * BLOCK);
    await Promise.all([first.close(), second.close()]);
    expect(Object.keys(volume.toJSON()).filter((path) => !/^\/[ab]\/disk/.test(path))).toEqual([]);
    const [firstAgain, secondAgain] = [
      await machine.openIn(fileSystem, bytesSource(a), { target: 'a/disk' }),
      await machine.openIn(fileSystem, bytesSource(b), { target: 'b/disk' }),
    ];
    a.set(pattern(4 * BLOCK, 3), 0);
    b.set(pattern(10, 4), 5 * BLOCK);
    expectBytes(await readAll(firstAgain), a);
    expectBytes(await readAll(secondAgain), b);
  });

  it('of an open copy refuse a second device (original: no lock)', async () => {
    const fileSystem = memfsFileSystem();
    const machine = new Machine();
    const source = bytesSource(pattern(6 * BLOCK));
    const first = await machine.openIn(fileSystem, source, { hydrate: false });
    await first.write(pattern(10, 2), 0);
    await expect(machine.openIn(fileSystem, source)).rejects.toMatchObject({ code: 'COD_LOCKED' });
    await first.write(pattern(10, 3), 10);
    await first.close();
    const second = await machine.openIn(fileSystem, source);
    const model = pattern(6 * BLOCK);
    model.set(pattern(10, 2), 0);
    model.set(pattern(10, 3), 10);
    expectBytes(await readAll(second), model);
  });
});

describe('the files after a crash', () => {
  it('at any point of a flush or checkpoint open again, twice (original: panicked if both maps existed)', async () => {
    for (const call of ['flush', 'checkpoint', 'close'] as const) {
      for (const kind of ['process', 'power'] as const) {
        for (let step = 1; ; step++) {
          const bytes = pattern(12 * BLOCK);
          const model = bytes.slice();
          const machine = new Machine(step);
          const device = await machine.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
          const written = pattern(3 * BLOCK, 4);
          await device.write(written, 2 * BLOCK + 100);
          await device.flush();
          model.set(written, 2 * BLOCK + 100);
          const unflushed = pattern(BLOCK, 5);
          await device.write(unflushed, 0);
          if (kind === 'process') model.set(unflushed, 0);
          machine.fileSystem.crashAt(machine.fileSystem.operationCount + step);
          const over = await Promise.race([
            device[call]().then(() => true),
            machine.fileSystem.crashed.then(() => false),
          ]);
          if (over) {
            machine.fileSystem.crashAt(Number.POSITIVE_INFINITY);
            expect(step).toBeGreaterThan({ flush: 3, checkpoint: 8, close: 7 }[call]);
            break;
          }
          const after = machine.crash(kind);
          for (let start = 0; start < 2; start++) {
            const again = await after.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
            const found = await readAll(again);
            // After a power cut, each sector of the unflushed write may be old or new.
            if (kind === 'power' && start === 0) {
              for (let at = 0; at < BLOCK; at++) if (found[at] === unflushed[at]) model[at] = found[at]!;
            }
            expectBytes(found, model);
            await again.close();
          }
        }
      }
    }
  });

  it('with a log cut at any byte open again (original: panicked on a torn tail)', async () => {
    const bytes = pattern(6 * BLOCK);
    const machine = new Machine();
    const device = await machine.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
    const model = bytes.slice();
    const write = async (at: number, length: number): Promise<void> => {
      await device.write(pattern(length, at + 2), at);
      model.set(pattern(length, at + 2), at);
    };
    await write(100, 50);
    const name = (await machine.file('disk.wil.1')).some((byte) => byte !== 0) ? 'disk.wil.1' : 'disk.wil';
    const before = await machine.file(name);
    await write(BLOCK, BLOCK);
    const afterwards = await machine.file(name);
    const target = await machine.file();
    const first = afterwards.findIndex((byte, at) => byte !== before[at]);
    let last = afterwards.length - 1;
    while (afterwards[last] === before[last]) last--;
    expect(first).toBeGreaterThan(0);
    const others = new Map<string, Uint8Array>();
    for (const other of ['disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1']) {
      others.set(other, await machine.file(other).catch(() => new Uint8Array(0)));
    }
    for (let cut = first; cut <= last + 1; cut++) {
      const copy = new Machine();
      for (const [other, content] of others) if (content.length > 0) await copy.put(other, content);
      await copy.put('disk', target);
      const torn = afterwards.slice();
      torn.fill(0, cut, last + 1);
      await copy.put(name, torn);
      const again = await copy.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
      const found = await readAll(again);
      expectBytes(found.subarray(0, BLOCK), model.subarray(0, BLOCK));
      expectBytes(found.subarray(BLOCK), (cut <= last ? bytes : model).subarray(BLOCK));
      await again.close();
    }
  });

  it('at any point of the first open open again (original: panicked on a short header)', async () => {
    for (const kind of ['process', 'power'] as const) {
      for (let step = 1; ; step++) {
        const bytes = pattern(6 * BLOCK);
        const machine = new Machine(step);
        machine.fileSystem.crashAt(step);
        const over = await Promise.race([
          machine.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false }).then(() => true),
          machine.fileSystem.crashed.then(() => false),
        ]);
        if (over) {
          machine.fileSystem.crashAt(Number.POSITIVE_INFINITY);
          expect(step).toBeGreaterThan(10);
          break;
        }
        await expectAfterRestart(machine.crash(kind), bytes, bytes);
      }
    }
  });

  it('contain every flushed write: map and log are synced (original: synced neither)', async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const bytes = pattern(12 * BLOCK);
      const model = bytes.slice();
      const machine = new Machine(seed);
      const device = await machine.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
      await device.write(pattern(2 * BLOCK, seed), 3 * BLOCK + 5);
      model.set(pattern(2 * BLOCK, seed), 3 * BLOCK + 5);
      if (seed % 2 === 0) await device.checkpoint();
      else await device.flush();
      await expectAfterRestart(machine.crash('power'), bytes, model);
    }
  });

  it('are checked: a flipped bit in the metadata never changes a byte read (original: no checksums)', async () => {
    const bytes = pattern(6 * BLOCK);
    const model = bytes.slice();
    const machine = new Machine();
    const device = await machine.open(bytesSource(bytes, { identity: 'x' }), { hydrate: false });
    await device.write(pattern(BLOCK, 2), 0);
    model.set(pattern(BLOCK, 2), 0);
    await device.checkpoint();
    await device.write(pattern(2 * BLOCK, 3), 2 * BLOCK + 7);
    model.set(pattern(2 * BLOCK, 3), 2 * BLOCK + 7);
    await device.flush();
    const files = new Map<string, Uint8Array>();
    for (const name of ['disk', 'disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'])
      files.set(name, await machine.file(name));
    let refused = 0;
    const random = seededRandom(4);
    for (const [name, content] of files) {
      if (name === 'disk') continue;
      let end = content.length;
      while (end > 0 && content[end - 1] === 0) end--;
      for (let count = 0; count < 60; count++) {
        const flipped = content.slice();
        const at = random.below(end);
        flipped[at] = flipped[at]! ^ (1 << random.below(8));
        const copy = new Machine();
        for (const [other, bytesOf] of files) await copy.put(other, other === name ? flipped : bytesOf);
        const outcome = await copy
          .open(bytesSource(bytes, { identity: 'x' }), { hydrate: false })
          .catch((error: CodError) => error);
        if (outcome instanceof Error) {
          expect(['COD_CORRUPT', 'COD_VERSION'], `${name}, byte ${at}: ${outcome.message}`).toContain(outcome.code);
          refused++;
        } else {
          expectBytes(await readAll(outcome), model);
          await outcome.close();
        }
      }
    }
    expect(refused).toBeGreaterThan(50);
  });

  it('are removed through the given file system, and no other file is (original: called `os` directly)', async () => {
    const machine = new Machine();
    const removed: string[] = [];
    const opened: string[] = [];
    const { fileSystem } = machine;
    const watched: FileSystem = {
      bootId: 'boot',
      open: (name, options) => {
        opened.push(name);
        return fileSystem.open(name, options);
      },
      remove: (name) => {
        removed.push(name);
        return fileSystem.remove(name);
      },
    };
    const device = await machine.openIn(watched, bytesSource(pattern(6 * BLOCK)));
    await device.hydrated;
    await device.finish();
    expect(new Set(removed)).toEqual(new Set(opened.filter((name) => name !== 'disk')));
    for (const name of removed) await expect(fileSystem.open(name)).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
    expectBytes(await machine.file(), pattern(6 * BLOCK));
  });
});

describe('concurrent requests', () => {
  it('of cold readers and a writer complete (original: five readers deadlocked within seconds)', async () => {
    const bytes = pattern(256 * BLOCK);
    const source = new ControlledSource(bytes, { streams: false });
    const machine = new Machine();
    const device = await machine.open(source, { hydrate: { concurrency: 1, extentBytes: 4 * BLOCK } });
    const random = seededRandom(3);
    const model = bytes.slice();
    const work: Promise<unknown>[] = [];
    for (let reader = 0; reader < 100; reader++)
      work.push(device.read(new Uint8Array(5 * BLOCK), random.below(250 * BLOCK)));
    for (let writer = 0; writer < 20; writer++) {
      const at = writer * 12 * BLOCK + 5;
      work.push(device.write(pattern(6 * BLOCK, writer), at));
      model.set(pattern(6 * BLOCK, writer), at);
    }
    await source.serve(Promise.all(work));
    await source.serve(device.hydrated);
    expectBytes(await readAll(device), model);
  });

  it('of cold readers for more bytes than the memory limit complete', async () => {
    const size = 96 * 2 ** 20;
    const machine = new Machine();
    const device = await machine.open(
      new TimedSource(machine.clock, { size, latencyMs: 5, bytesPerMs: 1e6, streams: false }),
      {
        hydrate: false,
      },
    );
    const reads = Array.from({ length: 24 }, (_, index) => device.read(new Uint8Array(2 ** 22), index * 2 ** 22));
    reads.push(device.write(new Uint8Array(BLOCK).fill(1), 50 * BLOCK + 1));
    await machine.clock.run(Promise.all(reads));
    await expect.poll(() => device.status().syncedBlocks).toBe(device.status().totalBlocks);
  });
});

describe('offsets and lengths', () => {
  it.each([1, 511, 513, BLOCK + 1, 3 * BLOCK + 700])(
    'must be within a device of %i bytes, not a multiple of 512 (original: underflowed)',
    async (size) => {
      const bytes = pattern(size);
      const machine = new Machine();
      const device = await machine.open(bytesSource(bytes, { identity: 'x' }));
      for (const [offset, length] of [
        [size, 1],
        [size - 1, 2],
        [0, size + 1],
        [Math.ceil(size / 512) * 512, 512],
        [Math.floor(size / 512) * 512, 512],
      ] as const) {
        await expect(device.write(new Uint8Array(length), offset)).rejects.toThrow(RangeError);
        await expect(device.writeZeroes(offset, length)).rejects.toThrow(RangeError);
      }
      await device.write(new Uint8Array([77]), size - 1);
      const model = bytes.slice();
      model[size - 1] = 77;
      await expectAfterRestart(machine.crash('process'), bytes, model);
    },
  );

  it('may be an empty range anywhere, which has no effect (original: computed a negative end)', async () => {
    const bytes = pattern(2 * BLOCK);
    const machine = new Machine();
    const source = new ControlledSource(bytes);
    const device = await machine.open(source, { hydrate: false });
    const before = machine.fileSystem.operationCount;
    for (const offset of [0, 1, BLOCK, 2 * BLOCK]) {
      await device.read(new Uint8Array(0), offset);
      await device.write(new Uint8Array(0), offset);
      await device.writeZeroes(offset, 0);
      await device.discard(offset, 0);
    }
    expect(machine.fileSystem.operationCount).toBe(before);
    expect(source.asked()).toEqual([]);
    expect(device.status()).toMatchObject({ syncedBlocks: 0, dirtyBlocks: 0 });
  });

  it('of a discard may be large without a buffer of that length (original: 4 GiB buffer, no effect)', async () => {
    const size = 2 ** 30 + 700;
    const machine = new Machine();
    const { fileSystem } = machine;
    let longest = 0;
    const watched: FileSystem = {
      bootId: 'boot',
      remove: (name) => fileSystem.remove(name),
      open: async (name, options) => {
        const file = await fileSystem.open(name, options);
        return {
          ...file,
          read: (into, offset) => {
            longest = Math.max(longest, into.length, into.buffer.byteLength);
            return file.read(into, offset);
          },
          write: (from, offset) => {
            longest = Math.max(longest, from.length, from.buffer.byteLength);
            return file.write(from, offset);
          },
        };
      },
    };
    const source = new TimedSource(machine.clock, { size, latencyMs: 1, bytesPerMs: 1e6 });
    const device = await machine.openIn(watched, source, { hydrate: false });
    await device.write(new Uint8Array(BLOCK).fill(9), 5 * BLOCK);
    await device.discard(0, size);
    expect(longest).toBeLessThanOrEqual(2 ** 22);
    expect(device.status().syncedBlocks).toBe(device.status().totalBlocks);
    const found = new Uint8Array(10 * BLOCK).fill(1);
    await device.read(found, 0);
    expectBytes(found, new Uint8Array(10 * BLOCK));
    expect(source.asks).toEqual([]);
  });
});

describe('the background copy', () => {
  it('is off if configured so (original: the constructor lost the flag)', async () => {
    const machine = new Machine();
    const source = new TimedSource(machine.clock, { size: 64 * BLOCK, latencyMs: 1, bytesPerMs: 1e6 });
    const device = await machine.open(source, { hydrate: false });
    await machine.clock.advance(DAY_MS);
    expect(source.asks).toEqual([]);
    expect(device.status()).toMatchObject({ state: 'idle', syncedBlocks: 0 });
  });

  it('keeps the configured rate limit (original: the constructor lost the rate)', async () => {
    const machine = new Machine();
    const source = new TimedSource(machine.clock, { size: 2 ** 24, latencyMs: 1, bytesPerMs: 1e6 });
    const device = await machine.open(source, { hydrate: { rateBytesPerSecond: 2 ** 18 } });
    await machine.clock.advance(20_000);
    expect(device.status().sourceBytes / (20 * 2 ** 18)).toBeGreaterThan(0.95);
    expect(device.status().sourceBytes / (20 * 2 ** 18)).toBeLessThan(1.06);
  });

  it('fetches no hole of the source, including a last one (original: never found the last hole)', async () => {
    const size = 32 * BLOCK + 300;
    const bytes = pattern(size);
    bytes.fill(0, 4 * BLOCK, 9 * BLOCK);
    bytes.fill(0, 20 * BLOCK, size);
    const holes = (offset: number, length: number) => {
      const runs: { length: number; zero: boolean }[] = [];
      for (let at = offset; at < offset + length; ) {
        const end = [4 * BLOCK, 9 * BLOCK, 20 * BLOCK, size].find((edge) => edge > at)!;
        const stop = Math.min(end, offset + length);
        runs.push({ length: stop - at, zero: end === 9 * BLOCK || end === size });
        at = stop;
      }
      return runs;
    };
    const machine = new Machine();
    const source = new ControlledSource(bytes, { extents: holes });
    const device = await machine.open(source);
    await source.serve(device.hydrated);
    expect(source.asked()).toEqual([
      [0, 4 * BLOCK],
      [9 * BLOCK, 11 * BLOCK],
    ]);
    expectBytes(await machine.file(), bytes);
  });

  it.each([true, false])(
    'is not slowed down by latency (original: 4 KiB per request, 0.2 MB/s at 20 ms); streams: %s',
    async (streams) => {
      const machine = new Machine();
      const size = 64 * 2 ** 20;
      const source = new TimedSource(machine.clock, { size, latencyMs: 20, bytesPerMs: 100_000, streams });
      const device = await machine.open(source);
      const start = machine.clock.now();
      await machine.clock.run(device.hydrated);
      const bytesPerMs = size / (machine.clock.now() - start);
      expect(bytesPerMs).toBeGreaterThan(200 * 100);
    },
  );

  it('and ten readers fetch a cold block once (original: ten times)', async () => {
    for (const together of [true, false]) {
      const bytes = pattern(64 * BLOCK);
      const source = new ControlledSource(bytes);
      const machine = new Machine();
      const device = await machine.open(source, { hydrate: false });
      const read = async (): Promise<void> => {
        const into = new Uint8Array(100);
        await device.read(into, 40 * BLOCK + 5);
        expectBytes(into, bytes.slice(40 * BLOCK + 5, 40 * BLOCK + 105));
      };
      if (together) await source.serve(Promise.all(Array.from({ length: 10 }, read)));
      else for (let count = 0; count < 10; count++) await source.serve(read());
      expect(source.asked()).toEqual([[40 * BLOCK, BLOCK]]);
    }
  });
});

describe('the metadata', () => {
  it('is not written without changes or after completion (original: checkpoints even without a copy)', async () => {
    const machine = new Machine();
    const device = await machine.open(bytesSource(pattern(6 * BLOCK)));
    await device.hydrated;
    await machine.clock.advance(60_000);
    const before = machine.fileSystem.operationCount;
    await machine.clock.advance(DAY_MS);
    expect(machine.fileSystem.operationCount).toBe(before);
    await device.finish();
    const after = machine.fileSystem.operationCount;
    await machine.clock.advance(DAY_MS);
    expect(machine.fileSystem.operationCount).toBe(after);
  });

  it('is not rewritten at each interval after small changes (original: all of it, every five seconds)', async () => {
    const containers = 16;
    const size = containers * 65_536 * BLOCK;
    const machine = new Machine();
    await machine.put('disk.bak', format1Map(containers));
    const file = await machine.fileSystem.open('disk', { create: true });
    await file.truncate(size);
    await file.close();
    const source = new TimedSource(machine.clock, { size, latencyMs: 1, bytesPerMs: 1e6 });
    const device = await machine.open(source, { hydrate: false, checkpointIntervalMs: 5000 });
    expect(device.status().syncedBlocks).toBeGreaterThan(containers * 30_000);
    const whole = device.status().metadataBytes;
    expect(whole).toBeGreaterThan(containers * 8192);
    const intervals = 100;
    for (let interval = 0; interval < intervals; interval++) {
      await device.write(new Uint8Array(BLOCK), interval * 1001 * BLOCK);
      await machine.clock.advance(5000);
    }
    expect((device.status().metadataBytes - whole) / intervals).toBeLessThan(1024);
    // The change is durable nevertheless.
    const after = machine.crash('power');
    const again = await after.open(source, { hydrate: false });
    const found = new Uint8Array(BLOCK).fill(1);
    for (let interval = 0; interval < intervals; interval++)
      expect(await again.extents(interval * 1001 * BLOCK, BLOCK, 1)).toMatchObject([{ state: 'synced' }]);
    await again.read(found, 0);
    expectBytes(found, new Uint8Array(BLOCK));
  });
});

/** A checkpoint of format 1 whose map has a random half of the blocks of each container. */
function format1Map(containers: number): Uint8Array {
  const random = seededRandom(8);
  const bits = Array.from({ length: containers }, () => random.fill(new Uint8Array(8192)));
  const roaringBytes = 8 + containers * 8 + containers * 8192;
  const bytes = new Uint8Array(16 + 8 + roaringBytes + 16);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('COD BAK\0'));
  view.setBigUint64(8, 1n, true);
  view.setBigUint64(16, BigInt(roaringBytes), true);
  // https://github.com/RoaringBitmap/RoaringFormatSpec: cookie without runs, keys with cardinalities, offsets,
  // containers.
  view.setUint32(24, 12_346, true);
  view.setUint32(28, containers, true);
  for (const [index, container] of bits.entries()) {
    let count = 0;
    for (const byte of container) for (let rest = byte; rest > 0; rest &= rest - 1) count++;
    view.setUint16(32 + 4 * index, index, true);
    view.setUint16(34 + 4 * index, count - 1, true);
    view.setUint32(32 + 4 * containers + 4 * index, 8 + 8 * containers + 8192 * index, true);
    bytes.set(container, 32 + 8 * containers + 8192 * index);
  }
  return bytes;
}
