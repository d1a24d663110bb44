/** Progress on stderr: a bar on a terminal, a line now and then elsewhere. */

import type { WriteStream } from 'node:tty';
import type { SingleBar } from 'cli-progress';
import { columnsOf } from './terminal.ts';
import { formatBytes, formatDuration, formatPercent, formatRate } from './units.ts';

const MAX_BAR_COLUMNS = 30;
/** What {@link describeProgress} needs at most. */
const TEXT_COLUMNS = 58;
const LINE_INTERVAL_MS = 5_000;
/** The speed that is shown is that of the last few seconds. */
const SPEED_WINDOW_MS = 5_000;

/** One stretch of work, counted in bytes. */
export interface Phase {
  /** What is being done, in one word. */
  readonly label: string;
  readonly total: number;
  /** Done before the phase began: it says nothing of the speed. */
  readonly initial: number;
}

/** Shows how far a phase is. */
export interface Progress {
  begin(phase: Phase): Promise<void>;
  update(bytes: number): void;
  /** Ends the phase and leaves the terminal as it was; idempotent. */
  end(): void;
}

/** Bytes per second over the last seconds. */
export class Speedometer {
  readonly #now: () => number;
  readonly #samples: { readonly at: number; readonly bytes: number }[] = [];

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Takes a sample and returns the speed. */
  update(bytes: number): number {
    const at = this.#now();
    this.#samples.push({ at, bytes });
    while (this.#samples.length > 2 && at - this.#samples[0]!.at > SPEED_WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0]!;
    return at === first.at ? 0 : ((bytes - first.bytes) / (at - first.at)) * 1000;
  }
}

/** The progress that suits a stream; none at all if `quiet`. */
export function progressFor(stream: WriteStream, options: { quiet: boolean }): Progress {
  if (options.quiet) return { begin: async () => {}, update: () => {}, end: () => {} };
  return stream.isTTY ? new BarProgress(stream) : new LineProgress(stream);
}

/** `12.0 MiB of 1 GiB, 1.1 %, 30.5 MiB/s, 0:33 left` */
export function describeProgress({ bytes, total, speed }: { bytes: number; total: number; speed: number }): string {
  const left = speed > 0 && bytes < total ? `, ${formatDuration((total - bytes) / speed)} left` : '';
  return `${formatBytes(bytes)} of ${formatBytes(total)}, ${formatPercent(bytes, total)}, ${formatRate(speed)}${left}`;
}

class BarProgress implements Progress {
  readonly #stream: WriteStream;
  #bar: SingleBar | undefined;
  #phase: Phase | undefined;
  #speed = new Speedometer();

  constructor(stream: WriteStream) {
    this.#stream = stream;
  }

  async begin(phase: Phase): Promise<void> {
    this.end();
    const { SingleBar } = (await import('cli-progress')).default;
    this.#phase = phase;
    this.#speed = new Speedometer();
    this.#speed.update(phase.initial);
    this.#bar = new SingleBar({
      stream: this.#stream,
      format: `${phase.label} {bar} {text}`,
      barsize: this.#barColumns(phase),
      barCompleteChar: '█',
      barIncompleteChar: '░',
      clearOnComplete: true,
      gracefulExit: false,
      // Kept as it is, as is the cursor: kill -9 would leave the terminal without it. Lines are cut below instead.
      linewrap: null,
    });
    this.#bar.start(phase.total, phase.initial, { text: '' });
  }

  update(bytes: number): void {
    const phase = this.#phase!;
    const text = describeProgress({ bytes, total: phase.total, speed: this.#speed.update(bytes) });
    const room = columnsOf(this.#stream) - phase.label.length - this.#barColumns(phase) - 3;
    this.#bar?.update(bytes, { text: text.slice(0, Math.max(0, room)) });
  }

  #barColumns({ label }: Phase): number {
    return Math.min(MAX_BAR_COLUMNS, Math.max(0, columnsOf(this.#stream) - label.length - TEXT_COLUMNS - 3));
  }

  end(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}

class LineProgress implements Progress {
  readonly #stream: WriteStream;
  #phase: Phase | undefined;
  #speed = new Speedometer();
  #shownAt = 0;

  constructor(stream: WriteStream) {
    this.#stream = stream;
  }

  async begin(phase: Phase): Promise<void> {
    this.#phase = phase;
    this.#speed = new Speedometer();
    this.#speed.update(phase.initial);
    this.#shownAt = performance.now();
  }

  update(bytes: number): void {
    const speed = this.#speed.update(bytes);
    const now = performance.now();
    if (this.#phase === undefined || now - this.#shownAt < LINE_INTERVAL_MS) return;
    this.#shownAt = now;
    this.#stream.write(`${this.#phase.label}: ${describeProgress({ bytes, total: this.#phase.total, speed })}\n`);
  }

  end(): void {
    this.#phase = undefined;
  }
}
