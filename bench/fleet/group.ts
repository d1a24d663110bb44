/**
 * Machines whose copies have one rate, and the machines themselves.
 *
 * A group keeps one number, its progress: the bytes that each of its flows has received. A machine that joins keeps the
 * distance between its own bytes and this progress. So time changes one number for all machines of a group, and the
 * machine with the most bytes is the first to reach any mark.
 */

import { Heap } from './heap.ts';
import type { Load, Sharer } from './links.ts';
import { measured } from './measured.ts';

export interface Machine {
  readonly index: number;
  readonly rack: number;
  readonly startsAt: number;
  group: Group | undefined;
  /** Its bytes less the progress of its group, or its bytes if it has no group. */
  offset: number;
  /** Changes whenever the machine joins or leaves a group, which makes older entries and events stale. */
  ticket: number;
  /** Changes at each start, which makes events of an earlier life stale. */
  life: number;
  isUp: boolean;
  /** Bytes that reads have fetched before the background copy came there. */
  demandBytes: number;
  nextRead: number;
  /** Reads before this one have been fetched in an earlier life. */
  fetchedReads: number;
  receivedBytes: number;
  lostBytes: number;
  bootedAt: number | undefined;
  completedAt: number | undefined;
}

interface Entry {
  readonly machine: Machine;
  readonly ticket: number;
}

/** Returns what `count` flows load. */
export type Loads = (count: number) => readonly Load[];

export class Group implements Sharer {
  readonly cap: number;
  rate = 0;
  count = 0;
  loads: readonly Load[] = [];
  readonly #loadsOf: Loads;
  /** By bytes, the most first. */
  readonly #entries = new Heap<Entry>();
  #progress = 0;
  #at = 0;

  constructor(cap: number, loadsOf: Loads) {
    this.cap = cap;
    this.#loadsOf = loadsOf;
  }

  progress(now: number): number {
    return this.#progress + this.rate * (now - this.#at);
  }

  /** Counts the time until `now`. Called before the rate changes. */
  advance(now: number): void {
    this.#progress = this.progress(now);
    this.#at = now;
  }

  join(machine: Machine, now: number): void {
    this.advance(now);
    machine.offset -= this.#progress;
    machine.group = this;
    machine.ticket++;
    this.#entries.push(-machine.offset, { machine, ticket: machine.ticket });
    this.#setCount(this.count + 1);
  }

  leave(machine: Machine, now: number): void {
    this.advance(now);
    machine.offset += this.#progress;
    machine.group = undefined;
    machine.ticket++;
    this.#setCount(this.count - 1);
  }

  /** The machine with the most bytes. */
  first(): Machine | undefined {
    for (;;) {
      const entry = this.#entries.peek();
      if (entry === undefined) return undefined;
      if (entry.ticket === entry.machine.ticket) return entry.machine;
      this.#entries.pop();
    }
  }

  #setCount(count: number): void {
    this.count = count;
    this.loads = count === 0 ? [] : this.#loadsOf(count);
    if (count === 0) this.rate = 0;
  }
}

/**
 * What one more connection of a machine gets. A full link is shared among connections, and the background copy of each
 * machine has many.
 */
export function connectionRate({ rate, cap }: Group): number {
  return rate < cap * (1 - 1e-9) ? rate / (measured.streams + 1) : rate;
}

/** The bytes of a machine. */
export function bytesOf({ group, offset }: Machine, now: number): number {
  return group === undefined ? offset : group.progress(now) + offset;
}
