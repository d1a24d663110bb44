/**
 * Limits the lines of each kind: the first {@link BURST} in a minute are passed on. The others are counted, and a
 * line has their number when the minute is over.
 */

import type { Level } from './told.ts';

const BURST = 5;
const WINDOW_MS = 60_000;

interface Kind {
  readonly level: Level;
  readonly subject: string;
  readonly timer: NodeJS.Timeout;
  lines: number;
}

export class Repeats {
  readonly #add: (level: Level, text: string) => void;
  readonly #kinds = new Map<string, Kind>();

  /** @param add takes the lines that are passed on */
  constructor(add: (level: Level, text: string) => void) {
    this.#add = add;
  }

  /** @param kind what the line tells; `subject: text` is the line */
  add(level: Level, kind: string, subject: string, text: string): void {
    const key = `${kind} ${subject}`;
    const known = this.#kinds.get(key);
    if (known === undefined) {
      const timer = setTimeout(() => this.#end(key), WINDOW_MS).unref();
      this.#kinds.set(key, { level, subject, timer, lines: 1 });
    } else if (++known.lines > BURST) return;
    this.#add(level, `${subject}: ${text}`);
  }

  #end(key: string): void {
    const { level, subject, timer, lines } = this.#kinds.get(key)!;
    clearTimeout(timer);
    this.#kinds.delete(key);
    const kind = key.slice(0, key.indexOf(' '));
    if (lines > BURST) this.#add(level, `${subject}: ${kind}: ${lines - BURST} more suppressed`);
  }

  /** Tells what was suppressed. */
  close(): void {
    for (const key of [...this.#kinds.keys()]) this.#end(key);
  }
}
