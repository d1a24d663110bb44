/** What is mutated, and the tests that judge the mutants. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** What a write, a discard, a flush or a checkpoint of a device passes through, beside the log. */
const WRITE_PATH = ['device', 'filler', 'operations', 'range-lock', 'target', 'writer'];

/**
 * Returns the paths of the sources that are mutated.
 * @param {string} root
 */
export function mutatedFiles(root) {
  const within = (/** @type {string} */ folder) =>
    readdirSync(join(root, folder))
      .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
      .map((name) => `${folder}/${name}`);
  return [...within('src/core'), ...within('src/log'), ...WRITE_PATH.map((name) => `src/device/${name}.ts`)];
}

/** Runs before the tests, as in vitest.config.ts. */
export const SETUP = 'test/support/byte-equality.ts';

/** Fewer rounds, since each mutant runs them again, and fixed seeds. */
export const TEST_ENVIRONMENT = {
  COD_CONCURRENCY_ROUNDS: '4',
  COD_JOURNAL_SEEDS: '1',
  COD_LINEAR_DEVICE_ROUNDS: '2',
  COD_LOG_SEEDS: '3',
  COD_SNAPSHOT_SEEDS: '1',
  COD_TEST_LONG: '0',
};

/**
 * These do not judge mutants: they search the text of the sources, start processes, or need a process of their own, or
 * they repeat for seconds what others test too.
 */
const LEFT_OUT = [
  'core/interface',
  'core/core',
  'log/foreign-files',
  'log/log-document',
  'log/long-transactions',
  'log/no-memory',
  'log/older-files',
  'device/diagnostics',
  'device/governor',
  'device/hydration-order',
  'device/lost-volume',
  'device/rate-limiter',
  'device/read-recorder',
  'device/v86-disk',
];

const SLOW = new Set([
  'core/block-map#the block map writes equal bytes for equal sets, independent of their history, and reads them back',
  'device/inline-device#no acknowledged byte is lost by a loss crash at any operation, for any writes of a turn',
  'device/inline-device#no acknowledged byte is lost by a power crash at any operation, for any writes of a turn',
  'device/zeroing#zeroing a new target makes all zero that was written before, at any place, in any order',
  'log/intent-log#a transaction that would overfill the map of parts is COD_NO_SPACE, and the log still works',
  'log/journal#a checkpoint costs at most as much as the log, over many writes in turns of 1',
  'log/journal#a checkpoint costs at most as much as the log, over many writes in turns of 16',
  'log/shared-core#the shared instance returns all memory of devices that are closed, poisoned or not opened',
]);

/** @param {string} id */
export const isSlow = (id) => SLOW.has(id.replace(/^test\//, '').replace('.test.ts#', '#'));

/** @returns {string[]} */
export function testFiles() {
  return ['core', 'log', 'device', 'async', 'crash']
    .flatMap((folder) =>
      readdirSync(`test/${folder}`)
        .filter((name) => name.endsWith('.test.ts') && !name.endsWith('.long.test.ts'))
        .filter((name) => folder !== 'crash' || name === 'device.crash.test.ts')
        .map((name) => `${folder}/${name}`),
    )
    .filter((name) => !LEFT_OUT.includes(name.replace('.test.ts', '')))
    .map((name) => `test/${name}`)
    .filter((name) => new RegExp(process.env['COD_MUTANT_TESTS'] ?? '').test(name));
}
