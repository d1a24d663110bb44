import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concat } from '../../src/core/concat.ts';
import { Format1Replay } from '../../src/core/format1-replay.ts';
import { FrameEncoder } from '../../src/core/frames.ts';
import { geometry } from '../../src/core/geometry.ts';
import { FILLED, MAY_READ, MODIFIED, WRITTEN, WRITTEN_PAIR } from '../../src/core/layout.ts';
import { LogScan, type LogScanResult, Replay } from '../../src/core/replay.ts';
import { isCodError } from '../../src/errors.ts';
import type { Core } from '../../src/wasm/core.ts';
import { builds } from './builds.ts';
import {
  BASED,
  barrier,
  CONTINUED,
  canonicalBytes,
  ended,
  filled,
  frame,
  logBody,
  Model,
  mayRead,
  merge,
  modified,
  stateOf,
  withMaps,
  words,
  written,
  writtenPair,
} from './models.ts';

const EPOCH = 7;
/** A limit above every sequence: all frames count. */
const ALL = 2 ** 31;

/** Blocks near container borders, so that every kind of container and join occurs. */
function blocks(count: number): fc.Arbitrary<number> {
  const near = fc.tuple(fc.constantFrom(0, 65_536, 131_072, 65_000), fc.nat(300)).map(([base, more]) => base + more);
  return fc
    .oneof({ weight: 3, arbitrary: near }, { weight: 1, arbitrary: fc.nat(count) })
    .map((block) => block % count);
}

function scan(core: Core, shape: ReturnType<typeof geometry>, body: Uint8Array, piece = body.length): LogScanResult {
  const log = new LogScan(core, shape, { epoch: EPOCH, capacity: 512 + body.length });
  for (let at = 0; at < body.length; at += piece) log.feed(body.subarray(at, at + piece));
  return log.finish();
}

function corrupt(action: () => unknown): Record<string, unknown> {
  try {
    action();
  } catch (error) {
    if (isCodError(error, 'COD_CORRUPT')) return { ...error.details, message: error.message };
    throw error;
  }
  throw new Error('expected a refusal');
}

describe.each(builds)('the $name core', ({ create }) => {
  describe('replaying format 1', () => {
    type Record1 =
      | { type: 1; block: number }
      | { type: 1; block: number; run: number }
      | { type: 2; block: number; offset: number; length: number };
    const logOf = (count: number): fc.Arbitrary<Record1[]> =>
      fc.array(
        fc.oneof(
          fc.record({ type: fc.constant(1 as const), block: blocks(count) }),
          fc.record({ type: fc.constant(1 as const), block: blocks(count), run: fc.integer({ min: 2, max: 4000 }) }),
          fc.record({
            type: fc.constant(2 as const),
            block: blocks(count),
            offset: fc.nat(4095),
            length: fc.nat(4096),
          }),
        ),
        { maxLength: 60 },
      );

    it('reads random logs over a random checkpoint like the model, in pieces of any length', async () => {
      const core = create();
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: 200_000 }).chain((count) =>
            fc.record({
              count: fc.constant(count),
              short: fc.nat(4095),
              logs: fc.array(logOf(count), { minLength: 1, maxLength: 3 }),
              pieces: fc.integer({ min: 1, max: 5000 }),
              synced: fc.array(blocks(count), { maxLength: 20 }),
              dirty: fc.array(fc.tuple(blocks(count), fc.nat(4095), fc.integer({ min: 1, max: 4096 })), {
                maxLength: 20,
              }),
            }),
          ),
          async ({ count, short, logs, pieces, synced, dirty: parts }) => {
            const shape = geometry({ size: count * 4096 - short, blockSize: 4096 });
            const last = 4096 - short;
            const model = new Model(shape);
            await withMaps(core, shape, (map, dirty) => {
              for (const block of synced) {
                map.add(block, block + 1);
                model.sync(block);
              }
              for (const [block, start, length] of parts) {
                const end = Math.min(start + length, block === count - 1 ? last : 4096);
                if (map.has(block) || start >= end) continue;
                model.write(block, start, end);
                if (dirty.add(block, start, end) === 'complete') map.add(block, block + 1);
              }
              const replay = new Format1Replay(core, shape);
              for (const records of logs) {
                const bytes: Uint8Array[] = [];
                let written = 0;
                for (const record of records) {
                  if (record.type === 1) {
                    const end = Math.min(count, record.block + ('run' in record ? record.run : 1));
                    for (let block = record.block; block < end; block++, written++) {
                      bytes.push(words(1, block));
                      model.sync(block);
                    }
                  } else {
                    const length = Math.min(record.length, 4096 - record.offset);
                    bytes.push(words(2, record.block, record.offset, length));
                    const end = Math.min(record.offset + length, record.block === count - 1 ? last : 4096);
                    if (record.offset < end) model.write(record.block, record.offset, end);
                    written++;
                  }
                }
                const log = concat(...bytes);
                for (let at = 0; at < log.length; at += pieces) replay.format1(log.subarray(at, at + pieces));
                expect(replay.endFormat1()).toEqual({ records: written, tornBytes: 0, endedByZero: false });
              }
              merge(replay, map, dirty);
              replay.dispose();
              const expected = model.state();
              expect(map.count).toBe(expected.synced.length);
              expect(stateOf(map, dirty)).toEqual(expected);
            });
          },
        ),
        { numRuns: 150 },
      );
    });

    it('emits the bytes of CRoaring’s runOptimize, independent of the order of records', async () => {
      const core = create();
      const shape = geometry({ size: 300_000 * 4096, blockSize: 4096 });
      const run = fc.tuple(blocks(300_000), fc.oneof(fc.constant(1), fc.nat(40), fc.nat(70_000)));
      await fc.assert(
        fc.asyncProperty(
          fc.oneof(
            fc.array(run, { maxLength: 12 }),
            fc.array(fc.tuple(fc.nat(9000), fc.constant(1)), { size: 'max', maxLength: 9000 }),
          ),
          async (runs) =>
            withMaps(core, shape, (_, dirty) => {
              const replay = new Format1Replay(core, shape);
              const set = new Set<number>();
              const bytes: Uint8Array[] = [];
              for (const [start, length] of runs) {
                const all: number[] = [];
                for (let block = start; block < Math.min(start + length, shape.blockCount); block++) {
                  set.add(block);
                  all.push(1, block);
                }
                bytes.push(new Uint8Array(BigUint64Array.from(all, BigInt).buffer));
              }
              replay.format1(concat(...bytes));
              ended(replay.finishing(dirty));
              const emitted = [...replay.emitSlices()].map(([slice, found]) => [slice, Buffer.from(found)]);
              expect(emitted).toEqual(set.size === 0 ? [] : [[0, Buffer.from(canonicalBytes(set))]]);
              replay.dispose();
            }),
        ),
        { numRuns: 40 },
      );
    });

    const shape = geometry({ size: 10 * 4096, blockSize: 4096 });

    it('drops a torn tail of any length', async () => {
      const core = create();
      const log = concat(words(1, 3), words(2, 4, 10, 20));
      for (let cut = 1; cut < 32; cut++) {
        await withMaps(core, shape, (map, dirty) => {
          const replay = new Format1Replay(core, shape);
          replay.format1(log.subarray(0, log.length - cut));
          expect(replay.endFormat1()).toEqual({ records: 1, tornBytes: 32 - cut, endedByZero: false });
          merge(replay, map, dirty);
          expect(stateOf(map, dirty)).toEqual({ synced: [3], dirty: [] });
        });
      }
    });

    it('does not continue a torn tail of one log in the next log', async () => {
      const core = create();
      await withMaps(core, shape, (map, dirty) => {
        const replay = new Format1Replay(core, shape);
        replay.format1(words(1, 3, 2, 4).subarray(0, 29));
        expect(replay.endFormat1().tornBytes).toBe(13);
        replay.format1(words(1, 5));
        expect(replay.endFormat1()).toEqual({ records: 1, tornBytes: 0, endedByZero: false });
        merge(replay, map, dirty);
        expect(stateOf(map, dirty).synced).toEqual([3, 5]);
      });
    });

    it('ends at a record of type 0, for any bytes after it and any cut', async () => {
      const core = create();
      const log = words(1, 3, 0, 99, 1, 4);
      for (let piece = 1; piece <= log.length; piece++) {
        await withMaps(core, shape, (map, dirty) => {
          const replay = new Format1Replay(core, shape);
          for (let at = 0; at < log.length; at += piece) replay.format1(log.subarray(at, at + piece));
          expect(replay.endFormat1()).toEqual({ records: 1, tornBytes: 0, endedByZero: true });
          merge(replay, map, dirty);
          expect(stateOf(map, dirty).synced).toEqual([3]);
        });
      }
    });

    it('ignores the phantom block after the last block, and refuses any other block', () => {
      const core = create();
      const replay = new Format1Replay(core, shape);
      replay.format1(words(1, 10, 2, 10, 0, 4096));
      expect(replay.endFormat1().records).toBe(2);
      expect(corrupt(() => replay.format1(words(1, 9, 1, 11)))).toMatchObject({
        offset: 32,
        found: 11,
        message: 'log at offset 32: block 11 is beyond the device (10 blocks)',
      });
      const odd = new Format1Replay(core, geometry({ size: 10 * 4096 - 1, blockSize: 4096 }));
      expect(corrupt(() => odd.format1(words(1, 10)))).toMatchObject({ offset: 16, found: 10 });
      expect(corrupt(() => odd.format1(words(1, 2n ** 64n - 1n)))).toMatchObject({ offset: 16 });
    });

    it('refuses an unknown type and a part outside its block', () => {
      const core = create();
      for (const bad of [
        words(3, 0),
        words(2, 0, 4000, 97),
        words(2, 0, 2n ** 63n, 1),
        words(2, 0, 1, 2n ** 64n - 1n),
        words(2, 12, 0, 1),
      ]) {
        expect(corrupt(() => new Format1Replay(core, shape).format1(concat(words(1, 1), bad)))).toMatchObject({
          offset: 32,
        });
      }
    });

    it('reads more dirty records than fit into memory at once', async () => {
      const core = create();
      const many = geometry({ size: 2 ** 20 * 4096, blockSize: 4096 });
      await withMaps(core, many, (map, dirty) => {
        const replay = new Format1Replay(core, many);
        const count = 1_100_000;
        const log = new BigUint64Array(count * 4);
        for (let i = 0; i < count; i++) log.set([2n, BigInt(i % 5000), BigInt((i % 7) * 512), 512n], i * 4);
        replay.format1(new Uint8Array(log.buffer));
        replay.format1(words(1, 17, 2, 3, 3584, 512));
        merge(replay, map, dirty);
        expect([...map.runs()]).toEqual([
          [3, 4],
          [17, 18],
        ]);
        expect(dirty.blockCount).toBe(4998);
        expect(dirty.parts(4)).toEqual([[0, 3584]]);
      });
    });
  });

  describe('reading format 2', () => {
    const shape = geometry({ size: 1000 * 4096 + 100, blockSize: 4096 });

    it('reads the encoder’s frames at any place like the model, below any barrier', async () => {
      const core = create();
      const size = 300_000 * 8192 - 77;
      const device = geometry({ size, blockSize: 8192 });
      const record = fc.record({
        type: fc.constantFrom(FILLED, FILLED, WRITTEN, WRITTEN_PAIR, MAY_READ),
        offset: fc.oneof(
          fc.nat(size - 1),
          blocks(300_000).map((block) => Math.min(size - 1, block * 8192)),
        ),
        length: fc.oneof(fc.integer({ min: 1, max: 20_000 }), fc.constantFrom(512, 4096, 8192, 8192 * 1000, 2 ** 40)),
        sum: fc.nat(2 ** 32 - 1),
      });
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.array(record, { maxLength: 70 }), { maxLength: 6 }),
          fc.integer({ min: 1, max: 5 }),
          fc.nat(6),
          async (batches, piece, firmBatches) => {
            const encoder = new FrameEncoder(core, { epoch: EPOCH });
            const model = new Model(device);
            const body = new Uint8Array(64 * 1024);
            let position = 512;
            let sequence = 0;
            let firm = 0;
            let records = 0;
            for (const [index, batch] of batches.entries()) {
              const add = (offset: number, length: number): void => {
                if (index < firmBatches) model.extent(offset, length);
              };
              let fillEnd = -1;
              for (const { type, offset, length: wanted, sum } of batch) {
                const cell = Math.floor(offset / 4096) * 4096;
                records++;
                if (type === FILLED) {
                  const length = Math.min(wanted, size - offset, 400 * 8192);
                  encoder.data(FILLED, offset, length, 0);
                  add(offset, length);
                  if (offset === fillEnd) records--;
                  fillEnd = offset + length;
                  continue;
                }
                fillEnd = -1;
                if (type === MAY_READ) encoder.data(MAY_READ, cell, sum, 0);
                else if (type === WRITTEN || cell + 8192 > size) {
                  const length = Math.min(wanted, size - offset, cell + 4096 - offset);
                  encoder.data(WRITTEN, offset, length, sum);
                  add(offset, length);
                } else {
                  encoder.data(WRITTEN_PAIR, cell, sum, ~sum >>> 0);
                  add(cell, 8192);
                }
              }
              const length = encoder.sealedLength(position);
              const sealed = encoder.seal({ position, sequence, firm: 0 });
              expect(sealed.bytes.length).toBe(length);
              body.set(sealed.bytes, position - 512);
              position = sealed.end;
              sequence += sealed.frames;
              if (index < firmBatches) firm = sequence;
            }
            encoder.dispose();
            const result = scan(core, device, body, piece * 512);
            expect(result).toMatchObject({
              frames: sequence,
              records,
              endOffset: position,
              tornBytes: 0,
              isDamaged: false,
            });
            await withMaps(core, device, (map, dirty) => {
              const replay = new Replay(core, device);
              for (let at = 0; at < body.length; at += piece * 512)
                replay.format2(body.subarray(at, at + piece * 512), firm);
              merge(replay, map, dirty);
              replay.dispose();
              expect(stateOf(map, dirty)).toEqual(model.state());
            });
          },
        ),
        { numRuns: 60 },
      );
    });

    it('writes the bytes of docs/FORMAT.md', () => {
      const core = create();
      const encoder = new FrameEncoder(core, { epoch: EPOCH });
      encoder.data(FILLED, 4096, 512, 0);
      encoder.data(FILLED, 4608, 100, 0);
      encoder.data(WRITTEN, 9000, 1, 0xffff_fffe);
      encoder.barrier(3);
      expect(encoder.pendingRecords).toBe(3);
      const { bytes, end, frames } = encoder.seal({ position: 512, sequence: 5, firm: 2 });
      const expected = frame({ epoch: EPOCH, sequence: 5, firm: 2 }, [
        filled(4096, 612),
        written(9000, 1, 0xffff_fffe),
        barrier(3),
      ]);
      expect(Buffer.from(bytes).equals(expected)).toBe(true);
      expect([end, frames, encoder.pendingRecords]).toEqual([512 + expected.length, 1, 0]);
      encoder.data(WRITTEN_PAIR, 2 ** 40, 0x8000_0001, 0xffff_ffff);
      encoder.data(MAY_READ, 8192, 0x8765_4321, 0);
      encoder.continued();
      encoder.based();
      const next = encoder.seal({ position: 920, sequence: 6, firm: 2 });
      const second = frame({ epoch: EPOCH, sequence: 6, firm: 2 }, [
        writtenPair(2 ** 40, 0x8000_0001, 0xffff_ffff),
        mayRead(8192, 0x8765_4321),
        CONTINUED,
        BASED,
      ]);
      expect(Buffer.from(next.bytes).equals(second)).toBe(true);
      encoder.based();
      const third = encoder.seal({ position: 1000, sequence: 7, firm: 2 });
      const padded = concat(new Uint8Array(24), frame({ epoch: EPOCH, sequence: 7, firm: 2 }, [BASED]));
      expect(Buffer.from(third.bytes).equals(padded)).toBe(true);
    });

    it('joins only fills, since a record of a write has a sum of its own', () => {
      const encoder = new FrameEncoder(create(), { epoch: EPOCH });
      encoder.data(WRITTEN, 4096, 100, 7);
      encoder.data(WRITTEN, 4196, 100, 7);
      encoder.data(FILLED, 4296, 100, 0);
      encoder.data(FILLED, 4396, 100, 0);
      encoder.data(WRITTEN, 4496, 100, 0);
      encoder.data(MAY_READ, 8192, 1, 0);
      encoder.data(MAY_READ, 8192, 1, 0);
      const { bytes } = encoder.seal({ position: 512, sequence: 0, firm: 0 });
      const expected = frame({ epoch: EPOCH, sequence: 0 }, [
        written(4096, 100, 7),
        written(4196, 100, 7),
        filled(4296, 200),
        written(4496, 100),
        mayRead(8192, 1),
        mayRead(8192, 1),
      ]);
      expect(Buffer.from(bytes).equals(expected)).toBe(true);
    });

    it('refuses records for a full batch, and still accepts the marks', () => {
      const encoder = new FrameEncoder(create(), { epoch: EPOCH });
      for (let i = 0; !encoder.isFull; i++) encoder.data(i % 2 === 0 ? WRITTEN : FILLED, i * 2, 1, 0);
      for (const type of [FILLED, WRITTEN, WRITTEN_PAIR, MAY_READ, MODIFIED])
        expect(() => encoder.data(type, 2 ** 20, 1, 0)).toThrow(RangeError);
      encoder.barrier(0);
      const { frames, bytes } = encoder.seal({ position: 512 + 504 - 32, sequence: 0, firm: 0 });
      expect([frames, bytes.length]).toEqual([548, 40 + 546 * 512 + 24 + 16 * 4]);
    });

    const one = frame({ epoch: EPOCH, sequence: 0 }, [filled(0, 4096), written(8192, 100, 0xffff_ffff)]);
    const two = frame({ epoch: EPOCH, sequence: 1, firm: 1 }, [written(4096, 4096)]);
    const three = frame({ epoch: EPOCH, sequence: 2, firm: 2 }, [barrier(2), BASED]);

    it('reports frames, barriers and marks', () => {
      const core = create();
      expect(scan(core, shape, logBody([one, two, three], 4))).toEqual({
        frames: 3,
        records: 3,
        endOffset: 512 + one.length + two.length + three.length,
        tornBytes: 0,
        isDamaged: false,
        barrierThrough: 2,
        hasBarrier: true,
        continued: false,
        basedAnywhere: true,
      });
    });

    it('reads no frame from an empty log', () => {
      const core = create();
      expect(scan(core, shape, new Uint8Array(4096 - 512))).toMatchObject({
        frames: 0,
        endOffset: 512,
        barrierThrough: 0,
        tornBytes: 0,
        isDamaged: false,
      });
    });

    it('ignores a frame cut at any byte, and reports no damage', () => {
      const core = create();
      const whole = logBody([one, two], 3);
      for (let cut = 0; cut < two.length; cut++) {
        const body = whole.slice();
        body.fill(0, one.length + cut);
        expect(scan(core, shape, body)).toMatchObject({ frames: 1, endOffset: 512 + one.length, isDamaged: false });
        const isPrefix = body.subarray(one.length).some((byte) => byte !== 0);
        expect(scan(core, shape, body).tornBytes > 0).toBe(isPrefix);
      }
    });

    const sector = (...frames: Uint8Array[]): Uint8Array => logBody(frames, 1);
    const nothing = new Uint8Array(512);

    it('takes any bytes after the last frame for a torn tail', () => {
      const core = create();
      const older = frame({ epoch: EPOCH - 2, sequence: 2, firm: 2 }, [barrier(2), BASED]);
      const earlier = frame({ epoch: EPOCH, sequence: 0, firm: 0 }, [filled(0, 4096)]);
      const noEnd = three.slice(0, -1);
      const badSum = three.slice();
      badSum[20]! ^= 1;
      const badLength = three.slice();
      badLength[0] = 41;
      const junk = [older, earlier, noEnd, badSum, badLength, new Uint8Array(40).fill(0xaa), Uint8Array.of(0, 0, 0, 1)];
      for (const rest of junk) {
        for (const more of [nothing, concat(rest, new Uint8Array(512 - rest.length)), new Uint8Array(512).fill(0xff)]) {
          const found = scan(core, shape, concat(sector(one, two, rest), more, more));
          expect(found).toMatchObject({ frames: 2, records: 3, barrierThrough: 0, isDamaged: false });
          expect(found.endOffset).toBe(512 + one.length + two.length);
        }
      }
      const found = scan(core, shape, sector(one, new Uint8Array(100).fill(1)));
      expect(found.tornBytes).toBe(100);
      expect(scan(core, shape, concat(sector(one), new Uint8Array(512).fill(1))).tornBytes).toBe(0);
    });

    it('takes a missing frame for damage if a later frame says that it was durable', () => {
      const core = create();
      const far = frame({ epoch: EPOCH, sequence: 3, firm: 1 }, [written(0, 1)]);
      const firm = frame({ epoch: EPOCH, sequence: 3, firm: 2 }, [BASED]);
      const junk = new Uint8Array(512).fill(0x55);
      for (const between of [[], [nothing], [junk], [nothing, junk]]) {
        expect(scan(core, shape, concat(sector(one), ...between, sector(far)))).toMatchObject({
          frames: 1,
          isDamaged: false,
        });
        expect(scan(core, shape, concat(sector(one), ...between, sector(firm)))).toMatchObject({
          frames: 1,
          isDamaged: true,
          basedAnywhere: true,
        });
      }
      expect(scan(core, shape, concat(nothing, sector(two)))).toMatchObject({ frames: 0, isDamaged: true });
      // The frame with the higher `firm` may come first.
      const last = frame({ epoch: EPOCH, sequence: 4, firm: 0 }, [written(0, 1)]);
      expect(scan(core, shape, concat(sector(one), nothing, sector(firm, last)))).toMatchObject({ isDamaged: true });
    });

    it('takes a missing frame for damage if a later frame is in its sector', () => {
      const core = create();
      const later = frame({ epoch: EPOCH, sequence: 2, firm: 0 }, [written(0, 1)]);
      for (let at = 0; at < two.length; at++) {
        const damaged = two.slice();
        damaged[at]! ^= 0x80;
        expect(scan(core, shape, sector(one, damaged, later))).toMatchObject({ frames: 1, isDamaged: true });
        expect(scan(core, shape, concat(sector(one, damaged), sector(later)))).toMatchObject({
          frames: 1,
          isDamaged: false,
        });
      }
      // An earlier frame of the log, which a stale page may show, proves nothing.
      const earlier = frame({ epoch: EPOCH, sequence: 0, firm: 0 }, [written(0, 1)]);
      expect(scan(core, shape, sector(one, new Uint8Array(two.length), earlier))).toMatchObject({ isDamaged: false });
    });

    it('counts a barrier behind missing frames if all frames below it are there', () => {
      const core = create();
      for (const through of [0, 1, 2, 3]) {
        const flush = frame({ epoch: EPOCH, sequence: 3, firm: 0 }, [barrier(through)]);
        const found = scan(core, shape, concat(sector(one, two), nothing, sector(flush)));
        expect(found).toMatchObject({ frames: 2, records: 3, isDamaged: false });
        expect(found.barrierThrough).toBe(through <= 2 ? through : 0);
      }
      const early = frame({ epoch: EPOCH, sequence: 2, firm: 0 }, [barrier(1)]);
      const late = frame({ epoch: EPOCH, sequence: 4, firm: 0 }, [barrier(2)]);
      expect(scan(core, shape, concat(sector(one, two, early), nothing, sector(late))).barrierThrough).toBe(2);
      expect(scan(core, shape, concat(sector(one, two), nothing, sector(late), sector(early))).barrierThrough).toBe(2);
    });

    it('refuses records that no writer makes, and names the place', () => {
      const core = create();
      const at = 512 + one.length;
      const refuse = (bad: Uint8Array, sectors = 4) => corrupt(() => scan(core, shape, logBody([one, bad], sectors)));
      const refuseRecord = (record: [bigint, bigint | number]) =>
        refuse(frame({ epoch: EPOCH, sequence: 1 }, [record]));
      expect(refuse(frame({ epoch: EPOCH, sequence: 1 }, [barrier(2)]))).toMatchObject({ offset: at + 16, found: 2 });
      expect(refuseRecord([0n, 0])).toMatchObject({ offset: at + 16, found: 0 });
      expect(refuseRecord([9n << 56n, 0])).toMatchObject({ offset: at + 16, found: 9 });
      const beyond: [bigint, bigint | number][] = [
        written(0, 0),
        written(shape.size, 1),
        written(4095, 2),
        written(0, 4097),
        filled(0, 0),
        filled(shape.size, 1),
        filled(0, shape.size + 1),
        [7n << 56n, 2n ** 64n - 1n],
        [8n << 56n, 2n ** 64n - 1n],
        writtenPair(1),
        writtenPair(4096 * 999),
        mayRead(1),
        mayRead(4096 * 1001),
        modified(0, 0),
        modified(4_096_100, 1),
        modified(4_096_000, 101),
      ];
      for (const record of beyond) expect(refuseRecord(record), String(record)).toMatchObject({ offset: at + 16 });
      expect(refuseRecord(written(shape.size, 1))['message']).toContain(
        'record of type 1 at byte 4096100 leaves its cell or the device (4096100 bytes)',
      );
      expect(refuse(frame({ epoch: EPOCH, sequence: 1 }, [CONTINUED, BASED]))).toMatchObject({ offset: at + 32 });
      expect(refuseRecord([3n << 56n, 1])).toMatchObject({ offset: at + 16 });
      expect(refuseRecord([(4n << 56n) | 1n, 0])).toMatchObject({ offset: at + 16 });
      const continued = frame({ epoch: EPOCH, sequence: 1 }, [CONTINUED]);
      corrupt(() => scan(core, shape, logBody([one, continued, frame({ epoch: EPOCH, sequence: 2 }, [BASED])])));
      // A valid frame behind missing ones is checked, too.
      const far = frame({ epoch: EPOCH, sequence: 5 }, [writtenPair(1)]);
      corrupt(() => scan(core, shape, concat(sector(one), nothing, sector(far))));
      // The last cell of the device may be short.
      const short = frame({ epoch: EPOCH, sequence: 1 }, [written(4_096_000, 100), mayRead(4_096_000)]);
      expect(scan(core, shape, logBody([one, short]))).toMatchObject({ frames: 2, records: 4 });
    });

    it('detects each flipped bit in frames that a later frame of the sector proves', async () => {
      const core = create();
      const body = logBody([one, two, three], 2);
      const proved = one.length + two.length;
      const apply = (bytes: Uint8Array): Promise<unknown> =>
        withMaps(core, shape, (map, dirty) => {
          const { frames, endOffset, isDamaged, barrierThrough, basedAnywhere } = scan(core, shape, bytes);
          const replay = new Replay(core, shape);
          replay.format2(bytes.slice().fill(0, endOffset - 512), barrierThrough);
          merge(replay, map, dirty);
          replay.dispose();
          return { ...stateOf(map, dirty), frames, isDamaged, barrierThrough, basedAnywhere };
        });
      const expected = await apply(body);
      // Without the last frame, the log is that of a crash before the barrier.
      const torn = await apply(logBody([one, two], 2));
      expect(torn).toMatchObject({ frames: 2, barrierThrough: 0, isDamaged: false });
      for (let bit = 0; bit < body.length * 8; bit++) {
        const flipped = body.slice();
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        const found = await apply(flipped);
        if (bit < proved * 8) expect(found).toMatchObject({ isDamaged: true });
        else if (bit < (proved + three.length) * 8) expect(found).toEqual(torn);
        else expect(found).toEqual(expected);
      }
      expect(core.failure).toBeUndefined();
    });

    it('neither hangs nor traps on random bytes', () => {
      const core = create();
      const pieces = fc.oneof(
        fc.uint8Array({ minLength: 512, maxLength: 512 }),
        fc
          .array(fc.constantFrom(one, two, three, new Uint8Array(8), new Uint8Array(40).fill(1)), { maxLength: 5 })
          .map((parts) => logBody(parts, 1)),
      );
      fc.assert(
        fc.property(
          fc.array(pieces, { maxLength: 4 }),
          fc.array(fc.tuple(fc.nat(2047), fc.nat(255)), { maxLength: 3 }),
          (sectors, changes) => {
            const body = concat(...sectors);
            for (const [at, value] of changes) if (at < body.length) body[at] = value;
            for (const action of [
              () => scan(core, shape, body),
              () => new Replay(core, shape).format2(body, ALL),
              () => new Format1Replay(core, shape).format1(body),
            ]) {
              try {
                action();
              } catch (error) {
                if (!isCodError(error, 'COD_CORRUPT')) throw error;
              }
            }
            expect(core.failure).toBeUndefined();
          },
        ),
        { numRuns: 500 },
      );
    });

    it('continues correctly when the memory grows between pieces in the staging area', async () => {
      const core = create();
      const device = geometry({ size: 2 ** 40, blockSize: 4096 });
      // One frame per sector, each with its own blocks, in as many containers as possible.
      const sectors = 2048;
      const block = (i: number): number => ((i * 40_503) % 65_536) * 4096 + 1;
      const body = new Uint8Array(sectors * 512);
      const encoder = new FrameEncoder(core, { epoch: EPOCH });
      for (let i = 0; i < sectors; i++) {
        for (let j = 0; j < 30; j++) encoder.data(WRITTEN, block(i * 30 + j) * 4096, 4096, j);
        const { bytes } = encoder.seal({ position: 512 + i * 512, sequence: i, firm: 0 });
        body.set(bytes, i * 512);
      }
      const feed = (take: (piece: Uint8Array) => void): void => {
        for (let at = 0; at < body.length; at += core.staging.length) {
          const piece = core.staging;
          piece.set(body.subarray(at, at + piece.length));
          take(piece);
        }
      };
      await withMaps(core, device, (map, dirty) => {
        const before = core.memoryBytes;
        const log = new LogScan(core, device, { epoch: EPOCH, capacity: 512 + body.length });
        feed((piece) => {
          log.feed(piece);
          core.exports.alloc(core.memoryBytes / 8);
        });
        expect(log.finish()).toMatchObject({
          frames: sectors,
          records: sectors * 30,
          endOffset: 512 + body.length - 8,
        });
        const between = core.memoryBytes;
        expect(between).toBeGreaterThan(before);
        const replay = new Replay(core, device);
        feed((piece) => {
          replay.format2(piece, ALL);
          core.exports.alloc(core.memoryBytes / 8);
        });
        expect(core.memoryBytes).toBeGreaterThan(between);
        merge(replay, map, dirty);
        expect(map.count).toBe(sectors * 30);
        for (let i = 0; i < sectors * 30; i += 17) expect(map.has(block(i))).toBe(true);
      });
    });

    it('handles a million records of a TiB as cheaply as a few', async () => {
      const core = create();
      const device = geometry({ size: 2 ** 40, blockSize: 4096 });
      await withMaps(core, device, (map, dirty) => {
        const replay = new Replay(core, device);
        const half = frame(
          { epoch: EPOCH, sequence: 0 },
          Array.from({ length: 30 }, (_, i) => filled(i % 2 === 0 ? 0 : 2 ** 39 + 4096, 2 ** 39 - 4096)),
        );
        const body = logBody(Array.from({ length: 512 }, () => half));
        for (let i = 0; i < 65; i++) replay.format2(body, ALL);
        merge(replay, map, dirty);
        expect(map.count).toBe(2 ** 28 - 2);
        expect([map.has(2 ** 27 - 1), map.has(2 ** 27), map.has(2 ** 28 - 1)]).toEqual([false, false, true]);
      });
    });
  });
});
