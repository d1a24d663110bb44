/** The crash campaign: every device, on every machine, with every kind of crash. */

import { BlockMap } from '../../src/core/block-map.ts';
import { geometry } from '../../src/core/geometry.ts';
import {
  CrashFailure,
  type ExplorerOptions,
  exploreCrashes,
  replayCrashes,
  type Story,
  type StoryFigures,
  type StoryOptions,
} from '../../src/testing/index.ts';
import { checked, deviceStory, type Image, type Machine, type Shape } from './device-story.ts';
import { goldenState, goldenStates, randomImage, SLICED_SIZE, slicedImage } from './images.ts';

/** A write to synced blocks needs no record. Devices with fewer blocks than these soon have nothing left to log. */
const SHAPES: readonly (Shape & {
  readonly samples?: number;
  readonly seeds?: number;
  readonly windowBytes?: number;
  readonly image?: () => Image;
})[] = [
  { name: 'one block', size: 4096, blockSize: 4096, hydrate: true, users: 2, steps: 6 },
  { name: 'short last block', size: 9 * 4096 + 700, blockSize: 4096, hydrate: true, users: 2, steps: 6 },
  { name: 'no background copy', size: 12 * 4096, blockSize: 4096, hydrate: false, users: 2, steps: 6 },
  { name: 'four writers', size: 12 * 4096 + 100, blockSize: 4096, hydrate: true, users: 4, steps: 4 },
  { name: 'blocks of 64 KiB', size: 65536 + 5000, blockSize: 65536, hydrate: true, users: 2, steps: 6 },
  {
    name: 'faults',
    size: 9 * 4096 + 700,
    blockSize: 4096,
    hydrate: true,
    users: 2,
    steps: 6,
    faults: true,
    samples: 20,
  },
  {
    name: 'faults, six writers',
    size: 16 * 4096,
    blockSize: 4096,
    hydrate: false,
    users: 6,
    steps: 4,
    faults: true,
    samples: 20,
  },
  {
    name: 'synchronous calls',
    size: 12 * 4096 + 100,
    blockSize: 4096,
    hydrate: false,
    users: 4,
    steps: 6,
    inline: true,
  },
  {
    name: 'synchronous calls, faults',
    size: 9 * 4096 + 700,
    blockSize: 4096,
    hydrate: true,
    users: 4,
    steps: 5,
    inline: true,
    faults: true,
    samples: 20,
  },
  {
    // Its block is never whole, so that all writes need records, and these soon fill the log.
    name: 'two cells of a block',
    size: 65536,
    blockSize: 65536,
    hydrate: false,
    users: 5,
    steps: 12,
    windowBytes: 8192,
    samples: 30,
  },
  ...[false, true].map((faults) => ({
    name: faults ? 'several slices, faults' : 'several slices',
    size: SLICED_SIZE,
    blockSize: 4096,
    hydrate: false,
    users: 3,
    steps: 6,
    faults,
    samples: 20,
    image: slicedImage,
  })),
  {
    name: 'faults, two cells of a block',
    size: 65536,
    blockSize: 65536,
    hydrate: false,
    users: 4,
    steps: 8,
    windowBytes: 8192,
    faults: true,
    samples: 20,
  },
  {
    name: 'a source that comes and goes',
    size: 12 * 4096 + 100,
    blockSize: 4096,
    hydrate: true,
    users: 3,
    steps: 6,
    source: 'comes and goes',
    samples: 20,
  },
  {
    name: 'no source',
    size: 12 * 4096 + 100,
    blockSize: 4096,
    hydrate: true,
    users: 3,
    steps: 6,
    source: 'absent',
    samples: 20,
  },
  {
    name: 'owners that replace each other',
    size: 9 * 4096 + 700,
    blockSize: 4096,
    hydrate: true,
    users: 2,
    steps: 6,
    owners: 3,
    samples: 3,
    seeds: 10,
  },
  {
    // So a flush, a checkpoint or a finish is all that an owner does when it is replaced.
    name: 'owners that replace each other, one user',
    size: 6 * 4096,
    blockSize: 4096,
    hydrate: false,
    users: 1,
    steps: 8,
    owners: 3,
    samples: 3,
    seeds: 15,
  },
  {
    name: 'owners that replace each other, two cells of a block',
    size: 65536,
    blockSize: 65536,
    hydrate: false,
    users: 3,
    steps: 10,
    windowBytes: 8192,
    owners: 3,
    samples: 3,
    seeds: 10,
  },
  { name: 'many blocks', size: 40 * 4096 + 1, blockSize: 4096, hydrate: true, users: 4, steps: 30, samples: 30 },
];
const GOLDEN_SAMPLES = 4;
const PAIRS: Shape = { name: 'each pair of crashes', size: 4096, blockSize: 4096, hydrate: false, users: 1, steps: 2 };

/** From one seed of a scenario to the next: far from those of the next runs. */
const SEED_STEP = 0x9e37_79b9;

const KINDS = ['process', 'power', 'loss', 'mixed'] as const;

/** One device on one machine with one kind of crash. */
export interface Scenario {
  readonly name: string;
  readonly kind: (typeof KINDS)[number];
  readonly shape: Shape;
  readonly machine: Machine;
  readonly samples?: number;
  /** Number of first lives, which differ. Default: 1. */
  readonly seeds?: number;
  readonly depth?: number;
  /** Loads the image and the initial content of the file system. */
  readonly load: () => Promise<{ shape: Shape; image: Image; initial?: StoryOptions['initial'] }>;
}

function onEveryMachine(base: Omit<Scenario, 'kind' | 'machine'>): Scenario[] {
  return KINDS.flatMap((kind) =>
    ['boot', undefined].flatMap((bootId) =>
      [true, false].map((sectors) => ({
        ...base,
        name: [
          base.name,
          kind,
          bootId === undefined ? 'boots without names' : 'boots with names',
          sectors ? 'sectors' : 'bytes',
        ].join(', '),
        kind,
        machine: { bootId, sectors },
      })),
    ),
  );
}

const devices = SHAPES.map(({ samples, seeds, windowBytes, image, ...shape }) =>
  onEveryMachine({
    name: shape.name,
    shape,
    ...(samples === undefined ? {} : { samples }),
    ...(seeds === undefined ? {} : { seeds }),
    load: async () => ({ shape, image: image?.() ?? randomImage(shape.size, windowBytes) }),
  }),
);

const golden = goldenStates.map((state) => {
  const shape: Shape = { name: `format 1, ${state}`, size: 0, blockSize: 4096, hydrate: false, users: 2, steps: 4 };
  return onEveryMachine({
    name: shape.name,
    shape,
    samples: GOLDEN_SAMPLES,
    load: async () => {
      const { size, image, initial } = await goldenState(state);
      return { shape: { ...shape, size }, image, initial };
    },
  });
});

/**
 * Every crash, followed by every crash of the recovery. Random crashes too seldom hit a bad combination of two places.
 */
const pairs: Scenario = {
  ...onEveryMachine({
    name: 'each pair of crashes',
    shape: PAIRS,
    load: async () => ({ shape: PAIRS, image: randomImage(PAIRS.size) }),
  }).find(({ kind, machine }) => kind === 'mixed' && machine.bootId !== undefined && machine.sectors)!,
  depth: 2,
};

/** All scenarios, ordered so that neighbours differ. */
export const scenarios: readonly Scenario[] = [...interleaved([...devices, ...golden]), pairs];

/** Takes one scenario of each list in turn, starting at a different place in each list. */
function interleaved(lists: readonly Scenario[][]): Scenario[] {
  const longest = Math.max(...lists.map(({ length }) => length));
  return Array.from({ length: longest }, (_, round) =>
    lists.map((list, index) => list[(round + 5 * index) % list.length]!),
  ).flat();
}

export interface CampaignFigures extends StoryFigures {
  /** Bytes that were compared with a promise. */
  bytes: number;
}

const loaded = new Map<Scenario['load'], ReturnType<Scenario['load']>>();

async function prepared(scenario: Scenario): Promise<{ begin: () => Story; options: StoryOptions }> {
  // Otherwise the first open would wait for a compilation, which the simulated clock does not cover.
  (await BlockMap.open(geometry({ size: 4096, blockSize: 4096 }))).dispose();
  let state = loaded.get(scenario.load);
  if (state === undefined) loaded.set(scenario.load, (state = scenario.load()));
  const { shape, image, initial } = await state;
  const { machine } = scenario;
  return {
    begin: () => deviceStory(shape, machine, image),
    options: {
      ...(initial === undefined ? {} : { initial }),
      fileSystem: {
        bootId: machine.bootId,
        // A killed process cuts a write of the target between cells, as kernels copy.
        tearBytes: (name) => (name === image.target ? 4096 : machine.sectors ? 512 : 1),
        inline: shape.inline ?? false,
      },
      settle: () => new Promise(process.nextTick),
      maxOperations: 20_000,
      maxLifeMs: 600_000,
    },
  };
}

/**
 * Explores a scenario.
 * @throws {CrashFailure} when a promise is broken; its `replay` is for {@link replayScenario}
 */
export async function exploreScenario(
  scenario: Scenario,
  seed: number,
  limits: Pick<ExplorerOptions, 'crashes' | 'depth' | 'samples' | 'onStory'> = {},
): Promise<CampaignFigures> {
  const { begin, options } = await prepared(scenario);
  const samples = limits.samples ?? scenario.samples;
  const before = checked.bytes;
  const sum: StoryFigures = { stories: 0, lives: 0, crashes: 0, operations: 0 };
  const add = (figures: Readonly<StoryFigures>): StoryFigures => ({
    stories: sum.stories + figures.stories,
    lives: sum.lives + figures.lives,
    crashes: sum.crashes + figures.crashes,
    operations: sum.operations + figures.operations,
  });
  let isOver = false;
  for (let round = 0; round < (scenario.seeds ?? 1) && !isOver; round++) {
    const figures = await exploreCrashes(begin, {
      crashes: scenario.depth ?? 6,
      ...(scenario.depth === undefined ? {} : { depth: scenario.depth }),
      ...options,
      ...limits,
      onStory: (figures) => {
        isOver = limits.onStory?.(add(figures)) === false;
        return !isOver;
      },
      seed: (seed + round * SEED_STEP) % 2 ** 32,
      kind: scenario.kind,
      ...(samples === undefined ? {} : { samples }),
    });
    Object.assign(sum, add(figures));
  }
  return { ...sum, bytes: checked.bytes - before };
}

/**
 * Replays a failure.
 * @throws {CrashFailure} when it still fails
 */
export async function replayScenario(scenario: Scenario, line: string): Promise<void> {
  const { begin, options } = await prepared(scenario);
  await replayCrashes(begin, line, options);
}

/** Returns the line that identifies the scenario and replays its failure. */
export function lineOf(scenario: Scenario, error: unknown, seed: number): string {
  const plan: unknown = error instanceof CrashFailure ? JSON.parse(error.replay) : { seed };
  return JSON.stringify({ scenario: scenario.name, ...(plan as object) });
}
