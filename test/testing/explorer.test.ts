import { describe, expect, it } from 'vitest';
import type { FileSystem } from '../../src/index.ts';
import {
  CrashFailure,
  CrashingFileSystem,
  type ExplorerOptions,
  exploreCrashes,
  replayCrashes,
  type Story,
} from '../../src/testing/index.ts';

const SECTOR = 512;

/** A counter in two slots of a sector each; the newer slot counts. */
async function openCounter(
  fileSystem: FileSystem,
  syncs: boolean,
): Promise<{ value: number; increment(): Promise<void> }> {
  const file = await fileSystem.open('counter', { create: true });
  const values = [0];
  for (const offset of [0, SECTOR]) {
    const slot = new Uint32Array(SECTOR / 4);
    if ((await file.size()) >= offset + SECTOR) await file.read(new Uint8Array(slot.buffer), offset);
    if (slot.every((word) => word === slot[0])) values.push(slot[0]!);
  }
  const counter = {
    value: Math.max(...values),
    increment: async (): Promise<void> => {
      const next = counter.value + 1;
      await file.write(new Uint8Array(new Uint32Array(SECTOR / 4).fill(next).buffer), (next % 2) * SECTOR);
      if (syncs) await file.sync();
      counter.value = next;
    },
  };
  return counter;
}

function counterStory(syncs: boolean): () => Story {
  return () => {
    let promised = 0;
    return {
      work: async ({ fileSystem }) => {
        const counter = await openCounter(fileSystem, syncs);
        for (let count = 0; count < 4; count++) {
          await counter.increment();
          promised = counter.value;
        }
      },
      recover: async ({ fileSystem }) => {
        const { value } = await openCounter(fileSystem, syncs);
        if (value < promised || value > promised + 1) throw new Error(`${promised} was promised, ${value} was found`);
      },
    };
  };
}

async function failureOf(begin: () => Story, options: ExplorerOptions): Promise<CrashFailure> {
  const failure: unknown = await exploreCrashes(begin, options).then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(failure instanceof CrashFailure)) throw new Error(`no failure was found: ${String(failure)}`);
  return failure;
}

describe('an explorer', () => {
  it('crashes a story at each of its operations, in every life', async () => {
    const places = new Set<number>();
    const begin = (): Story => ({
      work: async ({ fileSystem }) => {
        const file = await fileSystem.open('a', { create: true });
        for (let count = 0; count < 9; count++) await file.write(Uint8Array.of(count), count);
      },
      recover: async ({ fileSystem, number, isLast }) => {
        if (number !== 1) return;
        const file = await fileSystem.open('a', { create: true });
        expect(isLast).toBe(true);
        places.add(await file.size());
      },
    });
    const figures = await exploreCrashes(begin, { kind: 'process', crashes: 1 });
    expect(figures).toMatchObject({ crashes: 10, stories: 12 });
    expect(places.size).toBeGreaterThan(8);
  });

  it('tries every combination of two crashes with depth 2', async () => {
    const seen = new Set<string>();
    const begin = (): Story => {
      const lives: number[] = [];
      const three = async (fileSystem: FileSystem): Promise<void> => {
        for (let count = 1; count <= 3; count++) {
          lives[lives.length - 1] = count;
          await fileSystem.remove('a');
        }
        lives[lives.length - 1] = 4;
      };
      return {
        work: async ({ fileSystem }) => {
          lives.push(0);
          await three(fileSystem);
        },
        recover: async ({ fileSystem, isLast }) => {
          lives.push(0);
          await three(fileSystem);
          if (isLast) seen.add(lives.join(' '));
        },
      };
    };
    const { crashes } = await exploreCrashes(begin, { crashes: 2, depth: 2 });
    expect([...seen].sort()).toEqual([
      '1 1 4',
      '1 2 4',
      '1 3 4',
      '1 4 4',
      '2 1 4',
      '2 2 4',
      '2 3 4',
      '2 4 4',
      '3 1 4',
      '3 2 4',
      '3 3 4',
      '3 4 4',
      '4 4',
    ]);
    expect(crashes).toBe(9 * 2 + 3);
  });

  it('finds no failure in correct code', async () => {
    for (let seed = 0; seed < 10; seed++) {
      for (const kind of ['process', 'power', 'loss', 'mixed'] as const)
        await exploreCrashes(counterStory(true), { seed, kind, crashes: 3 });
    }
  });

  it.each(['power', 'loss'] as const)(
    'finds a missing sync by crashes of kind %s, not of kind process, and replays the failure',
    async (kind) => {
      await exploreCrashes(counterStory(false), { kind: 'process', crashes: 3 });
      const failure = await failureOf(counterStory(false), { kind });
      expect(failure.message).toContain('was promised');
      expect(failure.replay).toContain(`"${kind}"`);
      await expect(replayCrashes(counterStory(false), failure.replay)).rejects.toMatchObject({
        name: 'CrashFailure',
        replay: failure.replay,
      });
      await replayCrashes(counterStory(true), failure.replay);
    },
  );

  it('mixes all kinds of crashes by default', async () => {
    const kinds = new Set<unknown>();
    const begin = (): Story => ({
      work: async ({ fileSystem }) => fileSystem.remove('a'),
      recover: async ({ crash }) => void kinds.add(crash),
    });
    for (let seed = 0; seed < 20; seed++) await exploreCrashes(begin, { seed, crashes: 1 });
    expect([...kinds].sort()).toEqual(['loss', 'power', 'process']);
  });

  it('repeats a run with the same seed, and differs with another seed', async () => {
    const run = (seed: number): Promise<unknown> => exploreCrashes(counterStory(true), { seed, crashes: 4 });
    expect(await run(1)).toEqual(await run(1));
    expect(await run(1)).not.toEqual(await run(2));
  });

  it('tries the given number of random places, and stops on request', async () => {
    expect(await exploreCrashes(counterStory(true), { samples: 7, crashes: 1 })).toMatchObject({
      stories: 8,
      crashes: 7,
    });
    expect(await exploreCrashes(counterStory(true), { onStory: ({ stories }) => stories < 3 })).toMatchObject({
      stories: 3,
    });
  });

  it('starts each story with the same files', async () => {
    const initial = new CrashingFileSystem();
    const file = await initial.open('a', { create: true });
    await file.write(Uint8Array.of(1), 0);
    await file.sync();
    const begin = (): Story => ({
      work: async ({ fileSystem }) => {
        const found = await fileSystem.open('a');
        expect(await found.size()).toBe(1);
        await found.write(Uint8Array.of(1, 2, 3), 0);
        await found.sync();
      },
      recover: async ({ fileSystem }) => {
        const found = await fileSystem.open('a');
        expect(await found.size()).toBeGreaterThan(0);
      },
    });
    await exploreCrashes(begin, { initial });
  });

  it.each([
    ['awaits a promise that never settles', 'deadlock', (): Promise<void> => new Promise(() => undefined)],
    [
      'sleeps endlessly',
      'simulated milliseconds',
      async ({ clock }: Parameters<Story['work']>[0]): Promise<void> => {
        for (;;) await clock.sleep(1000);
      },
    ],
    [
      'works endlessly',
      'has not ended after 500 storage operations',
      async ({ fileSystem }: Parameters<Story['work']>[0]): Promise<void> => {
        for (;;) await fileSystem.remove('a');
      },
    ],
  ])('reports code that %s', async (_, message, work) => {
    const failure = await failureOf(() => ({ work, recover: async () => undefined }), { maxOperations: 500 });
    expect(failure.message).toContain(message);
  });

  it.each([
    ['COD_CORRUPT', ''],
    ['COD_CORRUPT', 'null'],
    ['COD_CORRUPT', '{"version":1}'],
    ['COD_CORRUPT', '{"version":1,"seed":0,"crashes":[[0,"power",1,0]]}'],
    ['COD_CORRUPT', '{"version":1,"seed":0,"crashes":[[1,"fire",1,0]]}'],
    ['COD_CORRUPT', '{"version":1,"seed":0.5,"crashes":[]}'],
    ['COD_VERSION', '{"version":2,"seed":0,"crashes":[]}'],
  ])('refuses with %s to replay %s', async (code, line) => {
    await expect(replayCrashes(counterStory(true), line)).rejects.toMatchObject({ name: 'CodError', code });
  });
});
