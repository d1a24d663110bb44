/**
 * Searches for a crash that breaks a promise. Runs the same story again and again, crashed at operation 1, 2, 3 … until
 * it ends by itself, and crashed again while it recovers.
 */

import {
  type CrashKind,
  type PlannedCrash,
  planFromLine,
  planToLine,
  type Story,
  type StoryFigures,
  type StoryOptions,
  type StoryPlan,
  type Told,
  tellStory,
} from './crash-story.ts';
import { seededRandom } from './random.ts';

/** A crash that is meant to hit a recovery comes at one of this many first operations. */
const RECOVERY_OPERATIONS = 50;

/** The kinds that `mixed` draws from. */
const MIXED: readonly CrashKind[] = ['process', 'process', 'power', 'loss'];

/** Options of {@link exploreCrashes}. */
export interface ExplorerOptions extends StoryOptions {
  /** A 32-bit integer. The same seed and the same code give the same run. Default: 0. */
  readonly seed?: number;
  /** The kind of the crashes; `mixed` draws a kind for each crash. Default: `'mixed'`. */
  readonly kind?: CrashKind | 'mixed';
  /** The most crashes of a story, 0 or more. Default: 2. */
  readonly crashes?: number;
  /**
   * This many crashes are tried at each operation of their lives, in every combination. The others are placed at
   * random. Default: 1.
   */
  readonly depth?: number;
  /**
   * For a large workload: the number of stories, whose crashes are all placed at random. Replaces {@link depth}.
   * Default: none, and a story for each operation.
   */
  readonly samples?: number;
  /**
   * Called after each crashed story with the figures so far. The exploration ends if it returns false. Default: none.
   */
  readonly onStory?: (figures: Readonly<StoryFigures>) => unknown;
}

/**
 * A promise was broken, or a story did not end. `cause` is the error of the story.
 *
 * @example
 * ```ts
 * import { CrashFailure } from 'copyondemand/testing';
 *
 * const failure = new CrashFailure({ seed: 1, crashes: [] }, new Error('a synced write is lost'));
 * console.log(failure.replay); // {"version":1,"seed":1,"crashes":[]}
 * ```
 */
export class CrashFailure extends Error {
  /** Always `'CrashFailure'`. */
  override readonly name = 'CrashFailure';
  /** One line for {@link replayCrashes}. The message contains it. */
  readonly replay: string;

  /** Makes the failure of a story. {@link exploreCrashes} calls it. */
  constructor(plan: StoryPlan, cause: unknown) {
    const replay = planToLine(plan);
    super(`${cause instanceof Error ? cause.message : String(cause)}\nreplay: ${replay}`, { cause });
    this.replay = replay;
  }
}

/**
 * Searches for a crash that breaks a promise. Runs the same story again and again, crashed at operation 1, 2, 3 … until
 * it ends by itself, and crashed again while it recovers. Resolves to the figures when no promise was broken.
 *
 * @param begin makes a story without knowledge of earlier ones
 * @throws {@link CrashFailure} at the first broken promise.
 * @example
 * ```ts
 * import { exploreCrashes } from 'copyondemand/testing';
 *
 * const { crashes } = await exploreCrashes(() => {
 *   let isPromised = false;
 *   return {
 *     async work({ fileSystem }) {
 *       const file = await fileSystem.open('notes', { create: true });
 *       await file.write(new Uint8Array(512).fill(7), 0);
 *       await file.sync();
 *       isPromised = true;
 *     },
 *     async recover({ fileSystem }) {
 *       if (!isPromised) return;
 *       const found = new Uint8Array(512);
 *       await (await fileSystem.open('notes')).read(found, 0);
 *       if (found.some((byte) => byte !== 7)) throw new Error('a synced write is lost');
 *     },
 *   };
 * });
 * console.log(crashes > 0); // true
 * ```
 */
export async function exploreCrashes(begin: () => Story, options: ExplorerOptions = {}): Promise<StoryFigures> {
  const { seed = 0, kind = 'mixed', crashes = 2, depth = 1, samples, onStory } = options;
  const random = seededRandom(seed);
  const figures: StoryFigures = { stories: 0, lives: 0, crashes: 0, operations: 0 };
  /** Operations of the longest first life and of the longest later life so far. Random places are drawn from these. */
  const longest = { first: 1, later: 1 };

  const tell = async (planned: readonly PlannedCrash[]): Promise<Told> => {
    const told = await tellOne(begin, { seed, crashes: planned }, options);
    const [first, ...later] = told.operations;
    longest.first = Math.max(longest.first, first!);
    longest.later = Math.max(longest.later, ...later);
    figures.stories++;
    figures.lives += told.operations.length;
    figures.crashes += told.crashes;
    for (const count of told.operations) figures.operations += count;
    return told;
  };
  const crashAt = (at: number, works: boolean): PlannedCrash => ({
    at,
    kind: kind === 'mixed' ? (MIXED[random.below(MIXED.length)] ?? 'process') : kind,
    seed: random.below(2 ** 32),
    works,
  });
  /** A crash at a random place of a life that recovers. One in three such lives works as well. */
  const anywhere = (): PlannedCrash => {
    const works = random.oneIn(3);
    return crashAt(
      works ? 1 + random.below(longest.later) : 1 + random.below(Math.min(longest.later, RECOVERY_OPERATIONS)),
      works,
    );
  };
  const upTo = (limit: number): PlannedCrash[] => Array.from({ length: random.below(limit + 1) }, anywhere);

  await tell([]);
  if (samples !== undefined) {
    for (let count = 0; count < samples && crashes > 0; count++) {
      await tell([crashAt(1 + random.below(longest.first), true), ...upTo(crashes - 1)]);
      if (onStory?.(figures) === false) break;
    }
    return figures;
  }
  const places = Math.min(depth, crashes);
  for (let at = Array.from({ length: places }, () => 1); at.length > 0; ) {
    const told = await tell([...at.map((place, index) => crashAt(place, index === 0)), ...upTo(crashes - places)]);
    if (onStory?.(figures) === false) break;
    // A crash that did not happen was planned after the end of its life. The crash before it then advances, and this
    // one restarts at operation 1.
    at = told.crashes >= places ? at : at.slice(0, told.crashes);
    if (at.length === 0) break;
    at = [...at.slice(0, -1), at.at(-1)! + 1];
    while (at.length < places) at.push(1);
  }
  return figures;
}

/**
 * Runs the story of a {@link CrashFailure} again. `begin` and the options must be those of the failed run.
 *
 * @param line {@link CrashFailure.replay}
 * @throws {@link CrashFailure} when the promise is still broken.
 * @throws {@link CodError} COD_VERSION when another version wrote the line; COD_CORRUPT when it is not a valid plan.
 * @example
 * ```ts
 * import { CrashFailure, exploreCrashes, replayCrashes, type Story } from 'copyondemand/testing';
 *
 * const begin = (): Story => ({
 *   async work({ fileSystem }) {
 *     await fileSystem.open('notes', { create: true });
 *   },
 *   async recover({ fileSystem }) {
 *     await fileSystem.open('notes'); // wrong: the name was never synced
 *   },
 * });
 * const failure = await exploreCrashes(begin).catch((error: unknown) => error);
 * if (!(failure instanceof CrashFailure)) throw new Error('no promise was broken');
 * const again = await replayCrashes(begin, failure.replay).catch((error: unknown) => error);
 * console.log(again instanceof CrashFailure); // true
 * ```
 */
export async function replayCrashes(begin: () => Story, line: string, options: StoryOptions = {}): Promise<Told> {
  return tellOne(begin, planFromLine(line), options);
}

async function tellOne(begin: () => Story, plan: StoryPlan, options: StoryOptions): Promise<Told> {
  try {
    return await tellStory(begin(), plan, options);
  } catch (error) {
    throw new CrashFailure(plan, error);
  }
}
