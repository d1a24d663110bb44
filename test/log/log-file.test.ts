/** Logs that take over a file in place: what an earlier life left never counts, and a full disk stops no flush. */

import { afterEach, describe, expect, it } from 'vitest';
import { geometry } from '../../src/core/geometry.ts';
import { decodeLogHeader } from '../../src/core/headers.ts';
import { HEADER_BYTES, SECTOR_BYTES, WRITTEN } from '../../src/core/layout.ts';
import { LogScan } from '../../src/core/replay.ts';
import { isCodError } from '../../src/errors.ts';
import { bytesSource, openDevice } from '../../src/index.ts';
import { LogFile } from '../../src/log/log-file.ts';
import { WriteIntentLog } from '../../src/log/write-intent-log.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { expectBytes } from '../support/bytes.ts';
import { effort } from '../support/effort.ts';
import { type Image, MemoryFiles, Torn } from './memory-files.ts';

const core = Core.create();
const shape = geometry({ size: 2 ** 30, blockSize: 4096 });
const CAPACITY = 2 ** 20;
const PAGE = 4096;
const logs: WriteIntentLog[] = [];
const STEP = 65_536;
const SEEDS = effort('COD_LOG_SEEDS', { short: 10, long: 40 });

/** A log over `file`, as it is begun in a new life, or by a later checkpoint of the life that took `file`. */
async function begin(file: LogFile, epoch = 3): Promise<WriteIntentLog> {
  const names = { session: new Uint8Array(16), epoch, capacity: CAPACITY };
  const log = await WriteIntentLog.create(core, file, shape, names);
  logs.push(log);
  return log;
}

afterEach(() => {
  for (const log of logs.splice(0)) log.dispose();
});

async function take(files: MemoryFiles): Promise<LogFile> {
  return LogFile.take(await files.open('log', { create: true }));
}

async function append(log: WriteIntentLog, records = 1): Promise<void> {
  for (let index = 0; index < records; index++) log.addData(WRITTEN, 8192 * (index + 1), 100, index);
  await log.append();
}

/** What a reader of a log of epoch 3 finds in an image of the file. */
function read({ bytes, size }: Image, epoch = 3): ReturnType<LogScan['finish']> {
  const whole = new Uint8Array(Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES);
  whole.set(bytes.subarray(0, whole.length));
  const scan = new LogScan(core, shape, { epoch });
  scan.feed(whole.subarray(HEADER_BYTES));
  return scan.finish();
}

const imageOf = (files: MemoryFiles): Image => files.images().get('log')!;

describe('a log over an earlier life of the same epoch', () => {
  it.each([1, 40, 4000])('begins without any of its %i records, durably before its header', async (records) => {
    const files = new MemoryFiles();
    const earlier = await begin(await take(files));
    await append(earlier, records);
    await earlier.sync();
    expect(read(imageOf(files)).records).toBe(records);

    const file = await take(files);
    let headers = 0;
    files.before = ({ kind, offset, length }) => {
      if (kind !== 'write' || offset !== 0 || length !== HEADER_BYTES) return;
      headers++;
      const durable = files.syncedImage('log')!;
      expect(read(durable).frames).toBe(0);
      expect(durable.bytes.subarray(HEADER_BYTES).every((byte) => byte === 0)).toBe(true);
    };
    await begin(file);
    expect([headers, read(imageOf(files)).frames]).toEqual([1, 0]);
  });
});

describe('a log over a log of its life', () => {
  it('reads only its own frames, and has no torn tail, at any length', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const random = seededRandom(seed);
      const files = new MemoryFiles();
      const file = await take(files);
      for (let epoch = 1; epoch < 9; epoch += 2) {
        const log = await begin(file, epoch);
        let records = 0;
        for (let count = random.below(30); count >= 0; count--) {
          const more = 1 + random.below(random.oneIn(5) ? 90 : 4);
          await append(log, more);
          records += more;
          const found = read(imageOf(files), epoch);
          expect([found.records, found.isDamaged, found.tornBytes], `seed ${seed}`).toEqual([records, false, 0]);
        }
      }
    }
  });

  it('has no header until the new header is whole, wherever a write of it is cut', async () => {
    const image = new MemoryFiles();
    const first = await begin(await take(image), 1);
    await append(first);
    const header = imageOf(image).bytes.slice(0, HEADER_BYTES);
    expect(decodeLogHeader(core, header)).toMatchObject({ state: 'valid', header: { epoch: 1 } });
    for (let cut = 0; cut < HEADER_BYTES; cut++) {
      const files = new MemoryFiles();
      const file = await take(files);
      await file.begin(header, CAPACITY, (sync) => sync());
      let writes = 0;
      files.before = ({ kind }) => {
        if (kind === 'write' && writes++ === 1) throw new Torn(cut);
      };
      await expect(begin(file)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
      const sector = new Uint8Array(HEADER_BYTES);
      sector.set(imageOf(files).bytes.subarray(0, HEADER_BYTES));
      expect(decodeLogHeader(core, sector)).toEqual({ state: 'absent' });
      files.before = undefined;
      const again = await begin(file);
      expect(read(imageOf(files)).frames).toBe(0);
      again.dispose();
      logs.pop();
    }
  });
});

/** Refuses writes to pages that no file has, once `fill` was called. */
function withPages(files: MemoryFiles): { fill(): void; makeRoom(): void } {
  const pages = new Set<string>();
  let isFull = false;
  files.before = ({ kind, name, offset, length }) => {
    if (kind === 'truncate') {
      const end = Math.ceil(offset / PAGE);
      for (const page of pages)
        if (page.startsWith(`${name} `) && Number(page.split(' ')[1]) >= end) pages.delete(page);
    }
    if (kind !== 'write') return;
    for (let page = Math.floor(offset / PAGE); page * PAGE < offset + length; page++) {
      if (pages.has(`${name} ${page}`)) continue;
      if (isFull) throw new Torn(Math.max(0, page * PAGE - offset));
      pages.add(`${name} ${page}`);
    }
  };
  return { fill: () => (isFull = true), makeRoom: () => (isFull = false) };
}

describe('a log on a full disk', () => {
  it.each([1, 7, 29, 400])('has room for control frames when appends of %i records do not fit', async (records) => {
    const files = new MemoryFiles();
    const disk = withPages(files);
    const log = await begin(await take(files));
    disk.fill();
    let appended = 0;
    // Ends by `isFull`. The bound is for a log that never says so.
    for (let count = 0; count < STEP / 16; count++) {
      for (let index = 0; index < records; index++) log.addData(WRITTEN, 8192, 100, 0);
      if (log.isFull) break;
      try {
        await log.append();
        appended += records;
      } catch (error) {
        if (!isCodError(error, 'COD_NO_SPACE')) throw error;
      }
      expect(log.limit).toBe(log.usedBytes + 16_384 > STEP ? STEP : CAPACITY);
    }
    log.discardPending();
    expect(appended).toBeGreaterThan(records === 400 ? 2000 : 1200);
    for (const add of [() => log.addBarrier(log.sequence), () => log.addContinued()]) {
      add();
      await log.append();
    }
    const { records: found, continued, barrierThrough, frames } = read(imageOf(files));
    expect([found, continued, barrierThrough]).toEqual([appended, true, frames - 2]);
  });

  it('is followed by a log that has the same room', async () => {
    const files = new MemoryFiles();
    const disk = withPages(files);
    const file = await take(files);
    const first = await begin(file, 1);
    for (let count = 0; count < 40; count++) await append(first, 200);
    expect(file.allocated).toBeGreaterThan(2 * STEP);
    disk.fill();
    const log = await begin(file);
    for (let count = 0; count < 40; count++) await append(log, 200);
    expect(read(imageOf(files))).toMatchObject({ records: 8000, isDamaged: false });
  });

  it('takes an append that is longer than what is allocated, or refuses it and stays usable', async () => {
    const files = new MemoryFiles();
    const disk = withPages(files);
    const log = await begin(await take(files));
    await append(log, 6000);
    disk.fill();
    await expect(append(log, 8000)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    log.addBarrier(log.sequence);
    await log.append();
    expect(read(imageOf(files))).toMatchObject({ records: 6000, barrierThrough: log.sequence - 1, isDamaged: false });
  });

  it('never reads into zeros that were allocated behind a control frame', async () => {
    const files = new MemoryFiles();
    const disk = withPages(files);
    const file = await take(files);
    const log = await begin(file);
    disk.fill();
    while (log.usedBytes < STEP - 2600) await append(log);
    // More control frames than the reserve has room for, when there is room again.
    disk.makeRoom();
    for (let count = 0; count < 100; count++) {
      log.addBarrier(log.sequence);
      await log.append();
    }
    const { sequence } = log;
    await file.allocate(log.usedBytes, log.usedBytes + STEP);
    expect(read(imageOf(files))).toMatchObject({ frames: sequence, isDamaged: false });
  });
});

describe('a device on a full disk', () => {
  const BLOCK = 4096;
  const IMAGE = seededRandom(1).fill(new Uint8Array(64 * BLOCK));

  it('takes writes of allocated bytes, flushes and checkpoints without end, and refuses others', async () => {
    const files = new MemoryFiles();
    const disk = withPages(files);
    const options = { source: bytesSource(IMAGE), fileSystem: files, target: 'disk', hydrate: false } as const;
    const device = await openDevice(options);
    const model = IMAGE.slice();
    const random = seededRandom(2);
    const write = async (length: number, offset: number): Promise<void> => {
      const bytes = random.fill(new Uint8Array(length));
      await device.write(bytes, offset);
      model.set(bytes, offset);
    };
    await write(8 * BLOCK, 0);
    for (let block = 8; block < 16; block++) await write(8, block * BLOCK);
    disk.fill();
    for (let round = 0; round < 300; round++) {
      await write(BLOCK, random.below(8) * BLOCK);
      // A record each, since these blocks are not synced.
      for (let count = 0; count < 20; count++) await write(8, (8 + random.below(8)) * BLOCK);
      if (round % 3 === 0) await device.flush();
      if (round % 50 === 0) await device.checkpoint();
      if (round % 50 === 25) await expect(write(BLOCK, 40 * BLOCK)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    }
    await device.flush();
    const read = async (found: typeof device): Promise<Uint8Array> => {
      const bytes = new Uint8Array(found.size);
      await found.read(bytes, 0);
      return bytes;
    };
    const crashed = await openDevice({ ...options, fileSystem: new MemoryFiles(files.images()) });
    expectBytes(await read(crashed), model);
    await crashed.close();
    disk.makeRoom();
    await write(BLOCK, 40 * BLOCK);
    await device.close();
    const again = await openDevice(options);
    expectBytes(await read(again), model);
    await again.close();
  });
});
