/** Bugs that the campaign or a unit test must find, each as a patch of the sources. */

import { QCOW2_BUGS } from '../sources/qcow2/planted-bugs.ts';
import type { Patch } from './patched-build.ts';

export interface PlantedBug {
  readonly name: string;
  /** Selects scenarios, if all of them would take too long. */
  readonly where?: RegExp;
  /** Crash places per story, if more stories find the bug sooner than more places in one story. */
  readonly samples?: number;
  /** The unit test that must find the bug, where the campaign would take too long. */
  readonly test?: UnitTest;
  readonly patches: readonly Patch[];
}

/** A unit test: its file, and its name with those of its groups. */
interface UnitTest {
  readonly file: string;
  readonly name: string;
}

const SLICES_TEST = 'test/log/checkpoint-slices.test.ts';
const ADAPTER_TEST = 'test/fs/fs-adapter.test.ts';
const FOREIGN_TEST = 'test/log/foreign-files.test.ts';
const FAILED_STEPS_TEST = 'test/log/failed-steps.test.ts';
const LONG_TRANSACTIONS_TEST = 'test/log/long-transactions.test.ts';
/** Finds what no test of single bytes finds: sectors that are mixtures of two writes, and reads in another order. */
const LINEARIZABILITY: UnitTest = {
  file: 'test/device/linearizability.test.ts',
  name: 'requests of concurrent users are linearizable over storage that answers in random order',
};

const CHECKPOINTER = 'src/log/checkpointer.ts';
const GROUP_COMMIT = 'src/log/group-commit.ts';
const ANNOUNCEMENTS = 'src/log/announcements.ts';
const FIRMNESS = 'src/log/firmness.ts';
const POISON = 'src/log/poison.ts';
const PROOF = 'src/log/proof.ts';
const LOG = 'src/log/write-intent-log.ts';
const RECOVERY = 'src/log/recovery.ts';
const SLOTS = 'src/log/slots.ts';
const CHECKPOINT_WRITER = 'src/log/checkpoint-writer.ts';
const STATE = 'src/core/copy-state.ts';
const TARGET = 'src/device/target.ts';
const WRITER = 'src/device/writer.ts';
const FILLER = 'src/device/filler.ts';
const READER = 'src/device/reader.ts';
const FETCHER = 'src/device/fetcher.ts';
const HYDRATOR = 'src/device/hydrator.ts';
const ORIGIN = 'src/device/origin.ts';
const ADAPTER = 'src/fs/fs-adapter.ts';
const SNAPSHOT = 'src/device/snapshot.ts';
const VERIFIED = 'src/sources/verified.ts';
const VERIFIED_TEST = 'test/sources/verified.test.ts';
const LONGER_FETCHES = 'test/device/longer-fetches.test.ts';
const READ_THROUGH = 'src/device/read-through.ts';
const READ_THROUGH_TEST = 'test/device/read-through.test.ts';
const LYING_PROXY = 'a device whose proxy turns over a bit';
const SNAPSHOT_METADATA = 'src/log/snapshot-metadata.ts';

const DURABLE_STEP = '      await this.#options.owner.withRoom(() => this.#poison.ifCoreFails(task));\n';
const FENCE = '      await this.fence();\n';

const JOINED_CHECKPOINT: readonly Patch[] = [
  {
    file: CHECKPOINTER,
    find:
      '        this.#queuedCheckpoint = undefined;\n' +
      "        return this.#durably('checkpoint', () => this.#checkpoint());",
    replace: `        return this.#durably('checkpoint', () => this.#checkpoint()).finally(() => {
          this.#queuedCheckpoint = undefined;
        });`,
  },
];
const REMOVAL = 'src/log/removal.ts';
const INTENT_LOG = 'src/log/intent-log.ts';
const NODE_LOCK = 'src/fs/node-lock.ts';
const LOCK_TAKING = 'src/fs/lock-taking.ts';
const TAKE_OVER_TEST = 'test/device/take-over.test.ts';
const TWO_MACHINES_TEST = 'test/fs/two-machines.test.ts';
/** Beginnings of names of tests. */
const REPLACED = 'an owner that was replaced acknowledges no';
const MAY_LIVE = 'a take-over of an owner that may be alive';
const REPLACED_BEFORE = 'an owner that is replaced right before it';
const OWNERSHIP = 'src/log/ownership.ts';
const MOVED_NAMES_TEST = 'test/fs/moved-names.test.ts';
const ELSEWHERE = 'an owner on another machine';
/** The scenarios with owners that replace each other. */
const OWNERS = /^owners/;
const NODE_LOCK_TEST = 'test/fs/node-lock.test.ts';
const MOVED_NAMES = 'src/fs/moved-names.ts';
const HELD_ASIDE = 'a lock that an owner holds aside to remove it';
const REPAIR = 'src/log/repair.ts';
const REPAIR_TEST = 'test/log/repair.test.ts';
const REPAIR_CUT = 'a repair that is interrupted is refused until it is complete, and continues with the same plan';
const ZEROING_TEST = 'test/device/zeroing.test.ts';
const ZEROING = 'zeroing the target of a closed device';
const SPARE_TEST = 'test/fs/node-spare.test.ts';
const SPARE_PROMISE = 'a step without room is repeated once in place of the spare file, which is made again';

/** The exploration of a removal that crashes in one way. */
function removalTest(copy: string, kind: 'process' | 'power'): UnitTest {
  const promise = 'leaves the copy, an empty copy or nothing after a crash at any operation';
  return {
    file: 'test/log/removal.test.ts',
    name: `removing ${copy} ${promise} (${kind}, exclusive: false, disk full: false)`,
  };
}

/** A promise of snapshots while users write, without a background copy. */
function snapshotTest(cloned: boolean, promise: string): UnitTest {
  const group = `a snapshot while users write (cloned: ${cloned}, background copy: ${cloned})`;
  return { file: 'test/device/snapshot.test.ts', name: `${group} ${promise}` };
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'a flush that leaves out the sync of the target',
    patches: [
      {
        file: CHECKPOINTER,
        find: 'Promise.all([this.#syncTarget!(), before?.sync(), log.needs',
        replace: 'Promise.all([before?.sync(), log.needs',
      },
    ],
  },
  {
    name: 'a checkpoint between the appends of a transaction that leaves out the first of them',
    test: {
      file: LONG_TRANSACTIONS_TEST,
      name: 'keeps each record when a checkpoint comes between two appends of a transaction',
    },
    patches: [
      {
        file: GROUP_COMMIT,
        find: 'this.#add(part, extentsOf(part), ended);',
        replace: 'this.#add(part, at + LIMIT < records.length ? [] : extentsOf(records), ended);',
      },
    ],
  },
  {
    name: 'a failed append of a long transaction that is forgotten',
    test: { file: LONG_TRANSACTIONS_TEST, name: 'fails when any append of a transaction fails' },
    patches: [{ file: GROUP_COMMIT, find: 'failure ??= error;', replace: 'failure = error;' }],
  },
  {
    name: 'no sync in a flush after writes to synced blocks only',
    patches: [
      {
        file: CHECKPOINTER,
        find: 'if (this.#flushed >= appended && this.#rewrittenFlushed >= rewritten) return;',
        replace: 'if (this.#flushed >= appended) return;',
      },
    ],
  },
  {
    name: 'a flush that leaves out the sync of the log',
    patches: [
      {
        file: CHECKPOINTER,
        find: '      await this.#poison.sync(() => log.sync());\n      this.firmness.firm(generation);',
        replace: '      this.firmness.firm(generation);',
      },
    ],
  },
  {
    name: 'a flush during a checkpoint that leaves out the sync of the older log',
    patches: [
      {
        file: CHECKPOINTER,
        find: 'Promise.all([this.#syncTarget!(), before?.sync(), log.needs',
        replace: 'Promise.all([this.#syncTarget!(), log.needs',
      },
      { file: CHECKPOINTER, find: '      const before = this.#before;\n', replace: '' },
    ],
  },
  {
    name: 'a flush whose barrier goes into a log that begins during its sync',
    patches: [
      {
        file: CHECKPOINTER,
        find:
          '        if (this.#log !== log) return false;\n' +
          '        log.addBarrier(through);\n        await log.append();',
        replace:
          '        this.#current.addBarrier(this.#log === log ? through : 0);\n        await this.#current.append();',
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
    where: /(power|loss|mixed), /,
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
        find: '    await this.#writer.commit(file, image);\n    await this.#poison.sync(() => file.sync());',
        replace: '    await this.#writer.commit(file, image);',
      },
    ],
  },
  {
    name: 'a foreign file taken for ours',
    test: {
      file: FOREIGN_TEST,
      name: 'at disk.bak an image that begins with zeros is refused by a device of a new copy, and stays as it is',
    },
    patches: [
      {
        file: RECOVERY,
        find: "      if (decoded.state === 'blank' && bytes > HEADER_BYTES) throw foreignFile();\n",
        replace: '',
      },
    ],
  },
  {
    name: 'a file of ours taken for foreign, since its claim was not durable',
    test: { file: FOREIGN_TEST, name: 'after a power crash at any operation a new log opens again' },
    patches: [{ file: SLOTS, find: '    if (isShort) await sync(file);\n', replace: '' }],
  },
  {
    name: 'a slot that is overwritten under its valid header',
    patches: [{ file: CHECKPOINT_WRITER, find: '    await voidHeader(file);\n', replace: '' }],
  },
  {
    name: 'a changed slice that is not written',
    test: { file: SLICES_TEST, name: 'a checkpoint of a device that is synced as a whole is small' },
    patches: [
      {
        file: STATE,
        find: '    this.#noteChange(first, Math.ceil(end / blockSize));',
        replace: '    this.#noteChange(first, Math.min(first + 1, Math.ceil(end / blockSize)));',
      },
    ],
  },
  {
    name: 'a target that is synced before the slices are written',
    test: {
      file: 'test/log/journal.test.ts',
      name: 'a checkpoint syncs target, log and body before its header, and finally marks the log',
    },
    patches: [
      {
        file: CHECKPOINTER,
        find: "    const file = await this.#make('checkpoint', slot);\n    const image",
        replace:
          "    const file = await this.#make('checkpoint', slot);\n" +
          '    await this.#poison.sync(async () => this.#syncTarget?.());\n    const image',
      },
      {
        file: CHECKPOINTER,
        find: 'Promise.all([this.#syncTarget?.(), log?.sync(), file.sync()])',
        replace: 'Promise.all([log?.sync(), file.sync()])',
      },
    ],
  },
  {
    name: 'a slice that counts as written before it is',
    test: {
      file: SLICES_TEST,
      name:
        'a checkpoint that fails for lack of room at any call does not keep a flush from making all durable ' +
        'that was written',
    },
    patches: [
      {
        file: CHECKPOINT_WRITER,
        find: '{ ...found, offset, checksum }, changes: undefined }',
        replace: '{ ...found, offset, checksum }, changes: moment.changes[slice] }',
      },
    ],
  },
  {
    name: 'a failure to serialize that does not poison the log',
    test: {
      file: SLICES_TEST,
      name:
        "a checkpoint that fails for lack of 'memory for a bitmap' poisons the log, " +
        'and loses nothing that was acknowledged',
    },
    patches: [{ file: CHECKPOINTER, find: '(step) => this.#poison.ifFailing(step)', replace: '(step) => step()' }],
  },
  {
    name: 'a core that fails and does not poison the log',
    test: { file: SLICES_TEST, name: 'a checkpoint that fails because the core cannot grow poisons the log' },
    patches: [
      {
        file: POISON,
        find: 'throw this.#core.failure === undefined ? error : this.poison(error);',
        replace: 'throw error;',
      },
    ],
  },
  {
    name: 'a sync that makes frames firm that were appended meanwhile',
    test: {
      file: 'test/log/write-intent-log.test.ts',
      name:
        'a log of which some bytes are lost is not damaged if the frame was appended ' +
        'while the log was being synced',
    },
    patches: [
      { file: LOG, find: 'Math.max(this.#firm, sequence)', replace: 'Math.max(this.#firm, this.#sequence, sequence)' },
    ],
  },
  {
    name: 'a flush beside a failed sync that resolves',
    test: {
      file: FAILED_STEPS_TEST,
      name: 'a flush rejects if a sync that overlapped with it has failed, whichever ends first',
    },
    patches: [
      {
        file: POISON,
        find: '    if (this.#syncs.size > 0) await Promise.allSettled(this.#syncs);\n    this.refuse();\n',
        replace: '',
      },
    ],
  },
  {
    name: 'an append in flight that outlives a failed sync',
    test: {
      file: FAILED_STEPS_TEST,
      name:
        'an append in flight when a sync fails is zeroed and rejects: ' +
        'the sync may have dropped the frames before it',
    },
    patches: [
      {
        file: LOG,
        find: 'poisoning === undefined ? this.#written(sealed) : this.#retract(poisoning)',
        replace: 'this.#written(sealed)',
      },
    ],
  },
  {
    name: 'a record of a write that could not be announced',
    test: { file: FAILED_STEPS_TEST, name: 'an intent whose announcement fails adds nothing to its transaction' },
    patches: [
      {
        file: ANNOUNCEMENTS,
        find:
          '    if (announced !== undefined) ' +
          'return announced.then(() => addWritten(recorded, offset, length, sums));\n' +
          '    addWritten(recorded, offset, length, sums);\n    return undefined;',
        replace: '    addWritten(recorded, offset, length, sums);\n    return announced;',
      },
    ],
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
        find: '    this.#finishLater(batch, appended);\n',
        replace: '    this.#finishLater(batch, appended);\n    settle(batch);\n    batch.settled.length = 0;\n',
      },
    ],
  },
  {
    name: 'a state ahead of the log: records are applied before their append',
    test: {
      file: 'test/log/intent-log.test.ts',
      name: 'a transaction records nothing if its append fails, and the next transaction works',
    },
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
    where: /(power|loss|mixed), /,
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
    name: 'a read of synced blocks that does not hold its lock',
    test: LINEARIZABILITY,
    patches: [
      {
        file: READER,
        find: '        () => this.#target.read(into, offset),\n        () => lock.release(),\n',
        replace: '        () => (lock.release(), this.#target.read(into, offset)),\n        () => undefined,\n',
      },
    ],
  },
  {
    name: 'a read of unsynced blocks that does not hold its lock',
    test: LINEARIZABILITY,
    patches: [
      {
        file: READER,
        find: '        () => this.#assemble(into, offset, fetches),\n        () => lock.release(),\n',
        replace: '        () => (lock.release(), this.#assemble(into, offset, fetches)),\n        () => undefined,\n',
      },
    ],
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
        file: 'src/core/pieces.ts',
        find: "addPiece(pieces, partStart, partEnd, 'target');",
        replace: "addPiece(pieces, partStart, partEnd, 'source');",
      },
    ],
  },
  {
    name: 'a fill that is not logged, so that later writes to its blocks are not logged',
    patches: [
      {
        file: TARGET,
        find:
          '    transaction.filled(offset, length);\n    this.record(transaction, (error) => {\n' +
          '      lock.release();\n      settled(error);\n    });',
        replace: '    void transaction;\n    this.state.apply(offset, length);\n    lock.release();\n    settled();',
      },
    ],
  },
  {
    name: 'a barrier that covers writes during the sync of the target',
    where: /(power|loss|mixed), /,
    patches: [
      {
        file: CHECKPOINTER,
        find: '        log.addBarrier(through);',
        replace: '        log.addBarrier(log.sequence + 0 * through);',
      },
    ],
  },
  {
    name: 'a log made over an old log, with frames that have no epoch',
    patches: [
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
    name: 'records behind the last barrier that count without proof',
    where: /(power|loss|mixed), /,
    patches: [
      {
        file: RECOVERY,
        find: '      replay.format2(piece, through);',
        replace: '      replay.format2(piece, scan.frames);',
      },
    ],
  },
  {
    name: 'records of fills that count although they are not firm',
    where: /(power|loss|mixed), /,
    patches: [
      {
        file: PROOF,
        find: '        case MAY_READ:',
        replace:
          '        case 5:\n          this.#fills.push([offset, one]);\n          break;\n        case MAY_READ:',
      },
      {
        file: PROOF,
        find: '  readonly #size: number;\n',
        replace: '  readonly #size: number;\n  readonly #fills: [number, number][] = [];\n',
      },
      {
        file: PROOF,
        find: '    const proved: { offset: number; length: number }[] = [];\n',
        replace:
          '    const proved: { offset: number; length: number }[] = [];\n' +
          '    for (const [offset, length] of this.#fills) state.apply(offset, length);\n',
      },
    ],
  },
  {
    name: 'two logs that are judged one after the other',
    patches: [
      {
        file: PROOF,
        find: '    const view = new DataView(sectors.buffer, sectors.byteOffset, sectors.byteLength);\n',
        replace:
          '    const view = new DataView(sectors.buffer, sectors.byteOffset, sectors.byteLength);\n' +
          '    this.#earlier.push(new Map(this.#claims));\n    this.#claims.clear();\n',
      },
      {
        file: PROOF,
        find: '  readonly #size: number;\n',
        replace: '  readonly #size: number;\n  readonly #earlier: Map<number, Claim[]>[] = [];\n',
      },
      {
        file: PROOF,
        find: '    const all = [...this.#claims.keys()]',
        replace:
          '    const logs = [...this.#earlier.splice(0), new Map(this.#claims)].filter(({ size }) => size > 0);\n' +
          '    if (logs.length > 1) {\n      for (const log of logs) {\n        this.#claims.clear();\n' +
          '        for (const [cell, claims] of log) this.#claims.set(cell, claims);\n' +
          '        proved.push(...(await this.judge(read, state, clock)));\n      }\n      return proved;\n    }\n' +
          '    for (const [cell, claims] of logs[0] ?? []) this.#claims.set(cell, claims);\n' +
          '    const all = [...this.#claims.keys()]',
      },
    ],
  },
  {
    name: 'the sum of a part of a cell without the rest of the cell',
    patches: [
      {
        file: ANNOUNCEMENTS,
        find: '    const read = this.#read(content, cell);',
        replace: '    content.fill(0);\n    const read = undefined as Done;',
      },
    ],
  },
  {
    name: 'an overwrite whose sum is not announced',
    patches: [
      {
        file: ANNOUNCEMENTS,
        find: '    return mustWait ? this.#log.announce({ records, extents: NO_EXTENTS }) : this.#log.join(records);',
        replace: '    return mustWait ? undefined : this.#log.join(records);',
      },
    ],
  },
  {
    name: 'an overwrite of what waits for its append whose sum is not announced',
    test: {
      file: 'test/device/inline-device.test.ts',
      name: 'no acknowledged byte is lost by a process crash at any operation, for any writes of a turn',
    },
    patches: [
      {
        file: ANNOUNCEMENTS,
        find: '    return mustWait ? this.#log.announce({ records, extents: NO_EXTENTS }) : this.#log.join(records);',
        replace: '    return mustWait ? this.#log.announce({ records, extents: NO_EXTENTS }) : undefined;',
      },
    ],
  },
  {
    name: 'a fill beside users’ bytes whose sum is not announced',
    patches: [
      {
        file: TARGET,
        find: '    const ready = this.log.announceChange(offset, from);',
        replace: '    const ready = undefined as Done;',
      },
    ],
  },
  {
    name: 'a write over an unfirm fill without a record',
    patches: [
      {
        file: ANNOUNCEMENTS,
        find: 'this.#state.isSynced(offset, length) && !this.#firmness.isFilled(offset, length);',
        replace: 'this.#state.isSynced(offset, length);',
      },
    ],
  },
  {
    name: 'a barrier that makes the cells of later frames firm',
    patches: [
      {
        file: FIRMNESS,
        find: '    for (const records of this.#pending) this.#note(records);',
        replace: '    this.#present = new Generation();',
      },
    ],
  },
  {
    name: 'a barrier that makes the cells of an append firm that ended during the flush',
    where: /^synchronous calls, (process|mixed), /,
    patches: [
      {
        file: FIRMNESS,
        find: '    this.#present.claims += this.#note(records);\n',
        replace: '',
      },
    ],
  },
  {
    name: 'cells that are named only when their append has ended',
    patches: [
      {
        file: FIRMNESS,
        find: '    this.#pending.add(records);\n    this.#note(records);',
        replace: '    this.#pending.add(records);',
      },
    ],
  },
  {
    name: 'a long zeroing that is acknowledged before its flush',
    where: /^many blocks, (process|mixed), /,
    patches: [
      {
        file: WRITER,
        find: '    if (length > MAX_SUMMED_ZEROES) await this.#target.log.flush();\n',
        replace: '',
      },
    ],
  },
  {
    name: 'a new session beside files that were emptied and not synced',
    test: {
      file: 'test/log/removal.test.ts',
      name: 'a removal that was killed, and then a power cut during a new copy, leave a copy (1)',
    },
    patches: [
      {
        file: CHECKPOINTER,
        find: '    if (this.#epoch < 0) await this.#options.slots.syncFound((file) => this.#sync(file));\n',
        replace: '',
      },
    ],
  },
  {
    name: 'a repair that takes a checkpoint for its own while it saves the old files',
    test: { file: REPAIR_TEST, name: `${REPAIR_CUT}: the header of the other log` },
    patches: [
      {
        file: REPAIR,
        find: 'saved.length === 0 || (await isSaving(present, saved))',
        replace: 'saved.length === 0',
      },
    ],
  },
  {
    name: 'a repair that writes slices behind a header that may come back',
    test: { file: REPAIR_TEST, name: `${REPAIR_CUT}: the body of a checkpoint` },
    patches: [{ file: REPAIR, find: '          await voidHeader(over);\n          await over.sync();\n', replace: '' }],
  },
  {
    name: 'a read of a replaced owner that blames the target',
    test: { file: TAKE_OVER_TEST, name: `${REPLACED} read of a target that its successor has emptied` },
    patches: [
      {
        file: 'src/device/device.ts',
        find: '        await this.#log.fence().catch((cause: unknown) => {',
        replace: '        await Promise.resolve().catch((cause: unknown) => {',
      },
    ],
  },
  {
    name: 'a close that leaves on the target what was never recorded',
    test: { file: ZEROING_TEST, name: `${ZEROING} knows of failed writes` },
    patches: [
      {
        file: TARGET,
        find: '          await this.fill(ZEROS.subarray(0, Math.min(WRITTEN_UNIT_BYTES, size - offset)), offset);\n',
        replace: '          undefined;\n',
      },
    ],
  },
  {
    name: 'a close that says that the rest is zero although that failed',
    test: { file: ZEROING_TEST, name: `${ZEROING} reads all of it if zeroing what was not recorded failed` },
    patches: [{ file: TARGET, find: '      return false;\n    }\n  }', replace: '      return true;\n    }\n  }' }],
  },
  {
    name: 'zeroing of an older target that forgets what this life has written',
    test: { file: ZEROING_TEST, name: `${ZEROING} zeroes what the same life has stored and could not record` },
    patches: [
      {
        file: TARGET,
        find: 'let unit = this.#written.next(first, limit);',
        replace: 'let unit = this.#isOlder ? limit : this.#written.next(first, limit);',
      },
    ],
  },
  {
    name: 'zeroing of an older target that forgets its dirty parts',
    test: { file: ZEROING_TEST, name: `${ZEROING} by discard reads only near what was written before` },
    patches: [
      {
        file: STATE,
        find: 'return this.#dirty.nextDirty(from, this.#blocks.nextSynced(from, limit));',
        replace: 'return this.#blocks.nextSynced(from, limit);',
      },
    ],
  },
  {
    name: 'a device that continues after a failed sync',
    test: {
      file: 'test/log/intent-log.test.ts',
      name: 'a sync of the storage that fails poisons the log, and the next open recovers what the storage holds',
    },
    patches: [
      {
        file: POISON,
        find: '      await syncing;\n    } catch (error) {\n      throw this.poison(error);',
        replace: '      await syncing;\n    } catch (error) {\n      throw error;',
      },
    ],
  },
  {
    name: 'a place in the log that is reused after a failed append',
    test: {
      file: 'test/log/write-intent-log.test.ts',
      name: 'an append that fails half way leaves no frame that counts once the next append ends before it',
    },
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
      {
        file: CHECKPOINTER,
        find: '    await this.#sync(checkpoint!);',
        replace: '      void checkpoint;',
      },
    ],
  },
  {
    name: 'the first write of a copied block that is not named before it',
    patches: [
      {
        file: ANNOUNCEMENTS,
        find: '      return this.#state.isUnmodified(offset, length) ? this.modify(offset, length) : undefined;',
        replace: '      return undefined;',
      },
    ],
  },
  {
    name: 'a copy that is recorded while a write of its block is in flight',
    where: /^faults, six writers, process, /,
    patches: [
      {
        file: TARGET,
        find: "    const locked = this.lock(offset, length, 'fill');",
        replace: '    const locked = { release: () => undefined, recording: () => undefined };',
      },
    ],
  },
  {
    name: 'modified blocks that count only if their frame is firm',
    patches: [
      {
        file: RECOVERY,
        find: 'changed.format2(piece, scan.frames);',
        replace: 'changed.format2(piece, through);',
      },
    ],
  },
  {
    name: 'a checkpoint without the modified blocks',
    patches: [
      {
        file: STATE,
        find: 'const modifiedBytes = this.#modified.serialize(slice, into);',
        replace: 'const modifiedBytes = 0;',
      },
      {
        file: STATE,
        find: 'const modifiedBlocks = this.#modified.countOf(slice);',
        replace: 'const modifiedBlocks = 0;',
      },
    ],
  },
  {
    name: 'a slice that is not written again if only its modified blocks changed',
    patches: [
      {
        file: STATE,
        find: '    this.#noteChange(start, end);\n    this.#modified.add(start, end);',
        replace: '    this.#modified.add(start, end);',
      },
    ],
  },
  {
    name: 'an announcement beside records that are acknowledged before it is in the log',
    test: {
      file: 'test/log/intent-log.test.ts',
      name: 'a transaction that overwrites what fills an append may not be made before its own append has ended',
    },
    patches: [
      {
        file: GROUP_COMMIT,
        find: 'if (this.#full.length > 0 || isLong) return',
        replace: 'if (isLong) return',
      },
    ],
  },
  {
    name: 'a checkpoint that joins a checkpoint in progress',
    test: {
      file: 'test/log/overlapping-checkpoints.test.ts',
      name: 'checkpoint covers what was committed during an earlier checkpoint',
    },
    patches: JOINED_CHECKPOINT,
  },
  {
    name: '`close` that joins a checkpoint in progress',
    test: {
      file: 'test/log/overlapping-checkpoints.test.ts',
      name: 'close covers what was committed during an earlier checkpoint',
    },
    patches: JOINED_CHECKPOINT,
  },
  {
    name: '`hydrated` that joins a checkpoint in progress',
    test: {
      file: 'test/log/overlapping-checkpoints.test.ts',
      name: 'hydrated covers what was copied during an earlier checkpoint',
    },
    patches: JOINED_CHECKPOINT,
  },
  {
    name: '`finish` without its standalone checkpoint',
    test: { file: 'test/device/finish.test.ts', name: 'finishing leaves a complete target at any crash' },
    patches: [
      {
        file: CHECKPOINTER,
        find: '    await this.writeStandalone();\n    const last = slotOf(this.#epoch);',
        replace: '    const last = slotOf(this.#epoch);',
      },
    ],
  },
  {
    name: 'a limit of the dirty map that is ignored',
    test: {
      file: 'test/core/copy-state.test.ts',
      name: 'the state of a copy refuses parts beyond the capacity of its map, and reports the crowded blocks before',
    },
    patches: [
      {
        file: 'src/core/dirty-map.ts',
        find: 'this.blockCount < this.#maxBlocks * 0.875 && this.partCount < this.#maxParts * 0.875;',
        replace: 'true;',
      },
    ],
  },
  {
    name: 'a short write that counts as whole',
    test: { file: ADAPTER_TEST, name: 'a write that takes several calls writes all of its bytes' },
    patches: [
      {
        file: ADAPTER,
        find: 'done += atLeastOne(fs.writeSync(this.#fd, from, done, length, offset + done));',
        replace: 'fs.writeSync(this.#fd, from, done, length, offset + done);\n        done += length;',
      },
    ],
  },
  {
    name: 'names that are never synced',
    test: {
      file: ADAPTER_TEST,
      name: 'the first sync of an open file syncs its name, also one that exists, and later syncs do not',
    },
    patches: [
      {
        file: ADAPTER,
        find: 'this.#nameSynced ??= syncName(this.#path);',
        replace: 'this.#nameSynced ??= Promise.resolve(void syncName);',
      },
    ],
  },
  {
    name: 'remove: metadata before the target',
    test: removalTest('a copy that was killed while it was in use', 'process'),
    patches: [
      {
        file: REMOVAL,
        find: '    await file.remove(lease);\n    await syncNames(slots);\n    await removeMetadata(owned, last);\n',
        replace: '    await removeMetadata(owned, last);\n    await file.remove(lease);\n',
      },
    ],
  },
  {
    name: 'remove: a target that is emptied while its metadata says what it holds',
    test: removalTest('a copy that was closed', 'process'),
    patches: [
      {
        file: REMOVAL,
        find: 'const last = isState(found) ? await sayEmpty(owned, found) : undefined;',
        replace: 'const last = undefined;\n    void sayEmpty;',
      },
    ],
  },
  {
    name: 'remove: a target whose name goes before its bytes are gone, durably',
    test: removalTest('a copy whose newest checkpoint is damaged', 'power'),
    patches: [
      { file: REMOVAL, find: '    await this.#file.truncate(0);\n    await this.#file.sync();\n', replace: '' },
    ],
  },
  {
    name: 'remove: metadata that goes before the removal of the target is durable',
    test: {
      file: 'test/log/removal.test.ts',
      name: 'a removal syncs a name beside the target between the removal of the target and that of the metadata',
    },
    patches: [{ file: REMOVAL, find: '    await syncNames(slots);\n', replace: '    void syncNames;\n' }],
  },
  {
    name: 'one owner: a flush that checks the lock before its syncs',
    test: {
      file: TAKE_OVER_TEST,
      name: `${REPLACED} flush, if it was replaced during the last sync: the check comes after that`,
    },
    patches: [
      {
        file: CHECKPOINTER,
        find: DURABLE_STEP + FENCE,
        replace: FENCE + DURABLE_STEP,
      },
    ],
  },
  {
    name: 'one owner: a flush that does not check the lock',
    test: { file: TAKE_OVER_TEST, name: `${REPLACED} flush, if it was replaced before` },
    patches: [
      {
        file: CHECKPOINTER,
        find: DURABLE_STEP + FENCE,
        replace: DURABLE_STEP,
      },
    ],
  },
  {
    name: 'one owner: a take-over that uses the files of an owner that may be alive',
    test: {
      file: TAKE_OVER_TEST,
      name: `${MAY_LIVE} makes new metadata files, so what the owner before writes late is not read`,
    },
    patches: [
      {
        file: INTENT_LOG,
        find: 'if (this.#lease.unproved) await this.#checkpointer.startAnew();\n      else if (',
        replace: 'if (',
      },
    ],
  },
  {
    name: 'one owner: a take-over that removes the files before the new checkpoint is durable',
    test: {
      file: TAKE_OVER_TEST,
      name: `${MAY_LIVE} may crash at any operation, again and again`,
    },
    patches: [
      {
        file: CHECKPOINTER,
        find: "    await slots.remove('checkpoint', kept);\n",
        replace: '    for (const { kind, slot } of ALL_SLOTS) await slots.remove(kind, slot);\n',
      },
    ],
  },
  {
    name: 'one owner: a name that is removed after a check, in a finish',
    test: {
      file: TAKE_OVER_TEST,
      name: `${REPLACED_BEFORE} removes a name in a finish leaves the name of its successor (1)`,
    },
    patches: [
      {
        file: OWNERSHIP,
        find: 'this.#lease?.remove?.(name) ?? fileSystem.remove(name)',
        replace: 'fileSystem.remove(name)',
      },
    ],
  },
  {
    name: 'one owner: a name that is removed after a check, in a take-over',
    test: {
      file: TAKE_OVER_TEST,
      name: `${REPLACED_BEFORE} removes a name in a take-over leaves the name of its successor (2)`,
    },
    patches: [
      {
        file: OWNERSHIP,
        find: 'this.#lease?.remove?.(name) ?? fileSystem.remove(name)',
        replace: 'fileSystem.remove(name)',
      },
    ],
  },
  {
    name: 'one owner: a check before the name is moved aside',
    test: {
      file: MOVED_NAMES_TEST,
      name: 'a name is removed by its owner, which looks whether it still is when the name is gone',
    },
    patches: [
      {
        file: MOVED_NAMES,
        find: '    const isMoved = hasMoved(path, aside);\n',
        replace: '    if (!isOwner()) return;\n    const isMoved = hasMoved(path, aside);\n',
      },
      { file: MOVED_NAMES, find: 'isMine = isOwner();', replace: 'isMine = true;' },
    ],
  },
  {
    name: 'one owner: a new file that is written before a check',
    test: { file: TAKE_OVER_TEST, name: `${REPLACED_BEFORE} makes a name says nothing in it (1)` },
    patches: [{ file: 'src/log/slots.ts', find: '      await this.#owner?.fence();\n', replace: '' }],
  },
  {
    name: 'one owner: a name that is missing for a moment while a successor reads',
    test: {
      file: TAKE_OVER_TEST,
      name: `${MAY_LIVE} finds the names that an earlier owner holds aside while it reads`,
    },
    patches: [{ file: INTENT_LOG, find: '        if (await slots.findMore()) continue;\n', replace: '' }],
  },
  {
    name: 'one owner: files that change while a successor reads them',
    test: {
      file: TAKE_OVER_TEST,
      name: `${MAY_LIVE} reads what that owner changes meanwhile as it was at one moment`,
    },
    patches: [
      {
        file: INTENT_LOG,
        find: 'lease.unproved ? readUndisturbed(fileSystem, name, read) : read()',
        replace: 'read()',
      },
    ],
  },
  {
    name: 'one owner: a lock that is released before the last checkpoint',
    test: {
      file: TAKE_OVER_TEST,
      name: `${REPLACED} close before its last operation: the lock is held until then`,
    },
    patches: [
      {
        file: INTENT_LOG,
        find: '    try {\n      await closeFiles();\n',
        replace: '    try {\n      await this.#lease.release();\n      await closeFiles();\n',
      },
    ],
  },
  {
    name: 'one owner: a lock that has its name before its content is synced',
    test: { file: NODE_LOCK_TEST, name: 'the content of a lock is synced before it gets its name' },
    patches: [{ file: LOCK_TAKING, find: '        fs.fsyncSync(fd);\n', replace: '' }],
  },
  {
    name: 'one owner: a release that removes the lock by its name',
    test: {
      file: TWO_MACHINES_TEST,
      name: `${ELSEWHERE} is replaced when its heartbeat has stood still (takeOver: false, after 30000 ms)`,
    },
    patches: [
      {
        file: NODE_LOCK,
        find: 'if (!this.#check() || !this.#isRecent(this.#beaten) || this.unproved) return false;',
        replace: '',
      },
      { file: NODE_LOCK, find: '    if (!isFile(fd, file)) return;\n', replace: '' },
      { file: MOVED_NAMES, find: 'while (isFile(fd, file)) {', replace: 'while (isThere(file)) {' },
      { file: MOVED_NAMES, find: 'if (isFile(fd, aside)) fs.rmSync', replace: 'if (true) fs.rmSync' },
    ],
  },
  {
    name: 'one owner: a beat that is written to the name of the lock',
    test: {
      file: TWO_MACHINES_TEST,
      name: `${ELSEWHERE} learns of its successor by its own heartbeat, and leaves the lock alone`,
    },
    patches: [
      {
        file: NODE_LOCK,
        find: 'fs.writeSync(this.#lock.fd, ',
        replace: "fs.writeSync(fs.openSync(this.#lock.file, 'r+'), ",
      },
    ],
  },
  {
    name: "one owner: a socket's name that is used again",
    test: {
      file: TWO_MACHINES_TEST,
      name: `${ELSEWHERE} is replaced when its heartbeat has stood still (takeOver: false, after 30000 ms)`,
    },
    patches: [
      { file: LOCK_TAKING, find: "randomBytes(8).toString('hex')", replace: "randomBytes(8).fill(1).toString('hex')" },
    ],
  },
  {
    name: 'one owner: a flush that does not check the lock, in the campaign',
    where: OWNERS,
    patches: [{ file: CHECKPOINTER, find: DURABLE_STEP + FENCE, replace: DURABLE_STEP }],
  },
  {
    name: 'one owner: a name that is removed after a check, in the campaign',
    where: OWNERS,
    patches: [
      {
        file: OWNERSHIP,
        find: 'this.#lease?.remove?.(name) ?? fileSystem.remove(name)',
        replace: 'fileSystem.remove(name)',
      },
    ],
  },
  {
    name: 'one owner: a checkpoint that is not followed by a check',
    where: /^owners.*one user, process/,
    samples: 1,
    patches: [
      {
        file: CHECKPOINTER,
        find: 'A successor that has not seen this one needs it.\n    await this.fence();\n',
        replace: '\n',
      },
    ],
  },
  {
    name: 'one owner: a removal that empties a file without a check',
    test: {
      file: TAKE_OVER_TEST,
      name: `${REPLACED_BEFORE} opens a file by its name in a removal empties no file of its successor`,
    },
    patches: [
      {
        file: REMOVAL,
        find: "which may have been a successor's by then.\n    await lease.fence();\n",
        replace: '\n',
      },
    ],
  },
  {
    name: 'one owner: files that an earlier owner has moved aside since the lock was taken',
    test: {
      file: TWO_MACHINES_TEST,
      name: 'an owner whose new files are made removes what an earlier one has moved aside meanwhile',
    },
    patches: [
      { file: NODE_LOCK, find: '    if (this.unproved && this.#check()) await this.restore();\n', replace: '' },
    ],
  },
  {
    name: 'one owner: a release that fails if the lock cannot be removed',
    test: { file: NODE_LOCK_TEST, name: 'a lock that cannot be removed is released all the same' },
    patches: [
      {
        file: NODE_LOCK,
        find: '      return true;\n    } catch {\n      return false;\n',
        replace: '      return true;\n    } catch (error) {\n      throw error;\n',
      },
    ],
  },
  {
    name: 'one owner: a lock that is taken while another one is held aside',
    test: { file: TWO_MACHINES_TEST, name: `${HELD_ASIDE} is put back and judged by a taker, which its owner refuses` },
    patches: [
      { file: LOCK_TAKING, find: '      return [file, ...asides];\n', replace: '      return [file];\n' },
      {
        file: LOCK_TAKING,
        find: 'if (restores) for (const aside of asides) restoreLock(file, aside);',
        replace: 'void [restores, asides, restoreLock];',
      },
      { file: LOCK_TAKING, find: 'this.#asides().every((path) => former?.asides.includes(path))', replace: 'true' },
    ],
  },
  {
    name: 'one owner: a taker that does not look for a lock that was moved aside meanwhile',
    test: { file: TWO_MACHINES_TEST, name: `${HELD_ASIDE} right before a taker has the name makes the taker give up` },
    patches: [
      { file: LOCK_TAKING, find: 'this.#asides().every((path) => former?.asides.includes(path))', replace: 'true' },
    ],
  },
  {
    name: 'a name whose directory is not synced',
    test: { file: 'test/fs/node.test.ts', name: 'the first sync of a file syncs the directory that it is in' },
    patches: [
      {
        file: 'src/fs/node.ts',
        find: 'await directory.sync().finally(() => directory.close());',
        replace: 'await directory.close();',
      },
    ],
  },
  {
    name: 'a spare file that is not made again at once',
    test: { file: SPARE_TEST, name: SPARE_PROMISE },
    patches: [
      {
        file: NODE_LOCK,
        find: '        if (this.#spare !== undefined) await this.#makeSpare();\n',
        replace: '',
      },
    ],
  },
  {
    name: 'a step that is repeated although no spare file was given up',
    test: { file: SPARE_TEST, name: SPARE_PROMISE },
    patches: [
      {
        file: NODE_LOCK,
        find: 'if (!removeSpare(this.#lock.file)) throw error;',
        replace: 'removeSpare(this.#lock.file);',
      },
    ],
  },
  {
    name: 'a spare file that is kept while the disk is full',
    test: { file: SPARE_TEST, name: SPARE_PROMISE },
    patches: [{ file: NODE_LOCK, find: 'if (!removeSpare(this.#lock.file)) throw error;', replace: '' }],
  },
  {
    name: 'a snapshot whose gate is not closed',
    test: snapshotTest(true, 'is the image of one moment'),
    patches: [
      {
        file: SNAPSHOT,
        find: "const gate = await this.#target.lock(0, this.size, 'read');",
        replace: 'const gate = { release: () => undefined };',
      },
    ],
  },
  {
    name: 'a snapshot that lacks what was written since it was taken for the last time',
    test: snapshotTest(false, 'is the image of one moment'),
    patches: [{ file: SNAPSHOT, find: '      await this.#takeChanged();\n      if (', replace: '      if (' }],
  },
  {
    name: 'a snapshot whose state is the one of the device after its gate was opened',
    test: snapshotTest(false, 'is the image of one moment'),
    patches: [
      {
        file: SNAPSHOT,
        find: '    await log.flush();\n  }\n',
        replace: '    await log.flush();\n    await this.#take(0, this.size, { isNew: true });\n  }\n',
      },
    ],
  },
  {
    name: 'a change that is noted for a snapshot before it is recorded',
    test: snapshotTest(true, 'is the image of one moment'),
    patches: [
      {
        file: WRITER,
        find: '      this.#target.onChanged?.(offset, from.length);\n      lock.release();',
        replace: '      lock.release();',
      },
      {
        file: WRITER,
        find: '    const transaction = this.#target.log.begin();\n    let written',
        replace:
          '    const transaction = this.#target.log.begin();\n' +
          '    this.#target.onChanged?.(offset, from.length);\n    let written',
      },
    ],
  },
  {
    name: 'a snapshot that counts before its target is durable',
    test: snapshotTest(false, 'is complete, refused or absent after a crash at any operation (power)'),
    patches: [
      {
        file: SNAPSHOT,
        find: 'metadata.commit(target.log.identity, () => file.sync())',
        replace: 'metadata.commit(target.log.identity, async () => undefined)',
      },
    ],
  },
  {
    name: 'an unfinished snapshot that opens as a copy of the source',
    test: snapshotTest(false, 'is complete, refused or absent after a crash at any operation (process)'),
    patches: [
      {
        file: SNAPSHOT,
        find: 'SnapshotMetadata.claim({ environment, fileSystem, name: to, geometry }, signal)',
        replace: 'SnapshotMetadata.claim({ environment, fileSystem, name: to, geometry }, signal, target.log.identity)',
      },
      {
        file: SNAPSHOT_METADATA,
        find: 'signal: AbortSignal): Promise<SnapshotMetadata> {',
        replace: 'signal: AbortSignal, identity?: string): Promise<SnapshotMetadata> {',
      },
      {
        file: SNAPSHOT_METADATA,
        find: 'await claimed.#write(-1, UNFINISHED, undefined);',
        replace: 'await claimed.#write(-1, identity, undefined);',
      },
    ],
  },
  {
    name: 'a source of another image that is used',
    test: {
      file: 'test/device/origin.test.ts',
      name: 'another image that takes the place of the image in the middle leaves no byte in the copy',
    },
    patches: [{ file: ORIGIN, find: 'if (identity === copy.identity) return;', replace: 'if (copy.size > 0) return;' }],
  },
  {
    name: 'another image in the place of the source that is used',
    where: /^a source that comes and goes, /,
    patches: [{ file: ORIGIN, find: 'if (identity === copy.identity) return;', replace: 'if (copy.size > 0) return;' }],
  },
  {
    name: 'a background copy that ends at its first failure',
    test: {
      file: 'test/device/origin.test.ts',
      name: 'an incomplete copy asks again with growing delays of at most 30 s, tells of each attempt, and never ends',
    },
    patches: [
      {
        file: HYDRATOR,
        find: 'if (!this.#isPaused) await retries.wait(error, this.#end.signal);',
        replace: 'if (!this.#isPaused) throw error;',
      },
    ],
  },
  {
    name: 'a wrong extent that a reader gets and the device stores before its digest was compared',
    test: {
      file: VERIFIED_TEST,
      name: `${LYING_PROXY} finds it by a cold read of 4 KiB beside it, which stores nothing`,
    },
    patches: [
      { file: VERIFIED, find: 'of await mismatches(this.#manifest, part, from)) await', replace: 'of []) await' },
    ],
  },
  {
    name: 'a wrong extent that is copied before its digest was compared',
    test: {
      file: VERIFIED_TEST,
      name: `${LYING_PROXY} finds it by the background copy, which stores nothing wrong, and then completes`,
    },
    patches: [
      {
        file: VERIFIED,
        find: 'for (const each of wrong) await this.#askAgain(bytes, at, each, signal);\n      yield',
        replace: `const asked = wrong.map((each) => this.#askAgain(bytes, at, each, signal));
      for (const each of asked) each.catch(() => undefined);
      yield`,
      },
    ],
  },
  {
    name: 'a read that fails because what follows it cannot be read',
    test: { file: LONGER_FETCHES, name: 'does not fail for what follows' },
    patches: [
      { file: FETCHER, find: 'if (entries.some(({ isLonger }) => isLonger)) return', replace: 'if (false) return' },
    ],
  },
  {
    name: 'a request that continues over what is on its way',
    test: { file: LONGER_FETCHES, name: 'ends before what is here, on its way, or past the end' },
    patches: [{ file: FETCHER, find: 'this.#known({ start: end, end: limit })[0]?.start ?? limit', replace: 'limit' }],
  },
  {
    name: 'a reader that has its memory back while a store still reads it',
    test: { file: READ_THROUGH_TEST, name: 'a store that takes long ends before the reader has its memory back' },
    patches: [{ file: READ_THROUGH, find: 'return storing.then(', replace: 'storing.then(' }],
  },
  {
    name: 'a change of the target by an owner that may have been replaced',
    where: /^owners/,
    patches: [
      {
        file: TARGET,
        find: '() => this.log.fenceIfOld(),\n      () => this.#writeAtOnce',
        replace: '() => undefined,\n      () => this.#writeAtOnce',
      },
    ],
  },
  {
    name: 'a read of the source where the target holds a part of the block',
    patches: [{ file: READ_THROUGH, find: 'state.nextHeld(blocks.start, blocks.end) < blocks.end', replace: 'false' }],
  },
  ...QCOW2_BUGS,
];
