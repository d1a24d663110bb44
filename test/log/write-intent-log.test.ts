/** One log with appends that fail half way: acknowledged records stay readable. */

import { describe, expect, it } from 'vitest';
import { geometry } from '../../src/core/geometry.ts';
import { HEADER_BYTES, WRITTEN } from '../../src/core/layout.ts';
import { LogScan, type LogScanResult } from '../../src/core/replay.ts';
import type { InlineFile } from '../../src/fs/inline-file.ts';
import { LogFile } from '../../src/log/log-file.ts';
import { WriteIntentLog } from '../../src/log/write-intent-log.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { MemoryFiles, Torn } from './memory-files.ts';

const core = Core.create();
const shape = geometry({ size: 2 ** 30, blockSize: 4096 });
const CAPACITY = 16_384;

/** Files, and a log whose appends are synchronous while `isSynchronous` returns true. */
async function create(isSynchronous: () => boolean = () => true): Promise<{ files: MemoryFiles; log: WriteIntentLog }> {
  const files = new MemoryFiles();
  const file: InlineFile = await files.open('log', { create: true });
  file.submitWrite = (from, offset) => {
    if (!isSynchronous()) return file.write(from, offset);
    const { before } = files;
    files.before = undefined;
    let end = from.length;
    try {
      void before?.({ kind: 'write', name: 'log', offset, length: from.length });
    } catch (error) {
      end = (error as Torn).written;
      throw error;
    } finally {
      // Without `before` the write takes effect synchronously.
      void file.write(from.subarray(0, end), offset);
      files.before = before;
    }
    return undefined;
  };
  const log = await WriteIntentLog.create(core, await LogFile.take(file), shape, {
    session: new Uint8Array(16),
    epoch: 3,
    capacity: CAPACITY,
  });
  return { files, log };
}

/** The number of records in whole frames, as a restart would read them now. */
async function readRecords(files: MemoryFiles): Promise<number> {
  const file = await files.open('log');
  const bytes = new Uint8Array(CAPACITY - HEADER_BYTES);
  await file.read(bytes, HEADER_BYTES);
  const scan = new LogScan(core, shape, { epoch: 3, capacity: CAPACITY });
  scan.feed(bytes);
  const { records, isDamaged } = scan.finish();
  expect(isDamaged).toBe(false);
  return records;
}

function addRecords(log: WriteIntentLog, records: number): void {
  for (let index = 0; index < records; index++) log.addData(WRITTEN, 8192 * (index + 1), 100 + records, index);
}

/** Appends, and cuts the append's first write after `written` bytes. Returns whether the append succeeded. */
async function append(
  files: MemoryFiles,
  log: WriteIntentLog,
  records: number,
  written?: () => number,
): Promise<boolean> {
  addRecords(log, records);
  files.before = () => {
    if (written !== undefined) throw new Torn(written());
  };
  const succeeded = await attempt(log);
  files.before = undefined;
  return succeeded;
}

/** Appends the added records. Returns whether the append succeeded. */
async function attempt(log: WriteIntentLog): Promise<boolean> {
  try {
    await log.append();
    return true;
  } catch {
    return false;
  }
}

describe('an append that fails half way', () => {
  it.each([
    [1, 1],
    [1, 3],
    [3, 1],
    [30, 2],
    [2, 30],
    [70, 40],
  ])('leaves a readable log, and so does the next: %i records, then %i', async (first, second) => {
    for (let cut = 0; cut < 24 + 16 * first; cut += first > 3 ? 13 : 1) {
      for (let nextCut = 0; nextCut < 24 + 16 * second; nextCut += second > 3 ? 29 : 3) {
        const { files, log } = await create();
        expect(await append(files, log, 4)).toBe(true);
        expect(await append(files, log, first, () => cut)).toBe(false);
        expect(await readRecords(files)).toBeGreaterThanOrEqual(4);
        expect(await append(files, log, second, () => nextCut)).toBe(false);
        expect(await readRecords(files), `cut at ${cut}, then at ${nextCut}`).toBeGreaterThanOrEqual(4);
        expect(await append(files, log, 5)).toBe(true);
        expect(await readRecords(files)).toBe(9);
        log.dispose();
      }
    }
  });

  it('leaves a log that is readable after a power cut, with any version of each sector', async () => {
    for (let seed = 0; seed < 120; seed++) {
      const random = seededRandom(seed);
      const { files, log } = await create();
      expect(await append(files, log, 4)).toBe(true);
      // The versions of each sector since the last sync.
      const sector = (index: number): Uint8Array => {
        const bytes = new Uint8Array(512);
        bytes.set(
          files
            .images()
            .get('log')!
            .bytes.subarray(index * 512, index * 512 + 512),
        );
        return bytes;
      };
      const versions = Array.from({ length: CAPACITY / 512 }, (_, index) => [sector(index)]);
      const remember = (isSync = false): void => {
        for (const [index, known] of versions.entries()) {
          if (isSync) known.length = 0;
          if (isSync || Buffer.compare(known.at(-1)!, sector(index)) !== 0) known.push(sector(index));
        }
      };
      for (let round = 0; round < 4; round++) {
        const records = 1 + random.below(random.oneIn(2) ? 80 : 4);
        let writes = round === 0 || random.oneIn(4) ? random.below(8) * Math.min(1, round) : -1;
        addRecords(log, records);
        files.before = ({ kind, length }) => {
          remember(kind === 'sync');
          if (kind === 'sync') return;
          if (writes-- === 0) throw new Torn(random.below(length + 1));
        };
        await attempt(log);
        files.before = undefined;
        remember();
      }
      log.dispose();
      for (let cut = 0; cut < 20; cut++) {
        const scan = new LogScan(core, shape, { epoch: 3 });
        for (const known of versions.slice(1)) scan.feed(known[random.below(known.length)]!);
        const { records, isDamaged } = scan.finish();
        expect([records >= 4, isDamaged], `seed ${seed}`).toEqual([true, false]);
      }
    }
  });

  it('leaves no frame that counts once the next append ends before it', async () => {
    const { files, log } = await create();
    expect(await append(files, log, 4)).toBe(true);
    // The first frame fills the sector, and the third is cut. The frame between would have the expected sequence.
    const first = 25;
    const wholeSector = 24 + 16 * 30;
    expect(await append(files, log, first + 30 + 10, () => 24 + 16 * first + wholeSector + 20)).toBe(false);
    expect(await append(files, log, first)).toBe(true);
    expect(log.usedBytes).toBe(HEADER_BYTES + 512);
    expect(await readRecords(files)).toBe(4 + first);
    log.dispose();
  });

  it('leaves a readable log, for any number and place of failures', async () => {
    for (let seed = 0; seed < 300; seed++) {
      const random = seededRandom(seed);
      let synchronous = true;
      const { files, log } = await create(() => synchronous);
      let acknowledged = 0;
      for (let round = 0; round < 12; round++) {
        const records = 1 + random.below(random.oneIn(3) ? 80 : 4);
        // Cuts any of the writes that repair the place and append.
        let writes = random.below(6);
        addRecords(log, records);
        synchronous = random.oneIn(2);
        files.before = ({ length }) => {
          if (writes-- === 0) throw new Torn(random.below(length + 1));
        };
        const succeeded = await attempt(log);
        files.before = undefined;
        if (succeeded) acknowledged += records;
        expect(await readRecords(files), `seed ${seed}, round ${round}`).toBeGreaterThanOrEqual(acknowledged);
        if (succeeded) expect(await readRecords(files)).toBe(acknowledged);
      }
      log.dispose();
    }
  });
});

describe('an append', () => {
  it('is complete when the call returns if the file writes synchronously', async () => {
    const { files, log } = await create();
    log.addData(WRITTEN, 8192, 100, 0);
    log.addData(WRITTEN, 16_384, 100, 0);
    expect(log.append()).toBeUndefined();
    expect(await readRecords(files)).toBe(2);
    expect(log.sequence).toBe(1);
    log.dispose();
  });

  it('is complete when its promise resolves if the file writes later', async () => {
    const { files, log } = await create(() => false);
    let go = (): void => undefined;
    files.before = () => new Promise<void>((resolve) => (go = resolve));
    log.addData(WRITTEN, 8192, 100, 0);
    const { usedBytes } = log;
    const appended = log.append();
    expect(appended).toBeInstanceOf(Promise);
    expect([log.sequence, log.usedBytes]).toEqual([0, usedBytes]);
    go();
    await appended;
    expect(log.sequence).toBe(1);
    expect(log.usedBytes).toBeGreaterThan(usedBytes);
    expect(await readRecords(files)).toBe(1);
    log.dispose();
  });

  it('throws if a synchronous write fails, and drops its records', async () => {
    const { files, log } = await create();
    files.before = () => {
      throw new Torn(10);
    };
    log.addData(WRITTEN, 8192, 100, 0);
    expect(() => log.append()).toThrow(Torn);
    files.before = undefined;
    log.addData(WRITTEN, 16_384, 100, 0);
    log.addData(WRITTEN, 32_768, 100, 0);
    await log.append();
    expect(await readRecords(files)).toBe(2);
    log.dispose();
  });
});

describe('a log of which some bytes are lost', () => {
  /** The bytes after the header. */
  async function bytesOf(files: MemoryFiles): Promise<Uint8Array> {
    const bytes = new Uint8Array(CAPACITY - HEADER_BYTES);
    await (await files.open('log')).read(bytes, HEADER_BYTES);
    return bytes;
  }

  function read(bytes: Uint8Array): LogScanResult {
    const scan = new LogScan(core, shape, { epoch: 3, capacity: CAPACITY });
    scan.feed(bytes);
    return scan.finish();
  }

  /** Appends one frame with this number of records, and returns where it is in {@link bytesOf}. */
  async function appendOne(log: WriteIntentLog, records = 1): Promise<{ start: number; end: number }> {
    const start = log.usedBytes - HEADER_BYTES;
    addRecords(log, records);
    await log.append();
    return { start, end: log.usedBytes - HEADER_BYTES };
  }

  async function appendBarrier(log: WriteIntentLog, through: number): Promise<void> {
    log.addBarrier(through);
    await log.append();
  }

  it('reads the frames before junk, which is a torn tail of any content', async () => {
    const { files, log } = await create();
    await appendOne(log);
    await log.sync();
    const last = await appendOne(log, 2);
    const whole = await bytesOf(files);
    for (let seed = 0; seed < 200; seed++) {
      const random = seededRandom(seed);
      const bytes = whole.slice();
      // A cut frame, then other bytes up to any place, also beyond the sector.
      const cut = random.oneIn(3) ? last.end : last.start + random.below(last.end - last.start);
      random.fill(bytes.subarray(cut, cut + 1 + random.below(2000)));
      expect(read(bytes), `seed ${seed}`).toMatchObject({ frames: cut < last.end ? 1 : 2, isDamaged: false });
    }
    log.dispose();
  });

  it('is damaged if a bit is flipped in a frame that was durable before a later frame', async () => {
    const { files, log } = await create();
    const frames = [await appendOne(log, 20), await appendOne(log, 20)];
    await log.sync();
    // In the next sector, so that only its `firm` proves the others.
    await appendOne(log, 20);
    const whole = await bytesOf(files);
    expect(read(whole)).toMatchObject({ records: 60, isDamaged: false });
    for (const { start, end } of frames) {
      for (let bit = start * 8; bit < end * 8; bit += 5) {
        if (!isInFrame(whole, bit >> 3)) continue;
        const bytes = whole.slice();
        bytes[bit >> 3]! ^= 1 << (bit & 7);
        expect(read(bytes).isDamaged, `bit ${bit}`).toBe(true);
      }
    }
    log.dispose();
  });

  it('is not damaged if the frame was not durable before the later frame, in another sector', async () => {
    const { files, log } = await create();
    await appendOne(log);
    await log.sync();
    const lost = await appendOne(log, 26);
    await appendOne(log);
    const bytes = await bytesOf(files);
    bytes.fill(0, lost.start, lost.end);
    expect(read(bytes)).toMatchObject({ frames: 1, records: 1, isDamaged: false });
    log.dispose();
  });

  it('is not damaged if the frame was appended while the log was being synced', async () => {
    const { files, log } = await create();
    await appendOne(log);
    let end!: () => void;
    const isHeld = new Promise<void>((resolve) => (end = resolve));
    files.before = ({ kind }) => (kind === 'sync' ? isHeld : undefined);
    const syncing = log.sync();
    const lost = await appendOne(log, 26);
    end();
    await syncing;
    await appendOne(log);
    const bytes = await bytesOf(files);
    bytes.fill(0, lost.start, lost.end);
    expect(read(bytes)).toMatchObject({ frames: 1, records: 1, isDamaged: false });
    log.dispose();
  });

  it('is damaged if a later frame of the same sector is there, since a sector is written as a whole', async () => {
    const { files, log } = await create();
    await appendOne(log);
    const lost = await appendOne(log);
    await appendOne(log);
    const bytes = await bytesOf(files);
    bytes.fill(0, lost.start, lost.end);
    expect(read(bytes)).toMatchObject({ frames: 1, isDamaged: true });
    log.dispose();
  });

  it('keeps a barrier behind missing frames if all frames below the barrier are there', async () => {
    const { files, log } = await create();
    await appendOne(log, 29);
    const through = log.sequence;
    // Written between the sync of the target and the barrier, and lost by the power cut.
    const lost = await appendOne(log, 29);
    await appendBarrier(log, through);
    const bytes = await bytesOf(files);
    expect(read(bytes)).toMatchObject({ frames: 3, barrierThrough: through });
    bytes.fill(0xee, lost.start, lost.end);
    expect(read(bytes)).toMatchObject({ frames: 1, records: 29, barrierThrough: through, isDamaged: false });
    bytes.fill(0, 0, lost.start);
    expect(read(bytes)).toMatchObject({ frames: 0, barrierThrough: 0 });
    log.dispose();
  });

  it('proves every frame below a barrier if the log is synced where it says so', async () => {
    for (const counts of [[1], [29, 1], [5, 5, 30, 2], [100], [30, 30, 1]]) {
      const { files, log } = await create();
      for (const records of counts) await appendOne(log, records);
      expect(log.needsSyncBeforeBarrier).toBe(log.usedBytes > HEADER_BYTES + 512);
      if (log.needsSyncBeforeBarrier) await log.sync();
      expect(log.needsSyncBeforeBarrier).toBe(false);
      const end = log.usedBytes - HEADER_BYTES;
      await appendBarrier(log, log.sequence);
      const whole = await bytesOf(files);
      for (let at = 0; at < end; at += 24) {
        if (!isInFrame(whole, at)) continue;
        const bytes = whole.slice();
        bytes[at]! ^= 4;
        expect(read(bytes), `byte ${at} of ${counts}`).toMatchObject({ isDamaged: true });
      }
      log.dispose();
    }
  });
});

/** Whether a byte of a log's body is in a frame, and not in the padding of a sector. */
function isInFrame(body: Uint8Array, at: number): boolean {
  const view = new DataView(body.buffer, body.byteOffset);
  for (let start = at - (at % 512); start <= at; ) {
    const length = view.getUint16(start, true);
    if (length === 0) return false;
    if (at < start + length) return true;
    start += length;
  }
  return false;
}
