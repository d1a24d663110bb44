/** Batches of records, and the frames that hold them. test/core/replay.test.ts reads them. */

import { expect, test } from 'vitest';
import { FrameEncoder } from '../../src/core/frames.ts';
import { BATCH_RECORDS, FRAME_BYTES, RECORD_BYTES, SECTOR_BYTES, WRITTEN } from '../../src/core/layout.ts';
import { Core } from '../../src/wasm/core.ts';

const core = Core.create();
/** Records of a frame that fills a sector. */
const PER_SECTOR = Math.floor((SECTOR_BYTES - FRAME_BYTES) / RECORD_BYTES);

function encoderWith(records: number): FrameEncoder {
  const encoder = new FrameEncoder(core, { epoch: 1 });
  for (let record = 0; record < records; record++) encoder.data(WRITTEN, record * 4096, 4096, 0);
  return encoder;
}

test('the length of a sealed batch is known before, wherever it begins', () => {
  for (const records of [0, 1, 2, PER_SECTOR - 1, PER_SECTOR, PER_SECTOR + 1, 3 * PER_SECTOR, 3 * PER_SECTOR + 1]) {
    for (let position = 0; position <= 2 * SECTOR_BYTES; position += 8) {
      const encoder = encoderWith(records);
      const length = encoder.sealedLength(position);
      const { bytes, end, frames } = encoder.seal({ position, sequence: 1, firm: 0 });
      expect({ length, end }, `${records} records at ${position}`).toEqual({
        length: bytes.length,
        end: position + bytes.length,
      });
      // No frame crosses a sector.
      expect(frames).toBeGreaterThanOrEqual(Math.ceil(records / PER_SECTOR));
      expect(encoder.pendingRecords).toBe(0);
      encoder.dispose();
    }
  }
});

test('a batch has room for marks when it is full for data, and can be dropped', () => {
  const encoder = encoderWith(BATCH_RECORDS - 1);
  expect([encoder.pendingRecords, encoder.isFull]).toEqual([BATCH_RECORDS - 1, false]);
  encoder.data(WRITTEN, 0, 4096, 0);
  expect([encoder.pendingRecords, encoder.isFull]).toEqual([BATCH_RECORDS, true]);
  encoder.barrier(7);
  encoder.clear();
  expect([encoder.pendingRecords, encoder.isFull, encoder.sealedLength(0)]).toEqual([0, false, 0]);
  encoder.dispose();
});

test('positions of frames are multiples of 8', () => {
  const encoder = encoderWith(1);
  for (const position of [-8, 4, 0.5, 2 ** 53, Number.NaN]) {
    expect(() => encoder.sealedLength(position)).toThrow(RangeError);
    expect(() => encoder.seal({ position, sequence: 1, firm: 0 })).toThrow(RangeError);
  }
  encoder.dispose();
  // A second time is harmless, and any use is an error.
  encoder.dispose();
  expect(() => encoder.barrier(1)).toThrow('the encoder is disposed');
});
