import { describe, expect, it } from 'vitest';
import { concat } from '../../src/core/concat.ts';
import { MAX_BITMAP_BYTES } from '../../src/core/geometry.ts';
import {
  type CheckpointHeader,
  claim,
  decodeCheckpointHeader,
  decodeLogHeader,
  encodeCheckpointHeader,
  encodeLogHeader,
  type LogHeader,
} from '../../src/core/headers.ts';
import {
  DIRECTORY_ENTRY_BYTES,
  MAX_EMPTY_CHECKPOINT_BYTES,
  MAX_IDENTITY_BYTES,
  SLICE_BLOCKS,
} from '../../src/core/layout.ts';
import { isCodError } from '../../src/errors.ts';
import { builds } from './builds.ts';
import { slowCrc32c, words } from './models.ts';

const core = builds[1]!.create();
const session = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
const checkpoint: CheckpointHeader = {
  session,
  epoch: 5,
  size: 2 ** 40 + 1,
  blockSize: 4096,
  standalone: true,
  restIsZero: false,
  // 17 slices.
  bytes: 512 + 16 + 17 * 40 + 104,
  directoryChecksum: 0xdeadbeef,
  identityBytes: 9,
  syncedBlocks: 1000,
  dirtyBlocks: 1,
  modifiedBlocks: 500,
};
const log: LogHeader = {
  session,
  epoch: 6,
  size: 2 ** 40 + 1,
  blockSize: 4096,
  capacity: 8192,
};
const headers = [
  ['checkpoint', checkpoint, encodeCheckpointHeader(core, checkpoint), decodeCheckpointHeader, decodeLogHeader],
  ['log', log, encodeLogHeader(core, log), decodeLogHeader, decodeCheckpointHeader],
] as const;

function sealAgain(sector: Uint8Array): Uint8Array {
  new DataView(sector.buffer).setUint32(500, slowCrc32c(sector.subarray(0, 500)), true);
  return sector;
}

function code(action: () => unknown): string {
  try {
    return (action() as { state: string }).state;
  } catch (error) {
    if (isCodError(error)) return error.code;
    throw error;
  }
}

describe.each(headers)('the header of a %s', (kind, fields, sector, decode, decodeOther) => {
  it('is read as written', () => {
    expect(sector.length).toBe(512);
    expect(decode(core, sector)).toEqual({ state: 'valid', header: fields });
  });

  it('has its fields at the offsets of docs/FORMAT.md', () => {
    const view = new DataView(sector.buffer);
    const word = (at: number): bigint => view.getBigUint64(at, true);
    expect(new TextDecoder().decode(sector.subarray(0, 8))).toBe(kind === 'checkpoint' ? 'COD BAK\0' : 'COD WIL\0');
    expect([word(8), word(32), word(40), view.getUint32(48, true)]).toEqual([
      2n,
      BigInt(fields.epoch),
      2n ** 40n + 1n,
      4096,
    ]);
    expect(view.getUint32(500, true)).toBe(slowCrc32c(sector.subarray(0, 500)));
    expect(new TextDecoder().decode(sector.subarray(504))).toBe('COD END\n');
    if (kind === 'log') {
      expect([view.getUint32(52, true), word(56)]).toEqual([0, 8192n]);
      expect(sector.subarray(64, 500).every((byte) => byte === 0)).toBe(true);
    } else {
      expect([52, 64, 68].map((at) => view.getUint32(at, true))).toEqual([1, 0xdeadbeef, 9]);
      expect([56, 72, 80].map(word)).toEqual([1312n, 1000n, 1n]);
    }
  });

  it('of an empty file or of zeros is blank: nothing says whose file it is', () => {
    for (const length of [0, 1, 100, 512]) expect(code(() => decode(core, new Uint8Array(length)))).toBe('blank');
  });

  it('cut at any byte is absent, because it was never committed, and blank before its version', () => {
    for (let length = 0; length < 512; length++)
      expect(code(() => decode(core, sector.subarray(0, length)))).toBe(length <= 8 ? 'blank' : 'absent');
  });

  it('over a claim is absent until its last byte, and so is a claim over a void header of either format', () => {
    const claimed = claim(kind);
    const before = sector.slice();
    before[511] = 0;
    const old = concat(sector.subarray(0, 8), words(1), new Uint8Array(495).fill(0xa5), new Uint8Array(1));
    for (let length = 0; length < 512; length++) {
      const cut = (over: Uint8Array, by: Uint8Array): string =>
        code(() => decode(core, concat(by.subarray(0, length), over.subarray(length))));
      expect(cut(claimed, sector)).toBe('absent');
      expect(cut(before, claimed)).toBe('absent');
      expect(cut(old, claimed)).toBe(length <= 8 ? 'format1' : 'absent');
    }
  });

  it('whose beginning is zeroed is refused: no step of ours leaves it', () => {
    for (let length = 1; length < 512; length++) {
      const zeroed = concat(new Uint8Array(length), sector.subarray(length));
      expect(code(() => decode(core, zeroed))).toBe(length <= 504 ? 'COD_CORRUPT' : 'COD_EXISTS');
    }
  });

  it('is foreign in a file that has neither magic, version nor end', () => {
    const text = new TextEncoder().encode('COD is a fish that lives in the sea. '.repeat(30));
    const superblock = new Uint8Array(512);
    superblock.set([0x53, 0xef], 56);
    for (const bytes of [text, superblock, new Uint8Array(512).fill(0xff), text.subarray(0, 5)])
      expect(code(() => decode(core, bytes))).toBe('COD_EXISTS');
  });

  it('detects each flipped bit', () => {
    for (let bit = 0; bit < 4096; bit++) {
      const flipped = sector.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      expect(code(() => decode(core, flipped))).toBe('COD_CORRUPT');
    }
  });

  it('of format 1 is recognized, and one of a newer format is COD_VERSION', () => {
    const old = concat(sector.subarray(0, 8), words(1));
    expect(code(() => decode(core, old))).toBe('format1');
    const newer = sector.slice();
    newer[8] = 3;
    expect(code(() => decode(core, sealAgain(newer)))).toBe('COD_VERSION');
    expect(code(() => decode(core, concat(sector.subarray(0, 8), words(3), new Uint8Array(496))))).toBe('COD_VERSION');
  });

  it('of format 1 with a flipped bit in its version is damage, not absent', () => {
    for (let bit = 0; bit < 64; bit++) {
      const file = concat(sector.subarray(0, 8), words(1, 1, 5));
      file[8 + (bit >> 3)]! ^= 1 << (bit & 7);
      expect(['COD_CORRUPT', 'COD_VERSION']).toContain(code(() => decode(core, file)));
    }
  });

  it('of format 1 whose magic is zeroed is refused', () => {
    const old = concat(sector.subarray(0, 8), words(1, 1, 5));
    for (let length = 1; length <= 8; length++)
      expect(code(() => decode(core, concat(new Uint8Array(length), old.subarray(length))))).toBe('COD_CORRUPT');
    expect(code(() => decode(core, concat(new Uint8Array(9), old.subarray(9))))).toBe('COD_EXISTS');
  });

  it('of the other kind is damage', () => {
    expect(code(() => decodeOther(core, sector))).toBe('COD_CORRUPT');
  });

  it('is refused if its numbers contradict each other, despite a valid checksum', () => {
    const put = (at: number, value: number | bigint): string => {
      const bytes = sector.slice();
      new DataView(bytes.buffer).setBigUint64(at, BigInt(value), true);
      return code(() => decode(core, sealAgain(bytes)));
    };
    expect(put(32, 2n ** 53n)).toBe('COD_CORRUPT');
    expect(put(40, 2n ** 60n)).toBe('COD_CORRUPT');
    expect(put(48, 4095)).toBe('COD_CORRUPT');
    expect(put(52, 2)).toBe('COD_CORRUPT');
    expect(put(56, kind === 'log' ? 145 : 1207)).toBe('COD_CORRUPT');
    expect(put(480, 1)).toBe('COD_CORRUPT');
    if (kind === 'log') expect(put(64, 1)).toBe('COD_CORRUPT');
    else for (const at of [72, 80, 88]) expect(put(at, 2n ** 33n)).toBe('COD_CORRUPT');
  });
});

it('only a checkpoint without a log says that the rest of the target is zero', () => {
  const flagged = (flags: number): Uint8Array => {
    const bytes = encodeCheckpointHeader(core, checkpoint);
    new DataView(bytes.buffer).setUint32(52, flags, true);
    return sealAgain(bytes);
  };
  const decoded = (flags: number) => decodeCheckpointHeader(core, flagged(flags));
  expect(decoded(1)).toMatchObject({ header: { standalone: true, restIsZero: false } });
  expect(decoded(3)).toMatchObject({ header: { standalone: true, restIsZero: true } });
  expect(encodeCheckpointHeader(core, { ...checkpoint, restIsZero: true })).toEqual(flagged(3));
  for (const flags of [2, 4, 5, 7, 2 ** 31]) expect(code(() => decoded(flags))).toBe('COD_CORRUPT');
});

it('the longest checkpoint without a block has 96,768 bytes', () => {
  const slices = Math.ceil((8 * MAX_BITMAP_BYTES) / SLICE_BLOCKS);
  expect(MAX_EMPTY_CHECKPOINT_BYTES).toBe(512 + MAX_IDENTITY_BYTES + DIRECTORY_ENTRY_BYTES * slices);
});

it('refuses to write headers that no reader accepts', () => {
  expect(() => encodeCheckpointHeader(core, { ...checkpoint, bytes: 1 })).toThrow(RangeError);
  expect(() => encodeCheckpointHeader(core, { ...checkpoint, session: new Uint8Array(3) })).toThrow(RangeError);
  expect(() => encodeLogHeader(core, { ...log, capacity: 5000 })).toThrow(RangeError);
  expect(() => encodeLogHeader(core, { ...log, epoch: -1 })).toThrow(RangeError);
});
