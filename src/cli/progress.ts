/** Progress on stderr: a bar on a terminal, a line now and then elsewhere. */

import type { WriteStream } from 'node:tty';
import type { SingleBar } from 'cli-progress';
import { forStderr, isEventShown, printThrough } from './log/told.ts';
import { columnsOf } from './terminal.ts';
import { formatBytes, formatDuration, formatPercent, formatRate } from './units.ts';

const MAX_BAR_COLUMNS = 30;
/** The most characters of {@link describeProgress}. */
const TEXT_COLUMNS = 58;
/** A log shows early that the copy runs, and is not filled by one that takes a day. */
const FIRST_LINE_MS = 5_000;
const LINE_INTERVAL_MS = 30_000;
/** The displayed speed is the average over this time. */
const SPEED_WINDOW_MS = 5_000;

/** A phase of the work, counted in bytes. */
export interface Phase {
  /** The phase in one word. */
  readonly label: string;
  readonly total: number;
  /** Bytes done before the phase began. They do not count for the speed. */
  readonly initial: number;
}

/** Shows the progress of a phase. */
export interface Progress {
  begin(phase: Phase): Promise<void>;
  update(bytes: number): void;
  /** Prints a line of text. */
  note(text: string): void;
  /** Ends the phase and restores the terminal. Idempotent. */
  end(): void;
}

/** Measures bytes per second over the last seconds. */
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

/**
 * Returns the progress for a stream. It shows nothing if `quiet`.
 * @param options.now milliseconds of a clock that never goes back
 */
export function progressFor(
  stream: Pick<WriteStream, 'isTTY' | 'write'>,
  { quiet, now = () => performance.now() }: { readonly quiet: boolean; readonly now?: () => number },
): Progress {
  if (quiet) return { begin: async () => {}, update: () => {}, note: () => {}, end: () => {} };
  return stream.isTTY ? new BarProgress(stream as WriteStream) : new LineProgress(stream, now);
}

/** `12.0 MiB of 1 GiB, 1.1 %, 30.5 MiB/s, 0:33 left` */
export function describeProgress({ bytes, total, speed }: { bytes: number; total: number; speed: number }): string {
  const left = speed > 0 && bytes < total ? `, ${formatDuration((total - bytes) / speed)} left` : '';
  return `${formatBytes(bytes)} of ${formatBytes(total)}, ${formatPercent(bytes, total)}, ${formatRate(speed)}${left}`;
}

class BarProgress implements Progress {
  readonly #stream: WriteStream;
  #bytes = 0;
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
    this.#bytes = phase.initial;
    this.#bar = new SingleBar({
      stream: this.#stream,
      format: `${phase.label} {bar} {text}`,
      barsize: this.#barColumns(phase),
      barCompleteChar: '█',
      barIncompleteChar: '░',
      clearOnComplete: true,
      gracefulExit: false,
      // Neither line wrap nor the cursor is switched off: kill -9 would leave the terminal without them. `update` cuts
      // long lines.
      linewrap: null,
    });
    this.#bar.start(phase.total, phase.initial, { text: '' });
    printThrough((text) => this.#print(text));
  }

  update(bytes: number): void {
    const phase = this.#phase!;
    const text = describeProgress({ bytes, total: phase.total, speed: this.#speed.update(bytes) });
    const room = columnsOf(this.#stream) - phase.label.length - this.#barColumns(phase) - 3;
    this.#bytes = bytes;
    this.#bar?.update(bytes, { text: text.slice(0, Math.max(0, room)) });
  }

  note(text: string): void {
    if (!isEventShown()) this.#print(forStderr('warning', text));
  }

  /** Prints lines above the bar. */
  #print(text: string): void {
    const bytes = this.#bytes;
    this.#bar?.stop();
    this.#stream.write(text);
    this.#bar?.start(this.#phase!.total, bytes, { text: '' });
  }

  #barColumns({ label }: Phase): number {
    return Math.min(MAX_BAR_COLUMNS, Math.max(0, columnsOf(this.#stream) - label.length - TEXT_COLUMNS - 3));
  }

  end(): void {
    this.#bar?.stop();
    this.#bar = undefined;
    printThrough(undefined);
  }
}

/** Prints a line 5 s after the begin of a phase, then each 30 s, and at the end how far it got since then. */
class LineProgress implements Progress {
  readonly #stream: Pick<WriteStream, 'write'>;
  readonly #now: () => number;
  #phase: Phase | undefined;
  #speed = new Speedometer();
  #nextAt = 0;
  /** The line of the last update. Undefined: it is printed, or the phase is too short for lines. */
  #pending: string | undefined;
  #hasLines = false;

  constructor(stream: Pick<WriteStream, 'write'>, now: () => number) {
    this.#stream = stream;
    this.#now = now;
  }

  async begin(phase: Phase): Promise<void> {
    this.end();
    this.#phase = phase;
    this.#speed = new Speedometer(this.#now);
    this.#speed.update(phase.initial);
    this.#nextAt = this.#now() + FIRST_LINE_MS;
  }

  update(bytes: number): void {
    if (this.#phase === undefined) return;
    const { label, total } = this.#phase;
    const line = `${label}: ${describeProgress({ bytes, total, speed: this.#speed.update(bytes) })}`;
    const now = this.#now();
    if (now < this.#nextAt) {
      if (this.#hasLines) this.#pending = line;
      return;
    }
    this.#nextAt = now + LINE_INTERVAL_MS;
    this.#hasLines = true;
    this.#pending = undefined;
    this.#print(line);
  }

  note(text: string): void {
    if (!isEventShown()) this.#stream.write(forStderr('warning', text));
  }

  #print(line: string): void {
    this.#stream.write(forStderr('info', line));
  }

  end(): void {
    if (this.#pending !== undefined) this.#print(this.#pending);
    this.#phase = undefined;
    this.#pending = undefined;
    this.#hasLines = false;
  }
}
