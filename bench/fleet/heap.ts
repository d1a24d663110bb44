/** A binary heap: the first element is the least. Equal elements leave in the order in which they came. */

interface Entry<T> {
  readonly key: number;
  readonly order: number;
  readonly value: T;
}

export class Heap<T> {
  readonly #entries: Entry<T>[] = [];
  #pushed = 0;

  get size(): number {
    return this.#entries.length;
  }

  /** The least key, or Infinity. */
  get leastKey(): number {
    return this.#entries[0]?.key ?? Number.POSITIVE_INFINITY;
  }

  peek(): T | undefined {
    return this.#entries[0]?.value;
  }

  push(key: number, value: T): void {
    const entries = this.#entries;
    const entry = { key, order: this.#pushed++, value };
    let at = entries.length;
    entries.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(entry, entries[parent]!)) break;
      entries[at] = entries[parent]!;
      at = parent;
    }
    entries[at] = entry;
  }

  pop(): T | undefined {
    const entries = this.#entries;
    const first = entries[0];
    const last = entries.pop();
    if (first === undefined || last === undefined || entries.length === 0) return first?.value;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= entries.length) break;
      if (child + 1 < entries.length && isBefore(entries[child + 1]!, entries[child]!)) child++;
      if (!isBefore(entries[child]!, last)) break;
      entries[at] = entries[child]!;
      at = child;
    }
    entries[at] = last;
    return first.value;
  }
}

function isBefore<T>(one: Entry<T>, other: Entry<T>): boolean {
  return one.key < other.key || (one.key === other.key && one.order < other.order);
}
