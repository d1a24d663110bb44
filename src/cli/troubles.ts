/** What a person and a program learn of a copy that fails and continues. */

import type { DeviceEvent } from '../device/types.ts';
import type { RetryReport } from '../sources/retry.ts';
import type { Emit } from './json-lines.ts';
import { logEvent } from './log/told.ts';
import type { Progress } from './progress.ts';

/** While failures follow each other, stderr has one of them in each minute. */
const QUIET_MS = 60_000;
/**
 * A source that is refused while it is opened fails for good after so few retries, with delays below this. The error of
 * the command then says why, so stderr need not say it before.
 */
const OPENING_RETRIES = 4;
const OPENING_DELAY_MS = 10_000;

interface Told {
  readonly target: string;
  readonly emit: Emit;
  readonly progress: Progress;
}

interface TroublesOptions {
  /** Whether the source is being opened, which may fail for good. Default: false. */
  readonly isOpening?: boolean;
  /** Milliseconds. */
  readonly now?: () => number;
}

/**
 * Reports failed attempts: each as an event; on stderr the first one, one a minute after that, and the end of the
 * trouble.
 */
export class Troubles {
  readonly #copy: Told;
  readonly #isOpening: boolean;
  readonly #now: () => number;
  #toldAtMs: number | undefined;

  constructor(copy: Told, { isOpening = false, now = () => performance.now() }: TroublesOptions = {}) {
    this.#copy = copy;
    this.#isOpening = isOpening;
    this.#now = now;
  }

  retry(report: RetryReport | (DeviceEvent & { type: 'retry' })): void {
    const { code, message, attempt, delayMs } = report;
    this.#copy.emit('retry', { code, message, attempt, delayMs });
    // The device tells of the others.
    if (this.#isOpening) {
      const next = `attempt ${attempt} failed, the next one in ${(delayMs / 1000).toFixed(3)} s`;
      logEvent('warning', 'retry', this.#copy.target, `${code}: ${message}; ${next}`);
    }
    if (this.#isOpening && attempt <= OPENING_RETRIES && delayMs < OPENING_DELAY_MS) return;
    const now = this.#now();
    if (this.#toldAtMs !== undefined && now - this.#toldAtMs < QUIET_MS) return;
    this.#toldAtMs = now;
    this.#note(`${code}: ${message}; still trying`);
  }

  changed({ code, message }: DeviceEvent & { type: 'source-changed' }): void {
    this.#copy.emit('source-changed', { code, message });
    this.#note(`${code}: ${message}; still trying`);
  }

  recovered(): void {
    this.#copy.emit('recovered', {});
    if (this.#toldAtMs === undefined) return;
    this.#toldAtMs = undefined;
    this.#note('the copy continues');
  }

  #note(text: string): void {
    this.#copy.progress.note(`${this.#copy.target}: ${text}`);
  }
}
