/**
 * The coverage-guided fuzzer, in the worker that has the instrumented bundle.
 *
 * An input is added to the corpus if it makes a counter reach a new class of values. The classes are 1, 2, 3, 4 to 7,
 * 8 to 15, 16 to 31, 32 to 127, 128 and more. A run with the same seed, corpus and number of inputs is the same run, as
 * far as the target is deterministic.
 *
 * An input fails if its target rejects, if it allocates without bound, or if it takes too long. Too long is more than a
 * second by the clock, and then twice more than a second of a processor. The parent sees inputs that never end, since
 * each input is in shared memory while it runs.
 */

import { readFileSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { type Random, seededRandom } from '../../../src/testing/random.ts';
import { runtime } from './install.ts';
import type { Literal } from './instrument.ts';
import { mutated, wordsOf } from './mutate.ts';
import type { Compared } from './runtime.ts';
import type { Target } from './target.ts';

/** What the parent passes to the worker. */
export interface Job {
  readonly target: string;
  readonly seed: number;
  readonly corpus: readonly Uint8Array[];
  readonly forMs: number;
  readonly maxRuns: number;
  readonly counters: number;
  readonly sources: readonly { readonly first: number; readonly literals: readonly Literal[] }[];
  /** Two words, which are the number of tries and the length of the input, and the input. */
  readonly shared: SharedArrayBuffer;
}

export interface Figures {
  readonly runs: number;
  readonly seconds: number;
  /** Counters that were reached, and those that the first corpus reached. */
  readonly reached: number;
  readonly reachedAtFirst: number;
}

/** What the worker sends. */
export type Message =
  | { readonly kind: 'progress'; readonly figures: Figures }
  /** `corpus`: the inputs that together reach everything, those for new counters first. */
  | { readonly kind: 'done'; readonly figures: Figures; readonly corpus: readonly Uint8Array[] }
  | { readonly kind: 'failure'; readonly figures: Figures; readonly input: Uint8Array; readonly message: string };

const MAX_MS = 1000;
const DEFAULT_MAX_BYTES = 2 ** 16;
const DEFAULT_MAX_ALLOCATED = 2 ** 26;
const ALLOCATED_PER_BYTE = 256;
const PROGRESS_MS = 5000;
const SHRINK_RUNS = 3000;
const SHRINK_MS = 60_000;
const MAX_PAIRS = 200;

interface Entry {
  readonly input: Uint8Array;
  /** What it reached: 8 × counter + class. */
  readonly reached: Uint32Array;
  readonly compared: readonly (readonly [Compared, Compared])[];
}

/** The class of a count, as a bit. */
const CLASSES: Uint8Array = Uint8Array.from({ length: 256 }, (_, count) => {
  if (count <= 3) return count === 0 ? 0 : 1 << (count - 1);
  const limits = [8, 16, 32, 128, 256];
  return 1 << (3 + limits.findIndex((limit) => count < limit));
});

/** Time that this thread has used a processor, or all threads where the system tells no more. */
function threadMs(): number {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;
  } catch {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  }
}

class Engine {
  readonly #target: Target;
  readonly #job: Job;
  readonly #random: Random;
  readonly #head: Int32Array;
  readonly #shared: Uint8Array;
  readonly #words32: Uint32Array;
  /** The classes that each counter has reached. */
  readonly #seen: Uint8Array;
  readonly #corpus: Entry[] = [];
  #words: readonly Uint8Array[] = [];
  #wordsOfEntries = 0;
  #runs = 0;
  #reachedAtFirst = 0;
  readonly #startedMs = performance.now();

  constructor(target: Target, job: Job) {
    this.#target = target;
    this.#job = job;
    this.#random = seededRandom(job.seed);
    this.#head = new Int32Array(job.shared, 0, 2);
    this.#shared = new Uint8Array(job.shared, 8);
    this.#words32 = new Uint32Array(runtime.hits.buffer);
    this.#seen = new Uint8Array(runtime.hits.length);
  }

  figures(): Figures {
    return {
      runs: this.#runs,
      seconds: (performance.now() - this.#startedMs) / 1000,
      reached: this.#seen.reduce((sum, classes) => sum + (classes === 0 ? 0 : 1), 0),
      reachedAtFirst: this.#reachedAtFirst,
    };
  }

  async run(): Promise<Message> {
    const { corpus, forMs, maxRuns } = this.#job;
    for (const input of [new Uint8Array(0), ...corpus]) {
      const failure = await this.#try(input);
      if (failure !== undefined) return failure;
    }
    this.#reachedAtFirst = this.figures().reached;
    const endMs = performance.now() + forMs;
    let shownMs = performance.now();
    while (this.#runs < maxRuns && performance.now() < endMs) {
      const failure = await this.#try(this.#next());
      if (failure !== undefined) return failure;
      if (performance.now() - shownMs < PROGRESS_MS) continue;
      shownMs = performance.now();
      send({ kind: 'progress', figures: this.figures() });
    }
    // No input runs from now on.
    Atomics.store(this.#head, 0, 0);
    return { kind: 'done', figures: this.figures(), corpus: this.#minimized() };
  }

  #next(): Uint8Array {
    const { maxBytes = DEFAULT_MAX_BYTES } = this.#target;
    const entries = this.#corpus;
    const pick = (): Entry => {
      // Half of the inputs come from the newest part of the corpus.
      const from = this.#random.oneIn(2) ? Math.floor(entries.length * 0.75) : 0;
      return entries[from + this.#random.below(entries.length - from)]!;
    };
    const [one, other] = [pick(), pick()];
    const entry = one.input.length <= other.input.length || this.#random.oneIn(2) ? one : other;
    if (this.#wordsOfEntries < entries.length * 0.9 || this.#words.length === 0) this.#renewWords();
    return mutated(
      entry.input,
      { other: other.input, words: this.#words, compared: entry.compared, maxBytes },
      this.#random,
    );
  }

  /** The words are the literals of the sources that were reached. */
  #renewWords(): void {
    const { sources, counters } = this.#job;
    this.#wordsOfEntries = this.#corpus.length;
    const sorted = [...sources].sort((one, other) => one.first - other.first);
    const literals = sorted.flatMap(({ first, literals: own }, index) => {
      const end = sorted[index + 1]?.first ?? counters;
      return this.#seen.subarray(first, end).some((classes) => classes !== 0) ? own : [];
    });
    this.#words = wordsOf(literals);
  }

  /** Runs an input, and adds it to the corpus if it reaches something new. */
  async #try(input: Uint8Array): Promise<Message | undefined> {
    try {
      await this.#execute(input);
    } catch (error) {
      const shortest = await this.#shrunk(input, signatureOf(error));
      return { kind: 'failure', figures: this.figures(), input: shortest, message: textOf(error) };
    }
    const reached = this.#takeNew();
    if (reached === undefined) return undefined;
    runtime.recorded = [];
    try {
      await this.#execute(input);
    } catch (error) {
      return { kind: 'failure', figures: this.figures(), input, message: textOf(error) };
    } finally {
      const pairs = new Map(runtime.recorded.map((pair) => [`${typeof pair[0]} ${pair[0]} ${pair[1]}`, pair]));
      runtime.recorded = undefined;
      this.#corpus.push({ input, reached, compared: [...pairs.values()].slice(0, MAX_PAIRS) });
    }
    return undefined;
  }

  /** @throws what the target throws; an error if the input took too long or allocated too much */
  async #execute(input: Uint8Array): Promise<void> {
    this.#shared.set(input.subarray(0, this.#shared.length));
    this.#head[1] = input.length;
    this.#runs++;
    let ms = 0;
    for (let tries = 0; tries < 3; tries++) {
      Atomics.add(this.#head, 0, 1);
      runtime.hits.fill(0);
      runtime.allocated = 0;
      // Time of a processor counts, but measuring it takes as long as a short input.
      const clock = tries === 0 ? performance.now.bind(performance) : threadMs;
      const startedMs = clock();
      // A copy, which the target may keep or change.
      await this.#target.run(input.slice());
      // Rejections that nothing awaits show only in a turn of the event loop.
      await new Promise(setImmediate);
      ms = clock() - startedMs;
      if (ms <= MAX_MS) break;
    }
    if (ms > MAX_MS) throw new Error(`the input took ${Math.round(ms)} ms of a processor`);
    const { maxAllocated = DEFAULT_MAX_ALLOCATED } = this.#target;
    if (runtime.allocated > maxAllocated + ALLOCATED_PER_BYTE * input.length)
      throw new Error(`the input allocated ${runtime.allocated} elements`);
  }

  /** Notes what the last run has reached. Returns it if some of it is new. */
  #takeNew(): Uint32Array | undefined {
    const reached: number[] = [];
    let isNew = false;
    for (let word = 0; word < this.#words32.length; word++) {
      if (this.#words32[word] === 0) continue;
      for (let at = 4 * word; at < 4 * word + 4; at++) {
        const bit = CLASSES[runtime.hits[at]!]!;
        if (bit === 0) continue;
        if ((this.#seen[at]! & bit) === 0) isNew = true;
        this.#seen[at]! |= bit;
        reached.push(8 * at + Math.log2(bit));
      }
    }
    return isNew ? Uint32Array.from(reached) : undefined;
  }

  /** The smallest inputs that together reach everything: first those for counters, then those for classes. */
  #minimized(): Uint8Array[] {
    const entries = [...this.#corpus].sort((one, other) => one.input.length - other.input.length);
    const kept = new Set<Uint8Array>();
    for (const perCounter of [8, 1]) {
      const seen = new Set<number>();
      for (const { input, reached } of entries) {
        const isNew = reached.some((place) => !seen.has(Math.floor(place / perCounter)));
        if (!kept.has(input) && !isNew) continue;
        kept.add(input);
        for (const place of reached) seen.add(Math.floor(place / perCounter));
      }
    }
    return [...kept];
  }

  /** Returns a short input that fails in the same way. */
  async #shrunk(input: Uint8Array, signature: string): Promise<Uint8Array> {
    const endMs = performance.now() + SHRINK_MS;
    const lastRun = this.#runs + SHRINK_RUNS;
    const fails = async (candidate: Uint8Array): Promise<boolean> => {
      try {
        await this.#execute(candidate);
        return false;
      } catch (error) {
        return signatureOf(error) === signature;
      }
    };
    let best = input;
    for (let length = Math.ceil(input.length / 2); length >= 1; length = length === 1 ? 0 : Math.ceil(length / 2)) {
      for (let at = 0; at < best.length; ) {
        if (this.#runs > lastRun || performance.now() > endMs) return best;
        const shorter = new Uint8Array(Buffer.concat([best.subarray(0, at), best.subarray(at + length)]));
        if (await fails(shorter)) best = shorter;
        else at += length;
      }
    }
    return best;
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Equal for errors of one kind. */
function signatureOf(error: unknown): string {
  const [name, message] = error instanceof Error ? [error.name, error.message] : ['', String(error)];
  return `${name} ${message.slice(0, 60)}`.replace(/\d+/g, '#');
}

function send(message: Message): void {
  parentPort!.postMessage(message);
}

/** Runs the job of this worker with one of `targets`. */
export async function work(targets: Readonly<Record<string, Target>>): Promise<void> {
  const job = workerData as Job;
  Error.stackTraceLimit = 8;
  send(await new Engine(targets[job.target]!, job).run());
  process.exit();
}
