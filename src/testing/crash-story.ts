/**
 * One story: a workload that is crashed, recovers, continues, is crashed again, and in the end recovers without a
 * crash.
 *
 * Invariant: a story depends only on the seed, the crashes and the code under test.
 */

import { CodError } from '../errors.ts';
import type { Crash, CrashingFileSystemOptions } from './crashes-and-faults.ts';
import { CrashingFileSystem } from './crashing-file-system.ts';
import { type Random, seededRandom } from './random.ts';
import { SimulatedClock } from './simulated-clock.ts';

/** What ends a life. */
export type CrashKind = Crash['kind'];

/** The time from one start of the process to its end. */
export interface Life {
  /** 0 for the first life. */
  readonly number: number;
  /** All storage of this life. The story may inject faults into it. */
  readonly fileSystem: CrashingFileSystem;
  /** The clock of this life. */
  readonly clock: SimulatedClock;
  /** The only randomness that the story may use: any other makes it impossible to replay. */
  readonly random: Random;
  /** How the previous life ended. Undefined in the first life. */
  readonly crash: CrashKind | undefined;
  /** Whether no crash is planned for this life. Slow checks belong into such a life. */
  readonly isLast: boolean;
}

/** The code under test, and what it has promised so far. Made anew for each story. */
export interface Story {
  /**
   * The workload to crash: uses the storage and notes what was promised. Called in the first life, and in some later
   * lives once {@link recover} has resolved.
   */
  work(life: Life): Promise<void>;
  /**
   * Opens the storage as any start after a crash does, and rejects if a promise was broken. If a crash interrupts the
   * call, it is called again in the next life.
   */
  recover(life: Life): Promise<void>;
}

/** One crash of a story. */
export interface PlannedCrash {
  /** Number of the storage operation of its life that is in flight when the crash comes, from 1 on. */
  readonly at: number;
  /** What the crash is. */
  readonly kind: CrashKind;
  /** Decides what the crash leaves, and all randomness of the next life. */
  readonly seed: number;
  /** Whether this life continues with `work` after its recovery. The first life always works. */
  readonly works: boolean;
}

/** All that is needed to run a story again. */
export interface StoryPlan {
  /** Decides all randomness of the first life. */
  readonly seed: number;
  /** The crashes: the first one ends the first life, and so on. */
  readonly crashes: readonly PlannedCrash[];
}

/** The environment of a story. */
export interface StoryOptions {
  /** Options of the file systems. The story provides clock and randomness. */
  readonly fileSystem?: Omit<CrashingFileSystemOptions, 'clock' | 'random'>;
  /** The storage that the first life finds. Each story begins with a copy of it. Default: empty. */
  readonly initial?: CrashingFileSystem;
  /**
   * As `settle` of {@link SimulatedClock}. On Node, `() => new Promise(process.nextTick)` is exact and the fastest.
   * Default: a hundred rounds of the microtask queue.
   */
  readonly settle?: () => Promise<void>;
  /** A life that takes more storage operations is a failure. Default: 1,000,000. */
  readonly maxOperations?: number;
  /** A life that takes more simulated milliseconds is a failure. Default: 3,600,000. */
  readonly maxLifeMs?: number;
}

/** Figures of one story or of many. */
export interface StoryFigures {
  /** Stories that were run. */
  stories: number;
  /** Lives of all stories. */
  lives: number;
  /** Crashes that happened, in all stories. */
  crashes: number;
  /** Storage operations of all lives. */
  operations: number;
}

/** The result of one story. */
export interface Told {
  /**
   * Crashes that happened. A crash that was planned after the end of its life does not happen, nor do those after it.
   */
  readonly crashes: number;
  /** Storage operations of each life. */
  readonly operations: readonly number[];
}

/**
 * Runs a story. Rejects with the error of `work` or `recover`, or if a life does not end.
 *
 * A life that ends before its crash is followed by the last life.
 */
export async function tellStory(story: Story, plan: StoryPlan, options: StoryOptions = {}): Promise<Told> {
  const { settle, maxOperations = 1_000_000, maxLifeMs = 3_600_000 } = options;
  const operations: number[] = [];
  const newClock = (): SimulatedClock => new SimulatedClock(settle === undefined ? {} : { settle });
  const first = seededRandom(plan.seed);
  const clock = newClock();
  const begin = { ...options.fileSystem, random: first.fork(), clock };
  let life: Life = {
    number: 0,
    fileSystem: options.initial?.duplicate(begin) ?? new CrashingFileSystem(begin),
    clock,
    random: first,
    crash: undefined,
    isLast: false,
  };
  for (let crashes = 0; ; ) {
    const planned = life.isLast ? undefined : plan.crashes[life.number];
    const { fileSystem } = life;
    const end = planned?.at ?? maxOperations;
    fileSystem.crashAt(end);
    const steps = async (): Promise<true> => {
      if (life.number > 0) await story.recover(life);
      if (life.number === 0 || planned?.works) await story.work(life);
      return true;
    };
    const lived = steps().catch((error: unknown) => {
      // Errors of a crashed process do not count. In such a process a synchronous call throws.
      if (fileSystem.isCrashed) return false;
      throw error;
    });
    const ended = await life.clock.run(Promise.race([lived, fileSystem.crashed.then(() => false)]), {
      limitMs: maxLifeMs,
    });
    operations.push(Math.min(fileSystem.operationCount, end));
    if (!ended && planned === undefined)
      throw new Error(`life ${life.number} has not ended after ${maxOperations} storage operations`);
    if (life.isLast) return { crashes, operations };
    if (!ended) crashes++;
    const kind = planned?.kind ?? 'process';
    const random = seededRandom(planned?.seed ?? plan.seed);
    const nextClock = newClock();
    life = {
      number: life.number + 1,
      fileSystem: fileSystem.crash({ kind, random }, { clock: nextClock }),
      clock: nextClock,
      random,
      crash: kind,
      isLast: ended || life.number + 1 >= plan.crashes.length,
    };
  }
}

const VERSION = 1;

/** Returns the plan as one line. */
export function planToLine(plan: StoryPlan): string {
  const crashes = plan.crashes.map(({ at, kind, seed, works }) => [at, kind, seed, works ? 1 : 0]);
  return JSON.stringify({ version: VERSION, seed: plan.seed, crashes });
}

/**
 * Parses a plan.
 * @throws {@link CodError} COD_VERSION for a plan of another version; COD_CORRUPT if the line is no plan.
 */
export function planFromLine(line: string): StoryPlan {
  const corrupt = (what: string): CodError => new CodError('COD_CORRUPT', `${line.slice(0, 200)}: ${what}`);
  let plan: { version?: unknown; seed?: unknown; crashes?: unknown } | null;
  try {
    plan = JSON.parse(line) as typeof plan;
  } catch (error) {
    throw corrupt(`not JSON (${String(error)})`);
  }
  if (typeof plan !== 'object' || plan === null) throw corrupt('not a JSON object');
  const { version, seed, crashes } = plan;
  if (typeof version === 'number' && version !== VERSION)
    throw new CodError('COD_VERSION', `the story has version ${version}, but this package reads version ${VERSION}`);
  if (version !== VERSION || !isSeed(seed) || !Array.isArray(crashes))
    throw corrupt('version, seed and crashes are required');
  return {
    seed,
    crashes: crashes.map((crash: unknown): PlannedCrash => {
      if (!Array.isArray(crash) || crash.length !== 4) throw corrupt('a crash must be [at, kind, seed, works]');
      const [at, kind, crashSeed, works] = crash as unknown[];
      if (!Number.isSafeInteger(at) || (at as number) < 1)
        throw corrupt(`a crash at ${String(at)}, which is not an operation number`);
      if (kind !== 'process' && kind !== 'power' && kind !== 'loss')
        throw corrupt(`unknown crash kind ${String(kind)}`);
      if (!isSeed(crashSeed) || (works !== 0 && works !== 1)) throw corrupt('a crash must be [at, kind, seed, works]');
      return { at: at as number, kind, seed: crashSeed, works: works === 1 };
    }),
  };
}

function isSeed(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= -(2 ** 31) && value < 2 ** 32;
}
