/** Bugs that the campaign must find, each as a change of named lines of the sources. */

import type { Patch } from './patched-build.ts';

export interface PlantedBug {
  readonly name: string;
  /** The scenarios to look in, where all of them would take long. */
  readonly where?: RegExp;
  /** In how many places to crash each story, where other stories tell more than other places of the same do. */
  readonly samples?: number;
  readonly patches: readonly Patch[];
}

const JOURNAL = 'src/log/journal.ts';
const LOG = 'src/log/write-intent-log.ts';
const RECOVERY = 'src/log/recovery.ts';
const STORE = 'src/device/target-store.ts';
const FETCHER = 'src/device/fetcher.ts';
const CHECKPOINT = 'src/log/checkpoint.ts';

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'a flush that leaves out the sync of the target',
    patches: [
      {
        file: JOURNAL,
        find: '    await this.#sync(() => this.#target!.sync());\n    this.#rewrittenFlushed = rewritten;',
        replace: '    this.#rewrittenFlushed = rewritten;',
      },
    ],
  },
  {
    name: 'no sync in a flush after writes to synced blocks only',
    patches: [
      {
        file: JOURNAL,
        find: 'if (this.#flushed === appended && this.#rewrittenFlushed === rewritten) return;',
        replace: 'if (this.#flushed === appended) return;',
      },
    ],
  },
  {
    name: 'a flush that leaves out the sync of the log',
    patches: [
      {
        file: JOURNAL,
        find: '    await this.#sync(() => log.sync());\n    this.#flushed = appended;',
        replace: '    this.#flushed = appended;',
      },
    ],
  },
  {
    name: 'a checkpoint that does not sync the target first',
    patches: [
      {
        file: JOURNAL,
        find: 'Promise.all([this.#target?.sync(), log?.sync(), file.sync()])',
        replace: 'Promise.all([log?.sync(), file.sync()])',
      },
    ],
  },
  {
    name: 'a checkpoint whose header is written before its body is durable',
    where: /(power|mixed), /,
    patches: [
      {
        file: JOURNAL,
        find: 'Promise.all([this.#target?.sync(), log?.sync(), file.sync()])',
        replace: 'Promise.all([this.#target?.sync(), log?.sync()])',
      },
    ],
  },
  {
    name: 'a checkpoint that is believed in before its header is durable',
    patches: [
      {
        file: JOURNAL,
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
        file: STORE,
        find: '      await this.#target.write(from, offset);\n      await this.journal.written(offset, from.length);',
        replace:
          '      await this.journal.written(offset, from.length);\n      await this.#target.write(from, offset);',
      },
    ],
  },
  {
    name: 'an acknowledgement before the intent is in the log',
    patches: [
      {
        file: JOURNAL,
        find: '    this.#commitNow(batch);\n    if (batch.isSettled) return;',
        replace: '    for (const settled of batch.settled.splice(0)) settled();',
      },
    ],
  },
  {
    name: 'an acknowledgement inside the call before the intent is in the log',
    where: /^inside the call, (process|power|mixed)/,
    patches: [
      {
        file: JOURNAL,
        find: '      if (!this.#appendNow(batch)) return;',
        replace: '      this.#appends.run(() => this.#append(batch)).catch(() => undefined);',
      },
    ],
  },
  {
    name: 'a block that was read inside the call, and is recorded but not stored',
    where: /^inside the call, (process|power|mixed)/,
    patches: [{ file: FETCHER, find: '      if (!this.#store.fillNow(bytes, base)) return false;\n', replace: '' }],
  },
  {
    name: 'a read inside the call that stores the source over what users wrote',
    where: /^inside the call, (process|power|mixed)/,
    samples: 1,
    patches: [{ file: FETCHER, find: ' || dirty.hasAny(start, end)', replace: '' }],
  },
  {
    name: 'a hydration that is not logged, and so neither what is written to its blocks',
    patches: [
      {
        file: STORE,
        find: '    const { offset, length } = this.#bytesOf(blocks);\n    return this.#record(offset, length);',
        replace: `    this.journal.map.add(blocks.start, blocks.end);
    this.journal.dirty.remove(blocks.start, blocks.end);
    return Promise.resolve();`,
      },
    ],
  },
  {
    name: 'a hydration that writes over what users wrote',
    patches: [
      {
        file: STORE,
        find: 'if (partAt > from) holes.push({ start: from, end: partAt });\n            from = Math.max(from, block * blockSize + partEnd);',
        replace: 'void partAt, partEnd;',
      },
    ],
  },
  {
    name: 'a barrier that covers what was written while the target was being synced',
    where: /(power|mixed), /,
    patches: [
      {
        file: JOURNAL,
        find: '      log.addBarrier(through);',
        replace: '      log.addBarrier(log.sequence + 0 * through);',
      },
    ],
  },
  {
    name: 'a stale epoch that is believed: a log made over an old one, whose frames say nothing of their epoch',
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
    name: 'the checkpoint of the older epoch, where there are two',
    patches: [
      {
        file: RECOVERY,
        find: 'state.header.epoch > best.header.epoch ? state : best',
        replace: 'state.header.epoch < best.header.epoch ? state : best',
      },
    ],
  },
  {
    name: 'a boot that is believed to go on after a power cut',
    patches: [
      {
        file: RECOVERY,
        find: '    bootName.length > 0 &&\n    header.bootName.length',
        replace: '    true ||\n    header.bootName.length',
      },
    ],
  },
  {
    name: 'a failed sync after which the device goes on',
    where: /^faults.*sectors$/,
    samples: 5,
    patches: [
      {
        file: JOURNAL,
        find: '      const poison = this.#poisoned(error);\n      await this.#disownBoot();\n      throw poison;',
        replace: '      throw error;',
      },
    ],
  },
  {
    name: 'a failed sync whose records are believed at the next start',
    where: /^faults.*(process|mixed), boots with names, sectors$/,
    samples: 5,
    patches: [{ file: JOURNAL, find: '      await this.#disownBoot();\n', replace: '' }],
  },
  {
    name: 'a place in the log that is written again though an append had failed there',
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
    name: 'a checkpoint in the page cache that is built on at the next start',
    where: /^each pair/,
    patches: [
      { file: JOURNAL, find: '      await journal.#sync(() => checkpoint.sync());', replace: '      void checkpoint;' },
    ],
  },
];
