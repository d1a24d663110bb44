/** One log with appends that fail half way: acknowledged records stay readable. */

import { describe, expect, it } from 'vitest';
import { geometry } from '../../src/core/geometry.ts';
import { HEADER_BYTES } from '../../src/core/layout.ts';
import { LogScan } from '../../src/core/replay.ts';
import type { InlineFile } from '../../src/fs/inline-file.ts';
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
  const log = await WriteIntentLog.create(core, file, shape, {
    session: new Uint8Array(16),
    epoch: 3,
    capacity: CAPACITY,
    bootId: undefined,
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
  const { records, missing } = scan.finish();
  expect(missing).toBe(false);
  return records;
}

/** Appends, and cuts the append's first write after `written` bytes. Returns whether the append succeeded. */
async function append(
  files: MemoryFiles,
  log: WriteIntentLog,
  records: number,
  written?: () => number,
): Promise<boolean> {
  for (let index = 0; index < records; index++) log.addWritten(8192 * (index + 1), 100 + records);
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
        for (let index = 0; index < records; index++) log.addWritten(8192 * (index + 1), 100 + records);
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
        const { records, missingIsFirm } = scan.finish();
        expect([records >= 4, missingIsFirm], `seed ${seed}`).toEqual([true, false]);
      }
    }
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
        for (let index = 0; index < records; index++) log.addWritten(8192 * (index + 1), 100 + records);
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
    log.addWritten(8192, 100);
    log.addWritten(16_384, 100);
    expect(log.append()).toBeUndefined();
    expect(await readRecords(files)).toBe(2);
    expect(log.sequence).toBe(1);
    log.dispose();
  });

  it('is complete when its promise resolves if the file writes later', async () => {
    const { files, log } = await create(() => false);
    let go = (): void => undefined;
    files.before = () => new Promise<void>((resolve) => (go = resolve));
    log.addWritten(8192, 100);
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
    log.addWritten(8192, 100);
    expect(() => log.append()).toThrow(Torn);
    files.before = undefined;
    log.addWritten(16_384, 100);
    log.addWritten(32_768, 100);
    await log.append();
    expect(await readRecords(files)).toBe(2);
    log.dispose();
  });
});
