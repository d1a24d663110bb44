/**
 * The coverage-guided fuzzer as a command.
 *
 *   npm run test:fuzz -- --guided [--target NAME] [--for 10m | --runs N] [--seed N] [--workers N]
 *     [--keep] [--replay FILE]
 *
 * Without --target all targets run, for that time each. --workers: how many run at a time, default all processors.
 * --keep: the inputs that reach something new are kept in test/fixtures/fuzz. --replay: runs one input that a failure
 * has saved.
 */

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { duration, UsageError, wholeNumber } from '../../support/option-values.ts';
import { keepInputs, keptInputs } from './corpus.ts';
import type { Figures } from './engine.ts';
import { type GuidedResult, guided } from './guided.ts';
import { type GuidedBuild, guidedBuild, removeBuild } from './instrumented-build.ts';
import { TARGETS, TESTED } from './targets.ts';

const FOR_MS = 120_000;
/** Kept inputs of one target have at most this many bytes in all, uncompressed. */
const MAX_KEPT_BYTES = 2 ** 19;

interface Options {
  readonly targets: readonly string[];
  readonly forMs: number;
  readonly runs: number | undefined;
  readonly seed: number;
  readonly workers: number;
  readonly keep: boolean;
  readonly replay: string | undefined;
}

function optionsFrom(args: string[]): Options {
  try {
    const { values } = parseArgs({
      args,
      options: {
        guided: { type: 'boolean' },
        target: { type: 'string', multiple: true },
        for: { type: 'string' },
        runs: { type: 'string' },
        seed: { type: 'string' },
        workers: { type: 'string' },
        keep: { type: 'boolean', default: false },
        replay: { type: 'string' },
      },
    });
    const { target: targets = Object.keys(TARGETS), runs, replay, workers } = values;
    const unknown = targets.find((target) => !(target in TARGETS));
    if (unknown !== undefined)
      throw new UsageError(`--target ${unknown}: expected one of ${Object.keys(TARGETS).join(', ')}`);
    if (replay !== undefined && targets.length !== 1) throw new UsageError('--replay needs --target');
    return {
      targets,
      replay,
      keep: values.keep,
      forMs: values.for === undefined ? FOR_MS : duration(values.for),
      workers: workers === undefined ? availableParallelism() : Math.max(1, wholeNumber(workers, 'workers')),
      runs: runs === undefined ? undefined : wholeNumber(runs, 'runs'),
      seed: values.seed === undefined ? Date.now() % 1e9 : wholeNumber(values.seed, 'seed'),
    };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function show(target: string, { runs, seconds, reached, reachedAtFirst }: Figures): string {
  const number = (value: number): string => value.toLocaleString('en');
  const each = `${number(runs)} inputs in ${seconds.toFixed(0)} s, ${number(Math.round(runs / seconds))} a second`;
  return `${target}: ${each}; ${number(reached)} places reached, ${number(reached - reachedAtFirst)} of them new`;
}

/** Saves the input of a failure. Returns the command that replays it. */
function saved(target: string, { input, message }: NonNullable<GuidedResult['failure']>): string {
  const folder = join('build', 'fuzz');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${target}-${createHash('sha256').update(input).digest('hex').slice(0, 12)}`);
  writeFileSync(path, input);
  return `FAILED ${target}: ${message}\n  npm run test:fuzz -- --guided --target ${target} --replay ${path}`;
}

async function corpusOf(target: string): Promise<Uint8Array[]> {
  const kept = keptInputs(target);
  // The seeds are among the kept inputs, as far as they reach something.
  if (kept.length > 0) return kept;
  const seeds: Uint8Array[] = [];
  for await (const seed of TARGETS[target]!.seeds()) seeds.push(seed);
  return seeds;
}

/** Returns as many inputs as may be kept. The most important ones are first. */
function bounded(inputs: readonly Uint8Array[]): Uint8Array[] {
  let left = MAX_KEPT_BYTES;
  return inputs.filter((input) => (left -= input.length) >= 0);
}

async function fuzz(build: GuidedBuild, target: string, options: Options): Promise<boolean> {
  const { forMs, runs, seed, keep } = options;
  const result = await guided(build, {
    target,
    seed,
    corpus: await corpusOf(target),
    ...(runs === undefined ? { forMs } : { runs }),
    onProgress: (figures) => console.error(show(target, figures)),
  });
  console.log(show(target, result.figures));
  if (result.failure !== undefined) console.log(saved(target, result.failure));
  else if (keep) {
    const inputs = bounded(result.corpus);
    console.log(
      `${target}: ${inputs.length} of ${result.corpus.length} inputs kept, ${keepInputs(target, inputs)} bytes`,
    );
  }
  return result.failure === undefined;
}

/** Runs the command. Resolves to the exit code: 0 if no input failed, 1 if one did, 2 for wrong usage. */
export async function main(args: string[]): Promise<number> {
  let build: GuidedBuild | undefined;
  try {
    const options = optionsFrom(args);
    if (options.replay !== undefined) {
      await TARGETS[options.targets[0]!]!.run(new Uint8Array(readFileSync(options.replay)));
      console.log('the input does not fail');
      return 0;
    }
    build = await guidedBuild({ entry: 'test/fuzz/guided/worker.ts', instrument: TESTED });
    console.log(`seed ${options.seed}`);
    let isGood = true;
    const waiting = [...options.targets];
    const work = async (): Promise<void> => {
      for (let target = waiting.shift(); target !== undefined; target = waiting.shift())
        isGood = (await fuzz(build!, target, options)) && isGood;
    };
    await Promise.all(Array.from({ length: options.workers }, work));
    return isGood ? 0 : 1;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`test:fuzz: ${error.message}`);
    return 2;
  } finally {
    if (build !== undefined) await removeBuild(build);
  }
}
