/** What happens to a source over time: phases of random length, each with one fault. */

import type { Clock } from '../../src/index.ts';
import type { Random } from '../../src/testing/index.ts';

/** Phases last from one of these to the other. */
const PHASE_MS = { least: 2000, most: 900_000 };

/** A phase of a {@link Weather}. */
export interface Phase<Kind extends string> {
  readonly kind: Kind | 'fair';
  readonly startMs: number;
  endMs: number;
  /** The weather ended within this phase. A request that it made wait may wait until the phase would have ended. */
  isCut?: boolean;
  /** When a request met the fault. */
  readonly hits: number[];
}

export interface WeatherOptions {
  /** Scales the length of the phases. Default: 1. */
  readonly scale?: number;
}

export class Weather<Kind extends string> {
  readonly phases: Phase<Kind>[] = [];
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #kinds: readonly Kind[];
  readonly #scale: number;
  /** The kinds that come next. Each of them comes once before one comes again. */
  #bag: Kind[] = [];
  #isOver = false;

  constructor(clock: Clock, random: Random, kinds: readonly Kind[], { scale = 1 }: WeatherOptions = {}) {
    this.#clock = clock;
    this.#random = random;
    this.#kinds = kinds;
    this.#scale = scale;
  }

  /** The present phase. Phases of a fault and fair ones take turns. */
  get now(): Phase<Kind> {
    const nowMs = this.#clock.now();
    let phase = this.phases.at(-1);
    while (phase === undefined || (phase.endMs <= nowMs && !this.#isOver)) {
      phase = this.#next(phase);
      this.phases.push(phase);
    }
    return phase;
  }

  /** Kinds of fault that no request has met. */
  get unmet(): Kind[] {
    return this.#kinds.filter((kind) => !this.phases.some((phase) => phase.kind === kind && phase.hits.length > 0));
  }

  /** Returns the fault that a request meets now. */
  meet(): Kind | undefined {
    const { kind, hits } = this.now;
    if (kind === 'fair') return undefined;
    hits.push(this.#clock.now());
    return kind;
  }

  /** From now on the weather is fair. */
  end(): void {
    if (this.#isOver) return;
    const nowMs = this.#clock.now();
    Object.assign(this.now, { endMs: nowMs, isCut: true });
    this.#isOver = true;
    this.phases.push({ kind: 'fair', startMs: nowMs, endMs: Number.POSITIVE_INFINITY, hits: [] });
  }

  #next(before: Phase<Kind> | undefined): Phase<Kind> {
    const startMs = before?.endMs ?? this.#clock.now();
    // A fault that no request has met comes again.
    if (before !== undefined && before.kind !== 'fair' && before.hits.length === 0) this.#bag.unshift(before.kind);
    const isFair = before === undefined || (before.kind !== 'fair' && !this.#random.oneIn(4));
    if (!isFair && this.#bag.length === 0) this.#bag = this.#random.shuffle([...this.#kinds]);
    // Short and long phases are equally likely.
    const factor = (PHASE_MS.most / PHASE_MS.least) ** (this.#random.below(1000) / 1000);
    const lengthMs = PHASE_MS.least * factor * this.#scale;
    return { kind: isFair ? 'fair' : this.#bag.pop()!, startMs, endMs: startMs + lengthMs, hits: [] };
  }
}
