/** Checkpoints in slices: what is written, where, and what a failure leaves. */

import { RoaringBitmap32 } from 'roaring-wasm/browser';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { CopyState } from '../../src/core/copy-state.ts';
import { geometry } from '../../src/core/geometry.ts';
import { SLICE_BLOCKS, WRITTEN } from '../../src/core/layout.ts';
import { isCodError } from '../../src/errors.ts';
import { Checkpointer } from '../../src/log/checkpointer.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import { type OpenLog, openLog } from '../../src/log/intent-log.ts';
import { Ownership } from '../../src/log/ownership.ts';
import { recover } from '../../src/log/recovery.ts';
import { Slots } from '../../src/log/slots.ts';
import { SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { slowCrc32c } from '../core/models.ts';
import { type Call, type Image, type Images, MemoryFiles, Torn } from './memory-files.ts';

const BLOCK = 4096;
const SLICES = 5;
/** Four slices, and a fifth of ten blocks and a short one. */
const SIZE = ((SLICES - 1) * SLICE_BLOCKS + 10) * BLOCK + 700;
const SESSION = Uint8Array.from({ length: 16 }, (_, index) => index);
const HEADER = 512;
const LONGEST_WRITE = 2 ** 20;
const ENTRY = 40;
const DIRECTORY = { offset: HEADER, length: SLICES * ENTRY };

afterEach(() => vi.restoreAllMocks());

function newFiles(images: Images = new Map()): MemoryFiles {
  return new MemoryFiles(images);
}

/** Reads a storage whose bytes are all zeros. */
async function readZeros(into: Uint8Array): Promise<void> {
  into.fill(0);
}

/** Opens a log over a storage of zeros, to which users write zeros. Time stands still. */
function open(
  fileSystem: MemoryFiles,
  { size = SIZE, sync = async (): Promise<void> => undefined } = {},
): Promise<OpenLog> {
  return openLog(
    { clock: new SimulatedClock(), randomBytes: (into) => into.set(SESSION) },
    { fileSystem, name: 'log', size, storage: { read: readZeros, sync } },
  );
}

/** Records zeros that a user wrote. Long extents are recorded as copied from the source. */
async function write(log: OpenLog, ...extents: (readonly [offset: number, length: number])[]): Promise<void> {
  const transaction = log.begin();
  for (const [offset, length] of extents) {
    if (length > LONGEST_WRITE) transaction.filled(offset, length);
    else await transaction.intend(offset, new Uint8Array(length));
  }
  await log.commit(transaction);
}

/** Marks the block of a slice as written. */
function writeBlock(log: OpenLog, slice: number, block: number): Promise<void> {
  return write(log, [(slice * SLICE_BLOCKS + block) * BLOCK, BLOCK]);
}

function writesOf(calls: readonly Call[], name: string): { offset: number; length: number }[] {
  return calls
    .filter((call) => call.kind === 'write' && call.name === name)
    .map(({ offset, length }) => ({ offset, length }));
}

/** The synced runs and the dirty blocks that a start finds without the storage, which proves nothing then. */
async function meaning(images: Images): Promise<unknown> {
  const { synced, dirty } = await inspectMetadata(newFiles(images), 'log');
  return { synced, dirty };
}

function meaningOf(log: OpenLog): unknown {
  const { state } = log;
  return {
    synced: [...state.syncedRuns()].map(([start, end]) => [start, end - 1]),
    dirty: [...state.dirtyBlocks()].map(({ block, parts }) => ({
      block,
      ranges: parts.map(([start, end]) => [start, end - start]),
    })),
  };
}

describe('a checkpoint', () => {
  it('writes the slices that changed since the slot was written, and no other', async () => {
    const files = newFiles();
    const log = await open(files);
    for (let slice = 0; slice < SLICES; slice++) await writeBlock(log, slice, 3);
    await log.checkpoint();
    await writeBlock(log, 2, 5);
    await log.checkpoint();
    // Both slots hold all slices now.
    files.calls.length = 0;
    await writeBlock(log, 3, 7);
    await log.checkpoint();
    const slices = writesOf(files.calls, 'log.bak').slice(1, -2);
    expect(writesOf(files.calls, 'log.bak')).toEqual([
      { offset: HEADER - 1, length: 1 },
      // Slice 2 changed after this slot was written, and slice 3 just now.
      ...slices,
      DIRECTORY,
      { offset: 0, length: HEADER },
    ]);
    // They are adjacent.
    expect(slices.map(({ length }) => length)).toEqual([96]);
    files.calls.length = 0;
    await writeBlock(log, 3, 9);
    await log.checkpoint();
    expect(writesOf(files.calls, 'log.bak.1').slice(1, -2).length).toBe(1);
    expect(await meaning(files.images())).toEqual(meaningOf(log));
    await log.close();
  });

  it('of a device with one slice has equal bytes for equal states, whatever the history', async () => {
    const size = 3000 * BLOCK;
    const random = seededRandom(1);
    for (let round = 0; round < 20; round++) {
      const extents = Array.from({ length: 1 + random.below(60) }, (): [number, number] => {
        const offset = random.below(size / 512) * 512;
        return [offset, Math.min(size - offset, 512 * (1 + random.below(40)))];
      });
      const found = [];
      for (const order of [extents, random.shuffle([...extents])]) {
        const files = newFiles();
        const log = await open(files, { size });
        for (const extent of order) {
          await write(log, extent);
          if (order !== extents && random.oneIn(3)) await log.checkpoint();
        }
        await log.checkpoint();
        found.push(Buffer.from(usedBytes(newestOf(files.images()))).toString('hex'));
        await log.close();
      }
      expect(found[1]).toBe(found[0]);
    }
  });

  it('moves a slice that outgrows its place, and its file neither shrinks nor grows without limit', async () => {
    const files = newFiles();
    const log = await open(files);
    const random = seededRandom(2);
    const sizes = { 'log.bak': 0, 'log.bak.1': 0 };
    const rounds = 30;
    for (let round = 0; round < rounds; round++) {
      const slice = random.below(SLICES - 1);
      const extents = Array.from({ length: 1 + random.below(300) }, (): [number, number] => [
        (slice * SLICE_BLOCKS + random.below(SLICE_BLOCKS)) * BLOCK + 512 * random.below(2),
        random.oneIn(2) ? BLOCK : 512,
      ]);
      await write(log, ...extents);
      if (random.oneIn(20)) await write(log, [slice * SLICE_BLOCKS * BLOCK, SLICE_BLOCKS * BLOCK]);
      await log.checkpoint();
      const images = files.images();
      expect(await meaning(images)).toEqual(meaningOf(log));
      for (const name of ['log.bak', 'log.bak.1'] as const) {
        const size = images.get(name)?.size ?? 0;
        expect(size).toBeGreaterThanOrEqual(sizes[name]);
        sizes[name] = size;
      }
    }
    // Each round added at most 300 blocks with 16 bytes of dirty section and 2 to 10 bytes of bitmap.
    expect(Math.max(...Object.values(sizes))).toBeLessThan(rounds * 300 * 26);
    await log.close();
  });

  it('holds what was written before it, though writes to all slices continue meanwhile', async () => {
    const files = newFiles();
    const log = await open(files);
    for (let slice = 0; slice < SLICES; slice++) await writeBlock(log, slice, 0);
    await log.checkpoint();
    let next = 1;
    let isWriting = false;
    files.before = async ({ kind, name }) => {
      if (kind !== 'write' || !name.startsWith('log.bak') || isWriting) return;
      isWriting = true;
      // Dirty in one slice, and synced in another that was dirty before.
      await write(log, [(next % (SLICES - 1)) * SLICE_BLOCKS * BLOCK + next * BLOCK + 10, 20]);
      await write(log, [((next - 1) % (SLICES - 1)) * SLICE_BLOCKS * BLOCK + (next - 1) * BLOCK, BLOCK]);
      next++;
      isWriting = false;
    };
    for (let round = 0; round < 20; round++) {
      await writeBlock(log, round % (SLICES - 1), 5000 + round);
      const before = meaningOf(log) as { synced: [number, number][] };
      await log.checkpoint();
      // Only the newest checkpoint counts, and no record of the log.
      const after = (await meaning(files.images())) as { synced: [number, number][] };
      for (const [first, last] of before.synced)
        expect(after.synced.some(([from, to]) => from <= first && last <= to)).toBe(true);
    }
    files.before = undefined;
    await log.flush();
    expect(await meaning(files.images())).toEqual(meaningOf(log));
    await log.close();
  });

  it('holds what became dirty during an earlier checkpoint of its slot', async () => {
    const files = newFiles();
    const log = await open(files);
    for (let round = 0; round < 2; round++) {
      for (let slice = 0; slice < SLICES; slice++) await writeBlock(log, slice, round);
      await log.checkpoint();
    }
    await writeBlock(log, 0, 9);
    await writeBlock(log, 2, 9);
    let isWritten = false;
    files.before = async ({ kind, name, offset }) => {
      // While slice 0 is being written, a block becomes dirty in slice 2, which is written next.
      if (kind !== 'write' || !name.startsWith('log.bak') || offset <= HEADER || isWritten) return;
      isWritten = true;
      await write(log, [(2 * SLICE_BLOCKS + 20) * BLOCK + 5, 6]);
    };
    await log.checkpoint();
    expect(isWritten).toBe(true);
    for (const block of [10, 11]) {
      await writeBlock(log, 1, block);
      await log.checkpoint();
      expect(await meaning(files.images())).toEqual(meaningOf(log));
    }
    await log.close();
  });

  it('of a device that is synced as a whole is small', async () => {
    const size = 2 ** 44;
    const files = newFiles();
    const log = await open(files, { size });
    await write(log, [0, size]);
    await log.checkpoint();
    files.calls.length = 0;
    await write(log, [0, size]);
    expect((await inspectMetadata(newFiles(files.images()), 'log')).synced).toEqual([[0, 2 ** 32 - 1]]);
    expect(log.metadataBytes).toBeLessThan(2 ** 20);
    await log.close();
  });
});

function epochOf({ bytes }: Image): number {
  return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(32, true));
}

/** The checkpoint of the highest epoch. */
function newestOf(images: Images): Image {
  const checkpoints = [...images].flatMap(([name, image]) => (name.startsWith('log.bak') ? [image] : []));
  return checkpoints.sort((one, other) => epochOf(other) - epochOf(one))[0]!;
}

/** A checkpoint without its header, up to the end that the header says. */
function usedBytes({ bytes }: Image): Uint8Array {
  const end = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(56, true));
  const used = new Uint8Array(end - HEADER);
  used.set(bytes.subarray(HEADER, end));
  return used;
}

describe('a checkpoint that fails', () => {
  /** A log with a durable block in each slice, and another block that is not durable. */
  async function prepared(): Promise<{ files: MemoryFiles; log: OpenLog }> {
    const files = newFiles();
    const log = await open(files);
    for (let slice = 0; slice < SLICES; slice++) await writeBlock(log, slice, 1);
    await log.checkpoint();
    for (let slice = 0; slice < SLICES; slice++) await writeBlock(log, slice, 3);
    files.calls.length = 0;
    return { files, log };
  }

  it('for lack of room at any call does not keep a flush from making all durable that was written', async () => {
    const count = await callsOfCheckpoint(prepared);
    for (let failing = 0; failing < count; failing++) {
      for (const written of [0, 300, 2 ** 20]) {
        const { files, log } = await prepared();
        let calls = 0;
        files.before = ({ kind }) => {
          if (kind === 'sync' || calls++ !== failing) return;
          throw kind === 'write' ? new Torn(written) : new Error('no room');
        };
        const outcome = await log.checkpoint().then(
          () => 'done',
          () => 'failed',
        );
        await writeBlock(log, 2, 5);
        await log.flush();
        expect(await meaning(files.images()), `call ${failing}, ${outcome}`).toEqual(meaningOf(log));
        // In each slot once: what was written in part is written again.
        for (const block of [6, 7]) {
          await writeBlock(log, 1, block);
          await log.checkpoint();
          expect(await meaning(files.images()), `call ${failing}, block ${block}`).toEqual(meaningOf(log));
        }
        await log.close();
        expect(await meaning(files.images())).toEqual({
          synced: expect.arrayContaining([[2 * SLICE_BLOCKS + 5, 2 * SLICE_BLOCKS + 5]]),
          dirty: [],
        });
      }
    }
  });

  it('while its header is written voids the header durably before it changes a slice', async () => {
    const { files, log } = await prepared();
    let headers = 0;
    files.before = ({ kind, name, length, offset }) => {
      if (kind === 'write' && name === 'log.bak.1' && offset === 0 && length === HEADER && ++headers === 1)
        throw new Torn(HEADER);
    };
    await expect(log.checkpoint()).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    await writeBlock(log, 0, 9);
    files.calls.length = 0;
    await log.flush();
    expect(writesOf(files.calls, 'log.bak.1')).toEqual([]);
    expect(await meaning(files.images())).toEqual(meaningOf(log));
    files.calls.length = 0;
    await log.checkpoint();
    const calls = files.calls.filter(({ name }) => name === 'log.bak.1').map(({ kind, offset }) => `${kind} ${offset}`);
    expect(calls.slice(0, 2)).toEqual([`write ${HEADER - 1}`, 'sync 0']);
    expect(await meaning(files.images())).toEqual(meaningOf(log));
    await log.close();
  });

  it('at its last step is not written again', async () => {
    const { files, log } = await prepared();
    let based = 0;
    files.before = ({ kind, name, offset }) => {
      if (kind === 'write' && name === 'log.wil.1' && offset === HEADER && based++ === 0) throw new Torn(20);
    };
    await expect(log.checkpoint()).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    files.calls.length = 0;
    await log.checkpoint();
    expect(writesOf(files.calls, 'log.bak.1')).toEqual([]);
    expect(writesOf(files.calls, 'log.wil.1').at(-1)).toEqual({ offset: HEADER, length: 512 });
    expect(await meaning(files.images())).toEqual(meaningOf(log));
    await log.close();
  });

  it.each([
    {
      what: 'memory for a bitmap',
      fail: () =>
        vi.spyOn(RoaringBitmap32.prototype, 'serialize').mockImplementation(() => {
          throw new Error('Allocation failed');
        }),
    },
    {
      what: 'a call of the core',
      fail: () =>
        // Not for the header of the log, which is made before the logs are switched.
        vi.spyOn(Core.prototype, 'crc32c').mockImplementation((bytes) => {
          if (bytes.length === HEADER - 12) return slowCrc32c(bytes);
          throw new RangeError('Array buffer allocation failed');
        }),
    },
  ])('for lack of $what poisons the log, and loses nothing that was acknowledged', async ({ fail }) => {
    const { files, log } = await prepared();
    const before = meaningOf(log);
    const failing = fail();
    await expect(log.checkpoint()).rejects.toMatchObject({ code: 'COD_POISONED' });
    failing.mockRestore();
    await expect(log.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    await expect(writeBlock(log, 1, 8)).rejects.toMatchObject({ code: 'COD_POISONED' });
    await log.close();
    const again = await open(newFiles(files.images()));
    expect(meaningOf(again)).toEqual(before);
    await again.close();
    // Without the storage only the last durable state counts.
    const durable = Array.from({ length: SLICES }, (_, slice) => [slice * SLICE_BLOCKS + 1, slice * SLICE_BLOCKS + 1]);
    expect(await meaning(files.images())).toEqual({ synced: durable, dirty: [] });
  });

  it('because the core cannot grow poisons the log', async () => {
    const shape = geometry({ size: SIZE, blockSize: BLOCK });
    const core = Core.create();
    const state = await CopyState.open(core, shape);
    const owner = new Ownership('log');
    const slots = new Slots(newFiles(), 'log', { owner });
    const checkpointer = new Checkpointer(
      {
        core,
        clock: new SimulatedClock(),
        slots,
        owner,
        identity: undefined,
        checkpointIntervalMs: 1000,
        observer: {},
      },
      state,
      { session: SESSION, epoch: -1 },
    );
    await checkpointer.writeStandalone();
    checkpointer.attach(async () => undefined);
    await checkpointer.begin();
    await checkpointer.append((log) => {
      log.addData(WRITTEN, 10, 20, 0);
      return log.append();
    });
    checkpointer.appended();
    for (let block = 0; block < 1000; block++) state.apply(block * BLOCK + 10, 20);
    core.exports.setLimit(1);
    await expect(checkpointer.checkpoint()).rejects.toMatchObject({ code: 'COD_POISONED' });
    await expect(checkpointer.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    expect(() => checkpointer.append(() => undefined)).toThrow(expect.objectContaining({ code: 'COD_POISONED' }));
    await checkpointer.close(false);
  });
});

async function callsOfCheckpoint(prepared: () => Promise<{ files: MemoryFiles; log: OpenLog }>): Promise<number> {
  const { files, log } = await prepared();
  await log.checkpoint();
  const count = files.calls.filter(({ kind }) => kind !== 'sync').length;
  await log.close();
  expect(count).toBeGreaterThan(7);
  return count;
}

describe('a checkpoint whose directory contradicts itself', () => {
  async function checkpoint(): Promise<Image> {
    const files = newFiles();
    const log = await open(files);
    for (let slice = 0; slice < 3; slice++) {
      await writeBlock(log, slice, 1);
      await write(log, [(slice * SLICE_BLOCKS + 7) * BLOCK + 5, 6]);
    }
    await log.close();
    return newestOf(files.images());
  }

  /** Changes the directory and the header, and makes both checksums right. */
  function changed(image: Image, change: (directory: DataView, header: DataView) => void): Image {
    const core = Core.create();
    const bytes = new Uint8Array(image.size);
    bytes.set(image.bytes);
    const header = new DataView(bytes.buffer, 0, HEADER);
    // Standalone, so that no log is required. Its epoch stays in its slot.
    header.setUint32(52, 1, true);
    change(new DataView(bytes.buffer, DIRECTORY.offset, DIRECTORY.length), header);
    const end = DIRECTORY.offset + DIRECTORY.length;
    header.setUint32(64, core.crc32c(bytes.subarray(DIRECTORY.offset, end)), true);
    header.setUint32(500, core.crc32c(bytes.subarray(0, 500)), true);
    return { bytes, size: image.size };
  }

  async function outcome(image: Image): Promise<string> {
    const name = epochOf(image) % 2 === 0 ? 'log.bak' : 'log.bak.1';
    const core = Core.create();
    try {
      const slots = new Slots(newFiles(new Map([[name, image]])), 'log', { readOnly: true });
      const found = await recover(core, slots, { size: async () => SIZE, read: readZeros });
      const { count } = found!.state.blocks;
      found!.state.dispose();
      return `${count} blocks`;
    } catch (error) {
      return isCodError(error) ? error.code : String(error);
    }
  }

  const entry = (slice: number, field: number): number => slice * ENTRY + field;
  const u32 = (slice: number, field: number, value: (before: number) => number) => (directory: DataView) =>
    directory.setUint32(entry(slice, field), value(directory.getUint32(entry(slice, field), true)), true);
  const offset = (slice: number, value: (before: bigint) => bigint) => (directory: DataView) =>
    directory.setBigUint64(entry(slice, 0), value(directory.getBigUint64(entry(slice, 0), true)), true);

  it('is read without a change', async () => {
    expect(await outcome(changed(await checkpoint(), () => undefined))).toBe('3 blocks');
  });

  it.each<[string, (directory: DataView, header: DataView) => void]>([
    ['a slice within the directory', offset(0, () => 512n)],
    ['a slice that is not aligned', offset(0, (before) => before + 4n)],
    ['a slice beyond the end', offset(2, (before) => before + 8n)],
    ['a slice at 2^63', offset(1, () => 2n ** 63n)],
    ['a slice over another slice', offset(1, (before) => before - 8n)],
    ['two slices at one place', (directory) => directory.setBigUint64(0, directory.getBigUint64(ENTRY, true), true)],
    ['a dirty section of 4 GiB', u32(1, 8, () => 2 ** 32 - 8)],
    ['a dirty section of an odd length', u32(1, 8, (before) => before + 1)],
    ['a bitmap of 4 GiB', u32(1, 12, () => 2 ** 32 - 1)],
    ['a bitmap longer than its slice needs', u32(1, 12, () => 256 * 8201 + 9)],
    ['a bitmap without blocks', u32(1, 28, () => 0)],
    ['a dirty section without blocks', u32(1, 24, () => 0)],
    ['more synced blocks than the slice has', u32(1, 28, () => SLICE_BLOCKS + 1)],
    ['another number of synced blocks', u32(1, 28, () => 2)],
    ['another number of dirty blocks', u32(1, 24, () => 2)],
    ['another checksum', u32(2, 20, (before) => before ^ 1)],
    ['a modified bitmap of 4 GiB', u32(1, 16, () => 2 ** 32 - 1)],
    ['a modified bitmap without blocks', u32(1, 32, () => 0)],
    ['modified blocks without a bitmap', u32(1, 16, () => 0)],
    ['more modified blocks than the slice has', u32(1, 32, () => SLICE_BLOCKS + 1)],
    ['another number of modified blocks', u32(1, 32, () => 1)],
    ['unused bytes', u32(4, 36, () => 1)],
    ['a checksum of an empty slice', u32(4, 20, () => 1)],
    ['an offset of an empty slice', offset(4, () => 712n)],
    [
      'no slice that ends where the header says',
      (_, header) => header.setBigUint64(56, header.getBigUint64(56, true) - 8n, true),
    ],
    ['a header that ends in the directory', (_, header) => header.setBigUint64(56, 600n, true)],
    ['a header beyond the end of the file', (_, header) => header.setBigUint64(56, 2n ** 40n, true)],
    ['counts that differ from the header', (_, header) => header.setBigUint64(72, 4n, true)],
    ['a number of modified blocks that differs from the header', (_, header) => header.setBigUint64(88, 4n, true)],
    [
      'blocks that moved from one slice to another',
      (directory) => {
        for (const [slice, count] of [
          [0, 2],
          [1, 0],
        ] as const)
          directory.setUint32(entry(slice, 28), count, true);
      },
    ],
  ])('is refused: %s', async (_, change) => {
    expect(await outcome(changed(await checkpoint(), change))).toBe('COD_CORRUPT');
  });

  it('has a block both dirty and synced: its parts mean nothing', async () => {
    // A slice that was serialized in several turns, in which the block became synced.
    const image = await checkpoint();
    const bytes = image.bytes.slice();
    const view = new DataView(bytes.buffer);
    const at = Number(view.getBigUint64(DIRECTORY.offset, true));
    expect([view.getUint32(at, true), view.getUint32(at + 4, true)]).toEqual([7, 1]);
    view.setUint32(at, 1, true);
    const [dirtyBytes, bitmap, modified] = [8, 12, 16].map((field) => view.getUint32(DIRECTORY.offset + field, true));
    const length = dirtyBytes! + Math.ceil(bitmap! / 8) * 8 + Math.ceil(modified! / 8) * 8;
    const checksum = Core.create().crc32c(bytes.subarray(at, at + length));
    const both = changed({ bytes, size: image.size }, (directory) => directory.setUint32(20, checksum, true));
    const name = epochOf(both) % 2 === 0 ? 'log.bak' : 'log.bak.1';
    const { dirty, syncedBlocks } = await inspectMetadata(newFiles(new Map([[name, both]])), 'log');
    expect([syncedBlocks, dirty.map(({ block }) => block)]).toEqual([3, [SLICE_BLOCKS + 7, 2 * SLICE_BLOCKS + 7]]);
  });
});
