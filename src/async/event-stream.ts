/**
 * Events for any number of consumers. The producer never waits: each consumer has a bounded queue, and a consumer that
 * falls behind misses events and receives their number.
 *
 * Invariants of a subscription:
 * - A call of `next` waits only while the queue is empty and no event is missing.
 * - While events are missing, later events are counted too. The gap ends when the consumer has read the queue and the
 *   `lost` event, so that `lost` always stands where the events are missing.
 */

/** Events that a subscription holds for a consumer that does not read. */
const MAX_QUEUED_EVENTS = 256;

/** The consumer was too slow and missed `count` events, which came after the previous event it read. */
export interface Lost {
  readonly type: 'lost';
  readonly count: number;
}

export class EventStream<T> {
  readonly #subscriptions = new Set<Subscription<T>>();
  readonly #onEmit: ((event: T) => void) | undefined;
  #ended = false;

  /** @param onEmit called with every event. Must not throw. */
  constructor(onEmit?: (event: T) => void) {
    this.#onEmit = onEmit;
  }

  /** Gives an event to every present subscription. Never waits and never throws. */
  emit(event: T): void {
    this.#onEmit?.(event);
    for (const subscription of this.#subscriptions) subscription.push(event);
  }

  /** Ends every present and future subscription; events that are queued are still read. Idempotent. */
  end(): void {
    this.#ended = true;
    for (const subscription of this.#subscriptions) subscription.end();
    this.#subscriptions.clear();
  }

  /**
   * Subscribes to all events from this call on. The iteration ends after {@link end}, or at once when `signal` is
   * aborted or the iterator's `return` is called. A subscription that is never read costs its full queue until then.
   */
  subscribe(signal?: AbortSignal): AsyncIterableIterator<T | Lost, undefined> {
    const subscription: Subscription<T> = new Subscription(signal, () => this.#subscriptions.delete(subscription));
    if (signal?.aborted || this.#ended) subscription.end();
    else this.#subscriptions.add(subscription);
    return subscription;
  }
}

class Subscription<T> implements AsyncIterableIterator<T | Lost, undefined> {
  readonly #signal: AbortSignal | undefined;
  readonly #onCancelled: () => void;
  readonly #abort = (): void => this.#cancel();
  #queue: T[] = [];
  #waiting: ((result: IteratorResult<T | Lost, undefined>) => void)[] = [];
  #lostCount = 0;
  #ended = false;

  constructor(signal: AbortSignal | undefined, onCancelled: () => void) {
    this.#signal = signal;
    this.#onCancelled = onCancelled;
    signal?.addEventListener('abort', this.#abort, { once: true });
  }

  push(event: T): void {
    const resolve = this.#waiting.shift();
    if (resolve !== undefined) resolve({ done: false, value: event });
    else if (this.#lostCount > 0 || this.#queue.length === MAX_QUEUED_EVENTS) this.#lostCount++;
    else this.#queue.push(event);
  }

  end(): void {
    this.#ended = true;
    this.#signal?.removeEventListener('abort', this.#abort);
    for (const resolve of this.#waiting.splice(0)) resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<T | Lost, undefined>> {
    // The stream may have ended before the abort.
    if (this.#signal?.aborted) this.#cancel();
    if (this.#queue.length > 0) return Promise.resolve({ done: false, value: this.#queue.shift() as T });
    if (this.#lostCount > 0) {
      const lost: Lost = { type: 'lost', count: this.#lostCount };
      this.#lostCount = 0;
      return Promise.resolve({ done: false, value: lost });
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  return(): Promise<IteratorResult<T | Lost, undefined>> {
    this.#cancel();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #cancel(): void {
    this.#queue = [];
    this.#lostCount = 0;
    this.#onCancelled();
    this.end();
  }
}
