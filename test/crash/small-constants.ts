/**
 * Scales the limits in the sources down to devices of a few blocks.
 *
 * A few operations then fill the log, end a batch, exceed the dirty parts of a block, and flush the background copy.
 */

import type { Patch } from './patched-build.ts';

export const SMALL_CONSTANTS: readonly Patch[] = [
  {
    file: 'src/log/log-size.ts',
    find: 'const MIN_LOG_BYTES = 2 ** 20;',
    replace: 'const MIN_LOG_BYTES = 2 ** 12;',
  },
  // Less than a log, so that logs allocate, and no more than a few frames ahead.
  { file: 'src/log/log-file.ts', find: 'const STEP_BYTES = 65_536;', replace: 'const STEP_BYTES = 3072;' },
  { file: 'src/log/write-intent-log.ts', find: 'const AHEAD_BYTES = 16_384;', replace: 'const AHEAD_BYTES = 2100;' },
  { file: 'src/log/checkpointer.ts', find: 'const CLAIMS_TO_FLUSH = 16_384;', replace: 'const CLAIMS_TO_FLUSH = 12;' },
  { file: 'src/log/firmness.ts', find: 'MAX_CLAIMS: number = 2 ** 18;', replace: 'MAX_CLAIMS: number = 40;' },
  {
    file: 'src/log/log-size.ts',
    find: 'const MIN_LOG_BYTES_OF_LARGE = 2 ** 23;',
    replace: 'const MIN_LOG_BYTES_OF_LARGE = 2 ** 13;',
  },
  {
    file: 'src/log/log-size.ts',
    find: 'Math.ceil(wanted / 65_536) * 65_536',
    replace: 'Math.ceil(wanted / 4096) * 4096',
  },
  {
    file: 'src/log/proof.ts',
    find: 'const MAX_CLAIMS_READ = 2 * MAX_CLAIMS;',
    replace: 'const MAX_CLAIMS_READ = 1000;',
  },
  { file: 'src/log/proof.ts', find: 'const CELLS_A_TURN = 256;', replace: 'const CELLS_A_TURN = 2;' },
  {
    file: 'src/device/writer.ts',
    find: 'const MAX_SUMMED_ZEROES = 2 ** 24;',
    replace: 'const MAX_SUMMED_ZEROES = 2 ** 13;',
  },
  {
    file: 'src/log/group-commit.ts',
    find: 'const MAX_BATCH_RECORDS = 3_000;',
    replace: 'const MAX_BATCH_RECORDS = 5;',
  },
  {
    file: 'src/log/checkpointer.ts',
    find: 'const SMALL_CHECKPOINT_BYTES = 65_536;',
    replace: 'const SMALL_CHECKPOINT_BYTES = 640;',
  },
  // A life is shorter than the first wait for a source that is away.
  { file: 'src/device/retries.ts', find: 'const BASE_DELAY_MS = 500;', replace: 'const BASE_DELAY_MS = 8;' },
  {
    file: 'src/device/reader.ts',
    find: 'const READ_PIECE_BYTES = 2 ** 22;',
    replace: 'const READ_PIECE_BYTES = 2 ** 14;',
  },
  {
    file: 'src/device/writer.ts',
    find: 'const ZERO_PIECE_BYTES = 2 ** 22;',
    replace: 'const ZERO_PIECE_BYTES = 2 ** 13;',
  },
  { file: 'src/core/copy-state.ts', find: 'const MAX_PARTS_OF_BLOCK = 64;', replace: 'const MAX_PARTS_OF_BLOCK = 2;' },
  { file: 'src/device/hydrator.ts', find: 'const FLUSH_BYTES = 2 ** 26;', replace: 'const FLUSH_BYTES = 2 ** 14;' },
  { file: 'src/device/stretches.ts', find: 'const RECORD_BYTES = 2 ** 20;', replace: 'const RECORD_BYTES = 2 ** 13;' },
  {
    file: 'src/device/governor.ts',
    find: 'const MIN_SKIP_BYTES = 2 ** 18;',
    replace: 'const MIN_SKIP_BYTES = 2 ** 12;',
  },
  {
    file: 'src/device/governor.ts',
    find: 'const FIRST_STRETCH_BYTES = 2 ** 26;',
    replace: 'const FIRST_STRETCH_BYTES = 2 ** 14;',
  },
  {
    file: 'src/device/filler.ts',
    find: 'const ZERO_UNIT_BYTES = 65_536;',
    replace: 'const ZERO_UNIT_BYTES = 4096;',
  },
  {
    file: 'src/fs/inline-file.ts',
    find: 'export const HOLE_BYTES: number = 2 ** 21;',
    replace: 'export const HOLE_BYTES: number = 2 ** 13;',
  },
  {
    file: 'src/device/target.ts',
    find: 'const WRITTEN_UNIT_BYTES = REST_UNIT_BYTES;',
    replace: 'const WRITTEN_UNIT_BYTES = 2 ** 12;',
  },
];
