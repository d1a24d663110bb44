/** Bugs that the campaign must find, each as a patch of the sources. */

import type { Patch } from './patched-build.ts';

export interface PlantedBug {
  readonly name: string;
  /** Selects scenarios, if all of them would take too long. */
  readonly where?: RegExp;
  /** Crash places per story, if more stories find the bug sooner than more places in one story. */
  readonly samples?: number;
  readonly patches: readonly Patch[];
}

const CHECKPOINTER = 'src/log/checkpointer.ts';
const GROUP_COMMIT = 'src/log/group-commit.ts';
const LOG = 'src/log/write-intent-log.ts';
const RECOVERY = 'src/log/recovery.ts';
const CHECKPOINT = 'src/log/checkpoint.ts';
const STATE = 'src/core/copy-state.ts';
const TARGET = 'src/device/target.ts';
const WRITER = 'src/device/writer.ts';
const FILLER = 'src/device/filler.ts';
const FETCHER = 'src/device/fetcher.ts';

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'a flush that leaves out the sync of the target',
    patches: [
      {
        file: CHECKPOINTER,
        find: '    await this.#sync(() => this.#syncTarget!());\n    this.#rewrittenFlushed = rewritten;',
        replace: '    this.#rewrittenFlushed = rewritten;',
      },
    ],
  },
  {
    name: 'no sync in a flush after writes to synced blocks only',
    patches: [
      {
        file: CHECKPOINTER,
        find: 'if (this.#flushed === appended && this.#rewrittenFlushed === rewritten) return;',
        replace: 'if (this.#flushed === appended) return;',
      },
    ],
  },
  {
    name: 'a flush that leaves out the sync of the log',
    patches: [
      {
        file: CHECKPOINTER,
        find: '    await this.#sync(() => log.sync());\n    this.#flushed = appended;',
        replace: '    this.#flushed = appended;',
      },
    ],
  },
  {
    name: 'a checkpoint that does not sync the target first',
    patches: [
      {
        file: CHECKPOINTER,
        find: 'Promise.all([this.#syncTarget?.(), log?.sync(), file.sync()])',
        replace: 'Promise.all([log?.sync(), file.sync()])',
      },
    ],
  },
  {
    name: 'a checkpoint whose header is written before its body is durable',
    where: /(power|mixed), /,
    patches: [
      {
        file: CHECKPOINTER,
        find: 'Promise.all([this.#syncTarget?.(), log?.sync(), file.sync()])',
        replace: 'Promise.all([this.#syncTarget?.(), log?.sync()])',
      },
    ],
  },
  {
    name: 'a checkpoint that counts before its header is durable',
    patches: [
      {
        file: CHECKPOINTER,
        find: '    await commitCheckpoint(file, image);\n    await this.#sync(() => file.sync());',
        replace: '    await commitCheckpoint(file, image);',
      },
    ],
  },
  {
    name: 'a slot that is overwritten under its valid header',
    patches: [{ file: CHECKPOINT, find: '  await file.write(ZERO_HEADER, 0);\n', replace: '' }],
  },
  {
    name: 'intent before data',
    patches: [
      {
        file: WRITER,
        find: `      written =
        ready === undefined ? this.#target.write(from, offset) : ready.then(() => this.#target.write(from, offset));`,
        replace: `      void ready;
      const recorded = promised((settled) => this.#target.record(transaction, settled));
      written = recorded.then(() => this.#target.write(from, offset));`,
      },
      {
        file: WRITER,
        find: '    this.#target.record(transaction, ended);',
        replace: '    ended();',
      },
    ],
  },
  {
    name: 'an acknowledgement before the intent is in the log',
    patches: [
      {
        file: GROUP_COMMIT,
        find: '    batch.isCommitted = true;\n',
        replace: '    batch.isCommitted = true;\n    for (const settled of batch.settled.splice(0)) settled();\n',
      },
    ],
  },
  {
    name: 'an acknowledgement when the append starts',
    patches: [
      {
        file: GROUP_COMMIT,
        find: '      else void this.#finish(batch, appended);',
        replace:
          '      else {\n        void this.#finish(batch, appended);\n' +
          '        settle(batch);\n        batch.settled.length = 0;\n      }',
      },
    ],
  },
  {
    name: 'a state ahead of the log: records are applied before their append',
    patches: [
      {
        file: GROUP_COMMIT,
        find: '      return log.append()?.then(appended) ?? appended();',
        replace: '      appended();\n      return log.append()?.then(() => true as const) ?? true;',
      },
    ],
  },
  {
    name: 'a write with FUA without a flush',
    where: /(power|mixed), /,
    patches: [{ file: WRITER, find: 'fua ? this.#flushed(settled) : settled', replace: 'settled' }],
  },
  {
    name: 'a fetched block that is recorded but not stored',
    patches: [{ file: FETCHER, find: '() => this.#filler.store(entry.bytes, offset)', replace: '() => void offset' }],
  },
  {
    name: 'a fill that does not hold its lock',
    samples: 1,
    patches: [
      {
        file: FILLER,
        find: `        () => inSequence(this.#storeHoles(from, offset)),
        () => lock.release(),`,
        replace: `        () => {
          lock.release();
          return inSequence(this.#storeHoles(from, offset));
        },
        () => undefined,`,
      },
    ],
  },
  {
    name: 'a write whose lock admits a fill before the record',
    samples: 1,
    patches: [{ file: WRITER, find: '    lock.recording();', replace: '    lock.release();' }],
  },
  {
    name: 'a fill that overwrites users’ bytes',
    samples: 1,
    patches: [
      {
        file: FILLER,
        find: `return this.#target.state.pieces(offset, length).filter(({ from }) => from === 'source');`,
        replace: 'return [{ start: offset, end: offset + length }];',
      },
    ],
  },
  {
    name: 'a read that returns source bytes for users’ bytes',
    samples: 1,
    patches: [
      {
        file: STATE,
        find: "append(pieces, partStart, partEnd, 'target');",
        replace: "append(pieces, partStart, partEnd, 'source');",
      },
    ],
  },
  {
    name: 'a fill that is not logged, so that later writes to its blocks are not logged',
    patches: [
      {
        file: TARGET,
        find: '    transaction.add(offset, length);\n    this.record(transaction, settled);',
        replace: '    void transaction;\n    this.state.apply(offset, length);\n    settled();',
      },
    ],
  },
  {
    name: 'a barrier that covers writes during the sync of the target',
    where: /(power|mixed), /,
    patches: [
      {
        file: CHECKPOINTER,
        find: '      log.addBarrier(through);',
        replace: '      log.addBarrier(log.sequence + 0 * through);',
      },
    ],
  },
  {
    name: 'a log made over an old log, with frames that have no epoch',
    patches: [
      {
        file: LOG,
        find: '    await file.truncate(0);\n    await file.truncate(names.capacity);',
        replace: '    await file.truncate(names.capacity);',
      },
      {
        file: LOG,
        find: 'new FrameEncoder(core, { epoch: names.epoch })',
        replace: 'new FrameEncoder(core, { epoch: 0 })',
      },
      {
        file: RECOVERY,
        find: 'new LogScan(core, shape, { epoch: header.epoch,',
        replace: 'new LogScan(core, shape, { epoch: 0,',
      },
    ],
  },
  {
    name: 'recovery from the older of two checkpoints',
    patches: [
      {
        file: RECOVERY,
        find: 'other.header.epoch - one.header.epoch',
        replace: 'one.header.epoch - other.header.epoch',
      },
    ],
  },
  {
    name: 'the same boot assumed after a power cut',
    patches: [
      {
        file: RECOVERY,
        find: '    bootName.length > 0 &&\n    header.bootName.length',
        replace: '    true ||\n    header.bootName.length',
      },
    ],
  },
  {
    name: 'a device that continues after a failed sync',
    where: /^faults.*sectors$/,
    samples: 5,
    patches: [
      {
        file: CHECKPOINTER,
        find: '      const poison = this.poison(error);\n      await this.#disownBoot();\n      throw poison;',
        replace: '      throw error;',
      },
    ],
  },
  {
    name: 'a failed sync whose records count at the next open',
    where: /^faults.*(process|mixed), boots with names, sectors$/,
    samples: 5,
    patches: [{ file: CHECKPOINTER, find: '      await this.#disownBoot();\n', replace: '' }],
  },
  {
    name: 'a place in the log that is reused after a failed append',
    where: /^faults, six writers.*bytes$/,
    samples: 5,
    patches: [
      {
        file: LOG,
        find: '    if (this.#failed === undefined) return;',
        replace:
          '    if (this.#failed !== undefined) this.#failed = undefined;\n    if (this.#failed === undefined) return;',
      },
    ],
  },
  {
    name: 'a checkpoint in the page cache on which the next open builds',
    where: /^each pair/,
    patches: [
      { file: CHECKPOINTER, find: '    await this.#sync(() => checkpoint.sync());', replace: '      void checkpoint;' },
    ],
  },
];
