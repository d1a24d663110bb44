/** Runs the fuzzer in a worker, and watches it. */

import type { EventLoopUtilization } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';
import type { Figures, Job, Message } from './engine.ts';
import type { GuidedBuild } from './instrumented-build.ts';

const HANG_MS = 20_000;
const LOOK_MS = 250;
const MAX_HEAP_MIB = 1024;
const SHARED_BYTES = 2 ** 22;

export interface GuidedOptions {
  readonly target: string;
  readonly seed: number;
  /** Inputs to begin with. */
  readonly corpus: readonly Uint8Array[];
  /** Default: no limit, if there are `runs`. */
  readonly forMs?: number;
  /** Default: no limit, if there is `forMs`. */
  readonly runs?: number;
  /**
   * An input that has not ended counts as hanging after this time of a processor, or after this time in which its
   * worker waits. The worker itself notices slow inputs that end. Default: 20 s.
   */
  readonly hangMs?: number;
  readonly onProgress?: (figures: Figures) => void;
}

export interface GuidedResult {
  readonly figures: Figures;
  /** The inputs that together reach everything. Empty after a failure. */
  readonly corpus: readonly Uint8Array[];
  readonly failure?: { readonly input: Uint8Array; readonly message: string };
}

/** Workers of this process. Each has used about the same time of a processor. */
let workers = 0;

/** Measures how long the latest input of a worker has run. Other programs may slow it down without limit. */
class Watch {
  readonly #worker: Worker;
  readonly #head: Int32Array;
  #run = 0;
  #usage = process.cpuUsage();
  #utilization: EventLoopUtilization;

  constructor(worker: Worker, head: Int32Array) {
    this.#worker = worker;
    this.#head = head;
    this.#utilization = worker.performance.eventLoopUtilization();
  }

  isHanging(hangMs: number): boolean {
    const run = Atomics.load(this.#head, 0);
    if (run === 0 || run !== this.#run) {
      this.#run = run;
      this.#usage = process.cpuUsage();
      this.#utilization = this.#worker.performance.eventLoopUtilization();
      return false;
    }
    const { user, system } = process.cpuUsage(this.#usage);
    const { idle } = this.#worker.performance.eventLoopUtilization(this.#utilization);
    return (user + system) / 1000 / workers > hangMs || idle > hangMs;
  }
}

/** Fuzzes one target until the time is over, or an input has failed. */
export function guided(build: GuidedBuild, options: GuidedOptions): Promise<GuidedResult> {
  const { target, seed, corpus, forMs = Number.MAX_SAFE_INTEGER, runs = Number.MAX_SAFE_INTEGER } = options;
  const shared = new SharedArrayBuffer(SHARED_BYTES);
  const { counters, sources } = build;
  const job: Job = { target, seed, corpus, forMs, maxRuns: runs, counters, sources, shared };
  const head = new Int32Array(shared, 0, 2);
  let figures: Figures = { runs: 0, seconds: 0, reached: 0, reachedAtFirst: 0 };
  return new Promise((resolve) => {
    const worker = new Worker(build.bundle, {
      workerData: job,
      execArgv: ['--enable-source-maps'],
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB },
    });
    workers++;
    const watch = new Watch(worker, head);
    const end = (result: Omit<GuidedResult, 'figures'>): void => {
      clearInterval(timer);
      workers--;
      worker.removeAllListeners();
      worker.on('error', () => undefined);
      void worker.terminate().then(() => resolve({ figures, ...result }));
    };
    const fail = (message: string): void =>
      end({ corpus: [], failure: { input: new Uint8Array(shared, 8, head[1]).slice(), message } });
    const timer = setInterval(() => {
      if (watch.isHanging(options.hangMs ?? HANG_MS)) fail('the input does not end');
    }, LOOK_MS);
    worker.on('message', (message: Message) => {
      figures = message.figures;
      if (message.kind === 'progress') options.onProgress?.(figures);
      else if (message.kind === 'done') end({ corpus: message.corpus });
      else end({ corpus: [], failure: { input: message.input, message: message.message } });
    });
    worker.on('error', (error: Error) => fail(`outside of the target's promise: ${error.stack}`));
    worker.on('exit', () => fail('the input never ends: no event is left that could settle it'));
  });
}
