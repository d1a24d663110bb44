/** How fast a copy may be: as `--rate` says, as a file says that may change, and as the others of a group leave room. */

import type { Device } from '../device/types.ts';
import type { Clock } from '../platform/clock.ts';
import { systemClock } from '../platform/system-clock.ts';
import { UsageError } from './failure.ts';
import type { Emit } from './json-lines.ts';
import { RateFile } from './rate-file.ts';
import { RateGroup } from './rate-group.ts';
import { BEAT_MS } from './rate-share.ts';

/** Options of a command that copies, parsed. */
export interface RateFlags {
  /** Bytes per second; with a group, of all its members together. */
  readonly rate?: number;
  /** A file that says the rate, and may be changed. */
  readonly rateFile?: string;
  readonly rateGroup?: string;
}

/** What holds at the moment. */
export interface Allowance {
  /** Bytes per second of this copy; undefined: no limit. */
  readonly rate: number | undefined;
  /** How many share; undefined without a group. */
  readonly members: number | undefined;
}

/** What is told while the rate is being looked after. */
export interface RateHooks {
  /** The rate, or the number of those who share, is another one; with a file or a group called with the first one too. */
  onRate?(allowance: Allowance): void;
  /** Something is wrong with the file or the group; the rate stays as it is. Called once for each new message. */
  onProblem(message: string): void;
}

/** Tells scripts of the rate, and people of what is wrong with it. */
export function rateHooks(emit: Emit): RateHooks {
  return {
    onRate: ({ rate, members }) => emit('rate', { bytesPerSecond: rate ?? null, members: members ?? null }),
    onProblem: (message) => process.stderr.write(`copyondemand: ${message}\n`),
  };
}

export class RateControl {
  readonly #fallback: number | undefined;
  readonly #file: RateFile | undefined;
  readonly #group: RateGroup | undefined;
  readonly #hooks: RateHooks;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  #allowance: Allowance;
  #problem = '';

  /**
   * Reads the rate file and joins the group.
   * @throws {@link UsageError} for a group without a rate, and for a file that says no rate; {@link CodError} if either cannot be used
   */
  constructor(flags: RateFlags, hooks: RateHooks, clock: Clock = systemClock) {
    const { rate, rateFile, rateGroup } = flags;
    if (rateGroup !== undefined && rate === undefined && rateFile === undefined) {
      throw new UsageError('--rate-group needs --rate or --rate-file: what the group takes in all');
    }
    this.#fallback = rate;
    this.#file = rateFile === undefined ? undefined : new RateFile(rateFile, rate);
    this.#group = rateGroup === undefined ? undefined : new RateGroup(rateGroup);
    this.#hooks = hooks;
    this.#clock = clock;
    this.#file?.read();
    this.#allowance = this.#look();
  }

  /** Bytes per second; to open the device with. */
  get rate(): number | undefined {
    return this.#allowance.rate;
  }

  /** Looks after the rate of a device until its background copy is over, or `stop` is called. */
  govern(device: Pick<Device, 'setRate' | 'hydrated'>): void {
    const stop = () => this.stop();
    device.hydrated.then(stop, stop);
    void this.#run(device);
  }

  /** Leaves the group; the rate stays as it is. Idempotent. */
  stop(): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#group?.leave();
  }

  async #run(device: Pick<Device, 'setRate'>): Promise<void> {
    const { signal } = this.#stop;
    if (this.#file === undefined && this.#group === undefined) return;
    this.#hooks.onRate?.(this.#allowance);
    for (;;) {
      await this.#clock.sleep(BEAT_MS, signal).catch(() => undefined);
      if (signal.aborted) return;
      const before = this.#allowance;
      this.#attempt(() => this.#file?.read());
      this.#attempt(() => (this.#allowance = this.#look()));
      const { rate, members } = this.#allowance;
      if (rate !== before.rate) device.setRate(rate);
      if (rate !== before.rate || members !== before.members) this.#hooks.onRate?.(this.#allowance);
    }
  }

  #look(): Allowance {
    const total = this.#file === undefined ? this.#fallback : this.#file.rate;
    if (this.#group === undefined) return { rate: total, members: undefined };
    const { share, members } = this.#group.beat(total, this.#clock.now());
    return { rate: share, members };
  }

  #attempt(task: () => void): void {
    try {
      task();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (message === this.#problem) return;
      this.#problem = message;
      this.#hooks.onProblem(message);
    }
  }
}
