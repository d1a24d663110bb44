/** Transactions with more records than one append takes, or than one log holds. */

import { expect, it } from 'vitest';
import { CELL_BYTES } from '../../src/core/layout.ts';
import { CodError, openIntentLog } from '../../src/log.ts';
import { MemoryFiles } from './memory-files.ts';

/** Large blocks, so that the log is short: 1 MiB. */
const BLOCK_BYTES = 2 ** 20;
/** Records of 16 bytes for each two cells do not fit into the log. */
const CELLS = 160_000;
const SIZE = CELLS * CELL_BYTES;

/** A storage of zeros, so that it needs no memory. */
const storage = {
  read: async (into: Uint8Array) => void into.fill(0),
  sync: async () => undefined,
};

async function openLog(files: MemoryFiles): ReturnType<typeof openIntentLog> {
  return openIntentLog({ fileSystem: files, name: 'log', size: SIZE, blockSize: BLOCK_BYTES, storage });
}

it('keeps each record when a checkpoint comes between two appends of a transaction', async () => {
  const files = new MemoryFiles();
  const log = await openLog(files);
  const transaction = log.begin();
  await transaction.intend(0, new Uint8Array(SIZE));
  await log.commit(transaction);
  const recovered = await openLog(new MemoryFiles(files.images()));
  expect(recovered.blocks.count).toBe(Math.ceil(SIZE / BLOCK_BYTES));
  await Promise.all([log.close(), recovered.close()]);
});

it('fails when any append of a transaction fails', async () => {
  const files = new MemoryFiles();
  const log = await openLog(files);
  const transaction = log.begin();
  const bytes = new Uint8Array(CELL_BYTES);
  for (let cell = 0; cell < 10_000; cell += 2) await transaction.intend(cell * CELL_BYTES, bytes);
  let appends = 0;
  files.before = ({ kind, name }) => {
    if (kind === 'write' && name.startsWith('log.wil') && ++appends === 1)
      throw new CodError('COD_NO_SPACE', 'the disk is full');
  };
  await expect(log.commit(transaction)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
  expect(appends).toBeGreaterThan(1);
  await log.close();
});

it('announces more cells than a log holds', async () => {
  const files = new MemoryFiles();
  let open!: () => void;
  let gate: Promise<void> | undefined;
  const log = await openIntentLog({
    fileSystem: files,
    name: 'log',
    size: SIZE,
    blockSize: BLOCK_BYTES,
    storage: { read: storage.read, sync: async () => gate },
  });
  gate = new Promise((resolve) => (open = resolve));
  // A record of the first write is for two cells, one that announces the second write is for one.
  const bytes = new Uint8Array(SIZE / 2);
  const first = log.begin();
  await first.intend(0, bytes);
  await log.commit(first);
  // No cell is firm before the sync ends, so each cell needs a record, and they do not fit into the log.
  const second = log.begin();
  const announced = second.intend(0, bytes);
  open();
  await announced;
  await log.commit(second);
  await log.close();
});
