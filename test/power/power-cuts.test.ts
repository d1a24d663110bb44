/**
 * Power cuts under the real kernel: a file system on a loop device loses what it has not written, while a process
 * writes to a copy on it. The file system is mounted again, the copy recovers, and every byte is compared.
 *
 * - `shutdown`: the file system shuts down without a flush of its journal, which is FS_IOC_SHUTDOWN. btrfs has none.
 * - `snapshot`: the file system is mounted anew from a snapshot of its device at one moment.
 *
 * Before some cuts, parts of single files are written back in any order, or the disk is full. Some copies wake up in
 * another boot, others in the same boot, as on a volume that was lost while the machine ran on.
 *
 * `npm run test:power` cuts the power 300 times for each file system. COD_POWER_CUTS is that number, and COD_POWER_SEED
 * repeats a run, as far as moments can be repeated.
 */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readdirSync, rmSync, statfsSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { isCodError, openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { type Random, seededRandom } from '../../src/testing/random.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { bundleForNode } from '../support/bundle.ts';
import { ByteHistory, type HistoricWrite } from '../support/byte-history.ts';
import { type LoadOrder, loadOperation } from '../support/kill-load.ts';
import {
  makeFileSystem,
  mountVolume,
  obstacleToVolumes,
  runTool,
  unmount,
  type VolumeType,
  volumeTools,
} from '../support/loop-volume.ts';
import { describeWith } from '../support/tools.ts';

const CUTS = Number(process.env['COD_POWER_CUTS'] ?? 5);
const SEED = Number(process.env['COD_POWER_SEED'] ?? Date.now() % 2 ** 31);
/** Cuts of one copy, before a new copy begins on a new file system. */
const CUTS_OF_A_COPY = 20;
const SIZE = 12 * 2 ** 20 + 777;
const USERS = 3;
/** The smallest that mkfs.xfs accepts. */
const VOLUME_BYTES = 320 * 2 ** 20;
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

type Cut = 'shutdown' | 'snapshot';

const CUTS_OF: Readonly<Record<VolumeType, readonly Cut[]>> = {
  ext4: ['shutdown', 'snapshot'],
  xfs: ['shutdown', 'snapshot'],
  btrfs: ['snapshot'],
};

/** What happened, for the last line. */
const figures = { acknowledged: 0, durable: 0, inFlight: 0, failed: 0, lost: 0, full: 0, sameBoot: 0 };

/** Takes the lines of a process into a history. */
class Recorder {
  readonly #history: ByteHistory;
  readonly #order: LoadOrder;
  readonly #writes = new Map<string, HistoricWrite>();
  readonly #flushes = new Map<string, () => void>();
  lines = 0;

  constructor(history: ByteHistory, order: LoadOrder) {
    this.#history = history;
    this.#order = order;
  }

  take(line: string): void {
    this.lines++;
    const [event, user, index] = line.split(' ');
    if (user === undefined) return;
    const operation = loadOperation(this.#order, Number(user), Number(index));
    if (operation.kind === 'flush') {
      if (event === 'begin') this.#flushes.set(user, this.#history.beginFlush());
      else if (event === 'done') this.#flushes.get(user)!();
      return;
    }
    if (!('bytes' in operation)) return;
    if (event === 'begin') {
      this.#writes.set(user, this.#history.begin(operation.offset, operation.bytes));
      return;
    }
    const write = this.#writes.get(user)!;
    this.#writes.delete(user);
    if (event === 'failed') {
      figures.failed++;
      this.#history.fail(write);
    } else {
      figures.acknowledged++;
      if ('fua' in operation && operation.fua) figures.durable++;
      this.#history.acknowledge(write, { durable: operation.fua });
    }
  }

  end(): void {
    figures.inFlight += this.#writes.size;
  }
}

/** A volume whose device can be copied at one moment: its file is on XFS, which shares the bytes. */
class Machine {
  readonly mounted: string;
  readonly #type: VolumeType;
  readonly #outer: string;
  #volume: string;
  #count = 0;

  constructor(type: VolumeType) {
    this.#type = type;
    this.#outer = mountVolume('xfs', 4 * VOLUME_BYTES).mounted;
    const { volume, mounted } = mountVolume(type, VOLUME_BYTES, this.#outer);
    this.#volume = volume;
    this.mounted = mounted;
  }

  /** Makes the volume empty. */
  async renew(): Promise<void> {
    await unmount(this.mounted);
    truncateSync(this.#volume, 0);
    truncateSync(this.#volume, VOLUME_BYTES);
    makeFileSystem(this.#type, this.#volume);
    runTool('mount', '-o', 'loop', this.#volume, this.mounted);
  }

  /** Cuts the power under a process, and mounts what the disk has. */
  async cut(kind: Cut, child: ChildProcess): Promise<void> {
    const ended = once(child, 'close');
    if (kind === 'shutdown') {
      runTool('xfs_io', '-x', '-c', 'shutdown', this.mounted);
      child.kill('SIGKILL');
      await ended;
      await unmount(this.mounted);
    } else {
      // What it says from now on would come after the cut.
      child.kill('SIGSTOP');
      const snapshot = join(this.#outer, `snapshot-${++this.#count}`);
      runTool('cp', '--reflink=always', this.#volume, snapshot);
      child.kill('SIGKILL');
      await ended;
      await unmount(this.mounted);
      rmSync(this.#volume);
      this.#volume = snapshot;
    }
    runTool('mount', '-o', 'loop', this.#volume, this.mounted);
  }
}

/** Writes back a part of a file, or all of it, and nothing else. */
function writeBack(directory: string, random: Random): void {
  const files = readdirSync(directory).filter((name) => /^disk(\.wil|\.bak|$)/.test(name));
  for (const name of files) {
    if (random.oneIn(2)) continue;
    const path = join(directory, name);
    const { size } = statSync(path);
    const offset = random.oneIn(2) ? 0 : random.below(size + 1);
    spawnSync('xfs_io', ['-c', `sync_range -b -w -a ${offset} ${1 + random.below(size + 1)}`, path]);
    if (random.oneIn(3)) spawnSync('sync', ['-d', path]);
  }
}

/** Takes all the room of a volume. */
function fill(directory: string): void {
  const { bavail, bsize } = statfsSync(directory);
  const filler = join(directory, 'filler');
  for (let bytes = bavail * bsize; bytes > 4096; bytes = Math.floor(bytes / 2))
    spawnSync('fallocate', ['-o', String(sizeOf(filler)), '-l', String(bytes), filler]);
}

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

/** Reads the copy elsewhere, so that its files stay as the cut left them. */
async function contentsOf(directory: string, image: string): Promise<Uint8Array> {
  const elsewhere = temporaryDirectory();
  cpSync(directory, elsewhere, { recursive: true, filter: (path) => !path.includes('.lock') });
  const source = await fileSource(image);
  try {
    const device = await openDevice({ source, fileSystem: nodeFileSystem(elsewhere), target: 'disk', hydrate: false });
    const found = new Uint8Array(SIZE);
    await device.read(found, 0);
    await device.close();
    return found;
  } finally {
    await source.close();
    rmSync(elsewhere, { recursive: true });
  }
}

async function cutOften(type: VolumeType, cuts: number, planted: Partial<LoadOrder> = {}): Promise<void> {
  const program = await bundleForNode('kill-user.ts');
  const random = seededRandom(SEED);
  const folder = temporaryDirectory();
  const image = join(folder, 'image');
  // Never zero, so that lost bytes are detected.
  const content = random.fill(new Uint8Array(SIZE)).map((byte) => byte | 1);
  writeFileSync(image, content);
  const machine = new Machine(type);
  const directory = join(machine.mounted, 'copy');
  const bootId = join(folder, 'boot-id');
  let history = new ByteHistory(content);
  let before: Uint8Array = content;
  for (let life = 0; life < cuts; life++) {
    if (life % CUTS_OF_A_COPY === 0) {
      if (life > 0) await machine.renew();
      mkdirSync(directory);
      runTool('sync', '-f', directory);
      history = new ByteHistory(content);
      before = content;
    }
    const isSameBoot = life > 0 && random.oneIn(2);
    if (isSameBoot) figures.sameBoot++;
    else
      writeFileSync(
        bootId,
        `${random
          .below(2 ** 31)
          .toString(16)
          .padStart(8, '0')}-2222-4333-8444-555555555555\n`,
      );
    const order: LoadOrder = {
      source: image,
      target: join(directory, 'disk'),
      size: SIZE,
      users: USERS,
      seed: SEED,
      life,
      rateBytesPerSecond: 2 ** 20,
      mayFail: true,
      ...planted,
    };
    const recorder = new Recorder(history, order);
    const inBoot = ['unshare', '--mount', 'sh', '-c', `mount --bind ${bootId} ${BOOT_ID} && exec "$0" "$@"`];
    const [command, ...args] = [...(namesBoots ? inBoot : []), process.execPath, program, JSON.stringify(order)];
    const child = spawn(command!, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    // A quarter of the cuts come during the recovery or soon after.
    const moment = random.oneIn(4) ? 'opening' : 'ready';
    const reached = new Promise<void>((resolve) => {
      child.once('close', resolve);
      createInterface(child.stdout).on('line', (line) => {
        recorder.take(line);
        if (line === moment) resolve();
      });
    });
    await reached;
    if (moment === 'opening') await sleep(random.below(60));
    else {
      await sleep(random.below(200));
      if (random.oneIn(4)) {
        figures.full++;
        fill(machine.mounted);
        await sleep(random.below(100));
      }
      if (random.oneIn(2)) writeBack(directory, random);
    }
    // unshare prints this where its parent has blocked signals, and continues.
    const said = stderr.replace(/^unshare: sigprocmask unblock failed.*\n/gm, '');
    expect([child.exitCode, said]).toEqual([null, '']);
    const kinds = CUTS_OF[type];
    const cut = kinds[random.below(kinds.length)]!;
    await machine.cut(cut, child);
    recorder.end();
    rmSync(join(machine.mounted, 'filler'), { force: true });
    const where = `seed ${SEED}, cut ${life + 1} (${cut}) on ${type}`;
    const found = await contentsOf(directory, image);
    expect(history.violation(found, 'durable'), where).toBeUndefined();
    if (history.violation(found, 'acknowledged') !== undefined) figures.lost++;
    history.settle(found);
    before = found;
  }
  // The copy continues to its end.
  const source = await fileSource(image);
  const device = await openDevice({ source, fileSystem: nodeFileSystem(directory), target: 'disk' });
  await device.hydrated;
  const last = new Uint8Array(SIZE);
  await device.read(last, 0);
  expect(Buffer.compare(last, before)).toBe(0);
  await device.close();
  await source.close();
}

const reason = obstacleToVolumes();
/** Whether a process can see another name of the boot. A container may forbid it: all copies are in one boot then. */
const namesBoots =
  reason === undefined &&
  spawnSync('unshare', ['--mount', 'sh', '-c', `mount --bind ${BOOT_ID} ${BOOT_ID}`]).status === 0;
const NEEDED = [...volumeTools('xfs'), 'xfs_io', 'unshare', 'fallocate', 'sync', 'cp'];

describe.skipIf(reason !== undefined)(reason === undefined ? 'a power cut' : `a power cut (${reason})`, () => {
  for (const type of ['ext4', 'xfs', 'btrfs'] as const) {
    describeWith([...volumeTools(type), ...NEEDED], `on ${type}`, () => {
      test(`loses no durable write, ${CUTS} times`, { timeout: 120_000 + CUTS * 15_000 }, async () => {
        console.log(`replay: COD_POWER_SEED=${SEED} COD_POWER_CUTS=${CUTS} npm run test:power -- -t ${type}`);
        for (const key of Object.keys(figures) as (keyof typeof figures)[]) figures[key] = 0;
        await cutOften(type, CUTS);
        console.log(`${type}: ${CUTS} cuts, ${JSON.stringify(figures)}`);
        expect(figures.acknowledged).toBeGreaterThan(CUTS);
        // Cuts that never lose anything are none. A few may find all writes on the disk.
        if (CUTS > 50) expect(figures.lost).toBeGreaterThan(0);
      });

      test('finds a device that syncs nothing', { timeout: 600_000 }, async () => {
        // Bytes are lost, or the metadata: then a copy is refused.
        const isFound = (error: unknown): boolean => isCodError(error) || /byte \d+ reads/.test(String(error));
        await expect(cutOften(type, 40, { syncsNothing: true })).rejects.toSatisfy(isFound);
      });
    });
  }
});
