/** Controls the rate of a copy: by `--rate`, by a rate file that may change, and by the group's other members. */

import type { Device } from '../device/types.ts';
import type { Clock } from '../platform/clock.ts';
import { systemClock } from '../platform/system-clock.ts';
import { UsageError } from './failure.ts';
import type { Emit } from './json-lines.ts';
import { logEvent, tell } from './log/told.ts';
import { RateFile } from './rate-file.ts';
import { RateGroup } from './rate-group.ts';
import { BEAT_MS } from './rate-share.ts';
import { formatRate } from './units.ts';

/** Parsed options of a command that copies. */
export interface RateFlags {
  /** Bytes per second. In a group: for all members together. */
  readonly rate?: number;
  /** Path of a file that holds the rate and may change at any time. */
  readonly rateFile?: string;
  readonly rateGroup?: string;
}

/** The rate that applies now. */
export interface Allowance {
  /** Bytes per second of this copy. Undefined: no limit. */
  readonly rate: number | undefined;
  /** Number of members of the group. Undefined without a group. */
  readonly members: number | undefined;
}

/** Called while the rate is controlled. */
export interface RateHooks {
  /** The rate or the number of members has changed. With a file or a group, also called with the first rate. */
  onRate?(allowance: Allowance): void;
  /**
   * The file or the group cannot be used; the rate stays as it is. Called only if the message differs from the last
   * one.
   */
  onProblem(message: string): void;
}

/** Reports the rate as an event, and problems on stderr. */
export function rateHooks(emit: Emit, target: string): RateHooks {
  return {
    onRate: ({ rate, members }) => {
      emit('rate', { bytesPerSecond: rate ?? null, members: members ?? null });
      const share = members === undefined ? '' : `, ${members} members in the group`;
      logEvent('info', 'rate', target, `rate ${rate === undefined ? 'unlimited' : formatRate(rate)}${share}`);
    },
    onProblem: (message) => tell('warning', `copyondemand: ${message}`),
  };
}

export class RateControl {
  #fallback: number | undefined;
  #file: RateFile | undefined;
  #group: RateGroup | undefined;
  readonly #hooks: RateHooks;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  #allowance: Allowance;
  #device: Pick<Device, 'setRate'> | undefined;
  #problem = '';
  #isLooking = false;

  /**
   * Reads the rate file and joins the group.
   * @throws {@link UsageError} for a group without a rate, and for a file that holds no rate; {@link CodError} if the
   * file or the group cannot be used.
   */
  constructor(flags: RateFlags, hooks: RateHooks, clock: Clock = systemClock) {
    const { rate, rateGroup } = flags;
    this.#fallback = rate;
    this.#file = fileOf(flags);
    this.#group = rateGroup === undefined ? undefined : new RateGroup(rateGroup);
    this.#hooks = hooks;
    this.#clock = clock;
    this.#allowance = this.#look();
  }

  /**
   * Takes other options from now on.
   * @throws as the constructor, and then changes nothing
   */
  change(flags: RateFlags): void {
    const { rate, rateGroup } = flags;
    const file = fileOf(flags);
    this.#group?.leave();
    this.#fallback = rate;
    this.#file = file;
    this.#group = rateGroup === undefined ? undefined : new RateGroup(rateGroup);
    if (this.#stop.signal.aborted || this.#device === undefined) return;
    this.#update();
    void this.#run();
  }

  /** Bytes per second to open the device with. Undefined: no limit. */
  get rate(): number | undefined {
    return this.#allowance.rate;
  }

  /** Controls the rate of a device until its background copy has ended or `stop` is called. */
  govern(device: Pick<Device, 'setRate' | 'hydrated'>): void {
    const stop = () => this.stop();
    device.hydrated.then(stop, stop);
    this.#device = device;
    void this.#run();
  }

  /** Leaves the group; the rate stays as it is. Idempotent. */
  stop(): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#group?.leave();
  }

  /** Path of the file that says the rate. */
  get path(): string | undefined {
    return this.#file?.path;
  }

  /**
   * Sets the rate in bytes per second; in a group, that of all members together. Undefined: no limit. A rate file
   * counts more, as long as it is there.
   */
  set(rate: number | undefined): void {
    this.#fallback = rate;
    if (this.#file !== undefined) this.#file.fallback = rate;
    if (!this.#stop.signal.aborted) this.#update();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    if (this.#isLooking || !this.#mayChange()) return;
    this.#isLooking = true;
    this.#hooks.onRate?.(this.#allowance);
    while (this.#mayChange()) {
      await this.#clock.sleep(BEAT_MS, signal).catch(() => undefined);
      if (signal.aborted) return;
      this.#update();
    }
    this.#isLooking = false;
  }

  #mayChange(): boolean {
    return this.#file !== undefined || this.#group !== undefined;
  }

  #update(): void {
    const before = this.#allowance;
    this.#attempt(() => this.#file?.read());
    this.#attempt(() => (this.#allowance = this.#look()));
    const { rate, members } = this.#allowance;
    if (rate !== before.rate) this.#device?.setRate(rate);
    if (rate !== before.rate || members !== before.members) this.#hooks.onRate?.(this.#allowance);
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

/** Returns the rate file, which has been read. @throws as the constructor of {@link RateControl} */
function fileOf({ rate, rateFile, rateGroup }: RateFlags): RateFile | undefined {
  if (rateGroup !== undefined && rate === undefined && rateFile === undefined) {
    throw new UsageError('--rate-group needs --rate or --rate-file, the limit of the whole group');
  }
  if (rateFile === undefined) return undefined;
  const file = new RateFile(rateFile, rate);
  file.read();
  return file;
}
