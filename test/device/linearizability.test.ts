/**
 * Concurrent users of one device, whose requests must be linearizable in each sector: in random order over slow
 * storage, and with crashes of the process and of the machine.
 *
 * COD_LINEAR_DEVICE_SEED=… runs that seed only; COD_LINEAR_DEVICE_ROUNDS=… sets the number of seeds.
 */

import { setImmediate as immediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import type { Clock, FileSystem, Source } from '../../src/index.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import {
  checkLinearizable,
  exploreCrashes,
  type Life,
  type Random,
  SectorHistory,
  type Story,
  seededRandom,
} from '../../src/testing/index.ts';
import { ControlledSource } from '../support/controlled-source.ts';
import { inlineDisk, readDisk, type UserOptions, useDisk } from '../support/disk-users.ts';
import { effort } from '../support/effort.ts';
import { Scheduler, slowFileSystem } from '../support/scheduler.ts';

const ROUNDS = effort('COD_LINEAR_DEVICE_ROUNDS', { short: 5, long: 200 });
const ONLY_SEED = process.env['COD_LINEAR_DEVICE_SEED'];
/** Stories of crashes for each seed. */
const STORIES = 5;
/** The last block is half a block. */
const SIZE = 11.5 * 4096;

const figures = { requests: 0, histories: 0, crashes: 0 };

/** Throws if a history is not linearizable. */
function expectLinearizable(history: SectorHistory): void {
  figures.requests += history.requests.length;
  figures.histories++;
  const violation = checkLinearizable(history);
  if (violation !== undefined) throw new Error(violation.message);
}

/** Runs a round for each seed. An error names its seed. */
async function eachSeed(round: (seed: number) => Promise<void>): Promise<void> {
  const seeds = ONLY_SEED === undefined ? Array.from({ length: ROUNDS }, (_, at) => at + 1) : [Number(ONLY_SEED)];
  Object.assign(figures, { requests: 0, histories: 0, crashes: 0 });
  for (const seed of seeds) {
    try {
      await round(seed);
    } catch (error) {
      throw new Error(`seed ${seed} (COD_LINEAR_DEVICE_SEED=${seed}): ${(error as Error).message}`, { cause: error });
    }
  }
  if (process.env['COD_LINEAR_FIGURES']) console.log(figures);
  expect(figures.requests).toBeGreaterThan(50 * seeds.length);
}

function open(
  { source, fileSystem, clock, random }: { source: Source; fileSystem: FileSystem; clock: Clock; random: Random },
  hydrates: boolean,
): Promise<InlineDevice> {
  return openDeviceIn(
    { clock, randomBytes: (into) => random.fill(into) },
    { source, fileSystem, target: 'disk', checkpointIntervalMs: 200, hydrate: hydrates && {} },
  );
}

async function useAtOnce(
  device: InlineDevice,
  {
    count,
    history,
    random,
    steps,
    pause,
  }: Pick<UserOptions, 'history' | 'random' | 'steps' | 'pause'> & { count: number },
): Promise<void> {
  const users = Array.from({ length: count }, (_, index) => {
    const own = random.fork();
    return useDisk(own.oneIn(2) ? device : inlineDisk(device, own), {
      history,
      random: own,
      by: `user ${index + 1}`,
      steps,
      size: SIZE,
      pause: async () => {
        for (let pauses = own.below(3); pauses > 0; pauses--) await pause();
      },
    });
  });
  await Promise.all(users);
}

test(
  'requests of concurrent users are linearizable over storage that answers in random order',
  () =>
    eachSeed(async (seed) => {
      const random = seededRandom(seed);
      const initial = random.fill(new Uint8Array(SIZE));
      const history = new SectorHistory({ initial });
      const chaos = random.fork();
      const source = new ControlledSource(initial, {
        streams: random.oneIn(2),
        pieceBytes: () => 1 + chaos.below(4096),
      });
      const patience = 1 + random.below(8);
      const clock = new Scheduler(random.fork(), () => {
        for (const answer of chaos.shuffle([...source.pending])) if (chaos.oneIn(patience)) answer.release();
      });
      const fileSystem = slowFileSystem(memfsFileSystem(), clock, random.fork());
      const work = async (): Promise<void> => {
        for (let life = 0; life < 2; life++) {
          const device = await open({ source, fileSystem, clock, random }, random.oneIn(2));
          await useAtOnce(device, { count: 24, history, random, steps: 8, pause: immediate });
          await device.close();
        }
        const device = await open({ source, fileSystem, clock, random }, true);
        await device.hydrated;
        await readDisk(device, { history, size: SIZE });
        await device.close();
      };
      await clock.run(work());
      expectLinearizable(history);
    }),
  60_000 + 1000 * ROUNDS,
);

/** Users of a device that crashes. Each life reads the whole device before it continues. */
function crashingUsers(initial: Uint8Array): Story {
  const history = new SectorHistory({ initial });
  let device: InlineDevice | undefined;
  const reopened = async ({ fileSystem, clock, random }: Life): Promise<InlineDevice> => {
    device = await open({ source: bytesSource(initial), fileSystem, clock, random }, random.oneIn(2));
    return device;
  };
  return {
    work: async (life) => {
      const { clock, random } = life;
      const pause = (): Promise<void> => clock.sleep(1);
      await useAtOnce(device ?? (await reopened(life)), { count: 6, history, random, steps: 12, pause });
    },
    recover: async (life) => {
      history.crash(life.crash!);
      await readDisk(await reopened(life), { history, size: SIZE });
      if (!life.isLast) return;
      figures.crashes += history.crashes.length;
      expectLinearizable(history);
    },
  };
}

test(
  'acknowledged writes stay in order over crashes of the process, and flushed ones over power cuts',
  () =>
    eachSeed(async (seed) => {
      const initial = seededRandom(seed).fill(new Uint8Array(SIZE));
      await exploreCrashes(() => crashingUsers(initial), {
        seed,
        samples: STORIES,
        crashes: 4,
        fileSystem: { bootId: 'boot', tearBytes: 512, inline: seed % 2 === 0 },
        settle: () => new Promise(process.nextTick),
      });
    }),
  60_000 + 1000 * ROUNDS,
);
