/** Events for several consumers. No consumer delays the producer. */

import { getEventListeners } from 'node:events';
import { describe, expect, test } from 'vitest';
import { EventStream, type Lost } from '../../src/async/event-stream.ts';

async function collect<T>(events: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const event of events) found.push(event);
  return found;
}

const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, index) => from + index);

function emitAll(stream: EventStream<number>, events: readonly number[]): void {
  for (const event of events) stream.emit(event);
}

test('a consumer gets every event from its subscription on, in order', async () => {
  const stream = new EventStream<number>();
  stream.emit(0);
  const first = stream.subscribe();
  stream.emit(1);
  const second = stream.subscribe();
  stream.emit(2);
  stream.end();
  stream.emit(3);
  expect(await collect(first)).toEqual([1, 2]);
  expect(await collect(second)).toEqual([2]);
});

test('waiting calls of next are answered in order', async () => {
  const stream = new EventStream<number>();
  const events = stream.subscribe();
  const waiting = [events.next(), events.next(), events.next()];
  emitAll(stream, [1, 2]);
  stream.end();
  expect(await Promise.all(waiting)).toEqual([
    { done: false, value: 1 },
    { done: false, value: 2 },
    { done: true, value: undefined },
  ]);
});

describe('a slow consumer', () => {
  test('gets one event with the number of missed events, in the place of the gap', async () => {
    const stream = new EventStream<number>();
    const slow = stream.subscribe();
    emitAll(stream, numbers(0, 300));
    const read: (number | Lost)[] = [];
    for (let count = 0; count < 256; count++) read.push((await slow.next()).value!);
    stream.emit(300);
    expect(read).toEqual(numbers(0, 256));
    expect(await slow.next()).toEqual({ done: false, value: { type: 'lost', count: 45 } });
    stream.emit(301);
    stream.end();
    expect(await collect(slow)).toEqual([301]);
  });

  test('misses nothing with 256 events in its queue', async () => {
    const stream = new EventStream<number>();
    const slow = stream.subscribe();
    emitAll(stream, numbers(0, 256));
    stream.end();
    expect(await collect(slow)).toEqual(numbers(0, 256));
  });

  test('gets the number of missed events also after the end of the stream', async () => {
    const stream = new EventStream<number>();
    const slow = stream.subscribe();
    emitAll(stream, numbers(0, 257));
    stream.end();
    expect(await collect(slow)).toEqual([...numbers(0, 256), { type: 'lost', count: 1 }]);
  });

  test('does not make other consumers miss events', async () => {
    const stream = new EventStream<number>();
    stream.subscribe();
    const fast = stream.subscribe();
    for (const event of numbers(0, 1000)) {
      stream.emit(event);
      expect((await fast.next()).value).toBe(event);
    }
  });
});

describe('a subscription ends', () => {
  test.each(['before', 'after'])(
    'when its signal is aborted %s next is called, without the queued events',
    async (moment) => {
      const stream = new EventStream<number>();
      const controller = new AbortController();
      const events = stream.subscribe(controller.signal);
      if (moment === 'before') {
        stream.emit(1);
        controller.abort();
      }
      const next = events.next();
      controller.abort();
      expect(await next).toEqual({ done: true, value: undefined });
      stream.emit(2);
      expect(await collect(events)).toEqual([]);
    },
  );

  test('when its signal is aborted after the stream has ended', async () => {
    const stream = new EventStream<number>();
    const controller = new AbortController();
    const events = stream.subscribe(controller.signal);
    emitAll(stream, [1, 2]);
    stream.end();
    expect((await events.next()).value).toBe(1);
    controller.abort();
    expect(await collect(events)).toEqual([]);
  });

  test('immediately if the signal was aborted or the stream had ended before', async () => {
    const stream = new EventStream<number>();
    expect(await collect(stream.subscribe(AbortSignal.abort()))).toEqual([]);
    stream.end();
    expect(await collect(stream.subscribe())).toEqual([]);
  });

  test('when the loop over it is left', async () => {
    const stream = new EventStream<number>();
    const events = stream.subscribe();
    emitAll(stream, [1, 2, 3]);
    for await (const event of events) if (event === 1) break;
    stream.emit(4);
    expect(await collect(events)).toEqual([]);
  });

  test('when return is called, which also ends waiting calls of next', async () => {
    const stream = new EventStream<number>();
    const events = stream.subscribe();
    const next = events.next();
    expect(await events.return?.()).toEqual({ done: true, value: undefined });
    expect(await next).toEqual({ done: true, value: undefined });
  });

  test.each(['the stream', 'the consumer', 'the signal'])(
    'by %s and leaves no listener at the signal',
    async (ender) => {
      const stream = new EventStream<number>();
      const controller = new AbortController();
      const events = stream.subscribe(controller.signal);
      expect(getEventListeners(controller.signal, 'abort').length).toBe(1);
      if (ender === 'the stream') stream.end();
      else if (ender === 'the consumer') await events.return?.();
      else controller.abort();
      expect(getEventListeners(controller.signal, 'abort').length).toBe(0);
    },
  );
});
