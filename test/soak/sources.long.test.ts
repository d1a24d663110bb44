/**
 * Ten simulated hours of a source with faults. `COD_SOAK_SEED` is the first seed, `COD_SOAK_RUNS` the number of runs.
 */

import { setImmediate as immediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { type Clock, CodError, httpSource, type Source } from '../../src/index.ts';
import { CrashingFileSystem, type Random, SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { HTTP_FAULTS, type HttpFault, planOf, type ServedImage } from './http-faults.ts';
import { simulatedServer } from './simulated-server.ts';
import { type SoakFigures, type SoakOptions, soak } from './soak.ts';
import { Weather } from './weather.ts';

const HOUR_MS = 3_600_000;
const LENGTH_MS = 10 * HOUR_MS;
const TEST_MS = 900_000;
const RUNS = Number(process.env['COD_SOAK_RUNS'] ?? 3);
const FIRST_SEED = Number(process.env['COD_SOAK_SEED'] ?? 1);

/** The faults of a source without retries of its own. */
const BARE_FAULTS = [
  'absent',
  'not found',
  'short read',
  'ends early',
  'too many bytes',
  'hangs',
  'another image',
  'another size',
] as const;
type BareFault = (typeof BARE_FAULTS)[number];

/** Runs a soak with each seed. A failure prints the command that repeats it. */
async function eachSeed(name: string, run: (seed: number) => Promise<SoakFigures>): Promise<void> {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + RUNS; seed++) {
    try {
      const figures = await run(seed);
      console.log(`${name}, seed ${seed}: ${JSON.stringify(figures)}`);
      expect(figures.copies).toBeGreaterThan(3);
    } catch (cause) {
      const settings = `COD_SOAK_SEED=${seed} COD_SOAK_RUNS=1`;
      const command = `${settings} npx vitest run --project long test/soak/sources.long.test.ts -t '${name}'`;
      throw new Error(`${(cause as Error).message}\nto repeat: ${command}`, { cause });
    }
  }
}

/** Runs a soak in simulated time. */
async function simulate<Kind extends string>(
  seed: number,
  kinds: readonly Kind[],
  make: (
    clock: SimulatedClock,
    weather: Weather<Kind>,
    random: Random,
  ) => Pick<SoakOptions<Kind>, 'publish' | 'isTold'>,
): Promise<SoakFigures> {
  const clock = new SimulatedClock({ settle: () => immediate() });
  const random = seededRandom(seed);
  const weather = new Weather(clock, random.fork(), kinds);
  const work = soak({
    clock,
    random: random.fork(),
    fileSystem: new CrashingFileSystem({ bootId: 'boot' }),
    weather,
    imageBytes: 3 * 2 ** 20,
    lengthMs: LENGTH_MS,
    lifeMs: 600_000,
    pauseMs: 30_000,
    noticeMs: 90_000,
    endMs: 1000,
    ...make(clock, weather, random.fork()),
  });
  // The last copy begins before the end, and completes in fair weather.
  const figures = await clock.run(work, { limitMs: LENGTH_MS + HOUR_MS });
  expect(weather.unmet, 'faults that no request has met').toEqual([]);
  return figures;
}

test('a source over HTTP that has every fault', { timeout: TEST_MS }, async () => {
  await eachSeed('a source over HTTP', (seed) =>
    simulate(seed, Object.keys(HTTP_FAULTS) as HttpFault[], (clock, weather, random) => {
      let image: ServedImage;
      const connect = simulatedServer(clock, (ask) => planOf(weather.meet(), ask, image, random));
      return {
        isTold: (kind) => HTTP_FAULTS[kind] === 'told',
        publish: (bytes, copy) => {
          image = { bytes, etag: `"v${copy}"` };
          const jitter = (): number => random.below(1000) / 1000;
          const open = (onRetry: () => void) =>
            httpSource('http://server/disk.img', {
              clock,
              random: jitter,
              transport: connect(),
              retry: { onRetry },
            });
          return { identity: `etag:${image.etag}`, open };
        },
      };
    }),
  );
});

test('a source without retries of its own that has every fault', { timeout: TEST_MS }, async () => {
  await eachSeed('a source without retries', (seed) =>
    simulate(seed, BARE_FAULTS, (clock, weather, random) => ({
      isTold: () => true,
      publish: (bytes, copy) => {
        const identity = `v${copy}`;
        return { identity, open: () => openBare({ bytes, identity, clock, weather, random }) };
      },
    })),
  );
});

interface Bare {
  readonly bytes: Uint8Array;
  readonly identity: string;
  readonly clock: Clock;
  readonly weather: Weather<BareFault>;
  readonly random: Random;
}

async function openBare({ bytes, identity, clock, weather, random }: Bare): Promise<Source> {
  const arrive = async (signal?: AbortSignal): Promise<BareFault | undefined> => {
    await clock.sleep(20, signal);
    const fault = weather.meet();
    if (fault === 'absent') throw new CodError('COD_SOURCE_IO', 'no answer');
    if (fault === 'not found') throw new CodError('COD_NOT_FOUND', 'no such image');
    if (fault !== 'hangs') return fault;
    await clock.sleep(weather.now.endMs - clock.now(), signal);
    throw new CodError('COD_SOURCE_IO', 'no answer in the end');
  };
  const opening = await arrive();
  const isOther = opening === 'another image' || opening === 'another size';
  const content = isOther ? bytes.map((byte) => ~byte) : bytes;
  const arriveAgain = async (signal?: AbortSignal): Promise<BareFault | undefined> => {
    const fault = await arrive(signal);
    if ((fault === 'another image' || fault === 'another size') !== isOther)
      throw new CodError('COD_SOURCE_CHANGED', 'it is another image now');
    return fault;
  };
  return {
    size: bytes.length + (opening === 'another size' ? 1 : 0),
    identity: isOther ? 'other' : identity,
    read: async (into, offset, { signal } = {}) => {
      const fault = await arriveAgain(signal);
      if (fault === 'short read' || fault === 'ends early' || fault === 'too many bytes') {
        random.fill(into);
        throw new CodError('COD_SHORT_READ', `${into.length} bytes at ${offset} are not there`);
      }
      into.set(content.subarray(offset, offset + into.length));
    },
    stream: async function* (offset, length, { signal } = {}) {
      const end = offset + length;
      for (let at = offset; at < end; ) {
        const fault = await arriveAgain(signal);
        if (fault === 'short read') throw new CodError('COD_SHORT_READ', 'the stream is short');
        if (fault === 'ends early') return;
        const next = Math.min(end, at + 1 + random.below(65_536));
        await clock.sleep((next - at) / 10, signal);
        yield fault === 'too many bytes' ? new Uint8Array(end - at + 1).fill(0xdb) : content.slice(at, next);
        at = next;
      }
    },
    close: async () => undefined,
  };
}
