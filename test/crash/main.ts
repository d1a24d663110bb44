/**
 * The campaign as a command.
 *
 *   npm run test:crash [-- --seed N] [--crashes N | --for 1h] [--only REGEX] [--workers N] [--replay LINE]
 *
 * --crashes: whole passes over all scenarios until at least N crashes were explored. --for: as many scenarios as fit in
 * the time. --only: the scenarios whose name matches, such as 'owners' or 'faults.*power'.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { duration, UsageError, wholeNumber } from '../support/option-values.ts';
import type { CampaignFigures } from './campaign.ts';
import type { Failure, Hello, Job, JobResult } from './jobs.ts';
import { patchedBuild } from './patched-build.ts';
import { SMALL_CONSTANTS } from './small-constants.ts';

const CRASHES = 20_000;
/** A scenario that takes longer is stopped as hanging. */
const JOB_MS = 900_000;
const PROGRESS_MS = 10_000;

interface Options {
  readonly seed: number;
  readonly crashes: number;
  readonly forMs: number | undefined;
  readonly only: RegExp;
  readonly workers: number;
  readonly replay: string | undefined;
}

function optionsFrom(args: string[]): Options {
  try {
    const { values } = parseArgs({
      args,
      options: {
        seed: { type: 'string', default: '1' },
        crashes: { type: 'string', default: String(CRASHES) },
        for: { type: 'string' },
        only: { type: 'string', default: '' },
        workers: { type: 'string', default: String(availableParallelism()) },
        replay: { type: 'string' },
      },
    });
    return {
      seed: wholeNumber(values.seed, 'seed'),
      crashes: wholeNumber(values.crashes, 'crashes'),
      forMs: values.for === undefined ? undefined : duration(values.for),
      only: new RegExp(values.only),
      workers: Math.max(1, wholeNumber(values.workers, 'workers')),
      replay: values.replay,
    };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** A worker process with one job at a time. */
class Worker {
  readonly #child: ChildProcess;
  #answer: ((message: unknown) => void) | undefined;
  readonly hello: Promise<Hello>;

  constructor(bundle: string) {
    this.#child = fork(fileURLToPath(bundle), {
      // Lives and their allocations are short. This young generation runs a quarter more lives than the default one.
      execArgv: ['--enable-source-maps', '--max-semi-space-size=64'],
    });
    this.hello = this.#next().then((message) => message as Hello);
    this.#child.on('message', (message) => this.#answer?.(message));
    this.#child.on('exit', (code, signal) =>
      this.#answer?.({ failure: { name: '', message: `the worker exited with ${signal ?? code}`, line: '' } }),
    );
  }

  async run(job: Job): Promise<JobResult> {
    const answer = this.#next();
    this.#child.send(job);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), JOB_MS);
    try {
      return (await answer) as JobResult;
    } finally {
      clearTimeout(timer);
    }
  }

  end(): void {
    this.#child.kill();
  }

  #next(): Promise<unknown> {
    return new Promise((resolve) => {
      this.#answer = resolve;
    });
  }
}

function summary({ crashes, stories, lives, operations, bytes }: CampaignFigures, startedAt: number): string {
  const seconds = (performance.now() - startedAt) / 1000;
  const number = (value: number): string => value.toLocaleString('en');
  return [
    `${number(crashes)} crashes in ${number(stories)} stories of ${number(lives)} lives, `,
    `${number(operations)} storage operations, ${number(bytes)} bytes checked; `,
    `${seconds.toFixed(0)} s, ${(crashes / seconds).toFixed(0)} crashes a second`,
  ].join('');
}

async function replay(worker: Worker, text: string): Promise<number> {
  let line: { scenario?: unknown } | null;
  try {
    line = JSON.parse(text) as typeof line;
  } catch {
    throw new UsageError('--replay: expected the line that a failure printed');
  }
  const { scenario, ...plan } = line ?? {};
  const index = (await worker.hello).scenarios.indexOf(String(scenario));
  if (index < 0) throw new UsageError(`--replay: there is no scenario ${String(scenario)}`);
  const { failure } = await worker.run({ scenario: index, seed: 0, replay: JSON.stringify(plan) });
  console.log(failure === undefined ? 'the replay does not fail' : failure.message);
  return failure === undefined ? 0 : 1;
}

async function campaign(workers: readonly Worker[], options: Options): Promise<number> {
  const startedAt = performance.now();
  const { scenarios } = await workers[0]!.hello;
  const chosen = [...scenarios.keys()].filter((index) => options.only.test(scenarios[index]!));
  if (chosen.length === 0) throw new UsageError(`--only ${options.only.source}: no scenario has such a name`);
  const sum: CampaignFigures = { stories: 0, lives: 0, crashes: 0, operations: 0, bytes: 0 };
  const failures: Failure[] = [];
  let next = 0;
  let shownAt = startedAt;
  const isOver = (): boolean => {
    if (failures.length > 0) return true;
    if (options.forMs !== undefined) return performance.now() - startedAt >= options.forMs;
    return next % chosen.length === 0 && next > 0 && sum.crashes >= options.crashes;
  };
  const work = async (worker: Worker): Promise<void> => {
    await worker.hello;
    while (!isOver()) {
      const scenario = chosen[next % chosen.length]!;
      const job: Job = { scenario, seed: (options.seed + Math.floor(next++ / chosen.length)) % 2 ** 32 };
      const { figures, failure } = await worker.run(job);
      if (failure !== undefined) {
        failures.push({
          ...failure,
          name: failure.name || scenarios[scenario]!,
          line: failure.line || JSON.stringify({ scenario: scenarios[scenario], seed: job.seed }),
        });
      }
      if (figures === undefined) continue;
      for (const key of Object.keys(sum) as (keyof CampaignFigures)[]) sum[key] += figures[key];
      if (performance.now() - shownAt < PROGRESS_MS) continue;
      shownAt = performance.now();
      console.error(summary(sum, startedAt));
    }
  };
  await Promise.all(workers.map(work));
  for (const { name, message, line } of failures)
    console.log(`FAILED ${name}: ${message}\n  npm run test:crash -- --replay '${line}'`);
  console.log(`seed ${options.seed}, ${next} scenarios: ${summary(sum, startedAt)}`);
  return failures.length > 0 ? 1 : 0;
}

/** Runs the command. Resolves to the exit code: 0 if all promises held, 1 if one was broken, 2 for wrong usage. */
export async function main(args: string[]): Promise<number> {
  const workers: Worker[] = [];
  let bundle: string | undefined;
  try {
    const options = optionsFrom(args);
    bundle = await patchedBuild('test/crash/worker.ts', 'worker', SMALL_CONSTANTS);
    for (let count = options.replay === undefined ? options.workers : 1; count > 0; count--)
      workers.push(new Worker(bundle));
    return options.replay === undefined ? await campaign(workers, options) : await replay(workers[0]!, options.replay);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`test:crash: ${error.message}`);
    return 2;
  } finally {
    for (const worker of workers) worker.end();
    if (bundle !== undefined) await rm(new URL(bundle), { force: true });
  }
}
