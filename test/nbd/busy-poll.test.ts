import { expect, test } from 'vitest';
import { BusyPoll } from '../../src/nbd/server/busy-poll.ts';

/** An event loop whose turns the test makes. */
function begin(processors = 2) {
  let ms = 0;
  let due: (() => void)[] = [];
  const poll = new BusyPoll({ now: () => ms, soon: (call) => due.push(call), processors });
  return {
    poll,
    after: (duration: number) => (ms += duration),
    /** Makes `count` turns of `duration` each. Returns the number of turns without a sleep. */
    turns(count: number, duration: number): number {
      let polled = 0;
      for (let turn = 0; turn < count; turn++) {
        const calls = due;
        due = [];
        if (calls.length > 0) polled++;
        expect(calls.length).toBeLessThanOrEqual(1);
        ms += duration;
        for (const call of calls) call();
      }
      return polled;
    },
  };
}

/** A request that arrives `pause` after the previous answer, and its answer. */
function request({ poll, after }: ReturnType<typeof begin>, pause: number): void {
  after(pause);
  poll.received();
  after(0.01);
  poll.answered();
}

test('does not poll for a first request, or after a late request', () => {
  const loop = begin();
  loop.poll.answered();
  expect(loop.turns(10, 0.01)).toBe(0);
  request(loop, 5);
  expect(loop.turns(10, 0.01)).toBe(0);
});

test('polls after an early request, for at most 0.1 ms', () => {
  const loop = begin();
  loop.poll.answered();
  request(loop, 0.05);
  expect(loop.turns(100, 0.01)).toBe(10);
  expect(loop.turns(100, 0.01)).toBe(0);
});

test('stops after a late request, until two requests are close again', () => {
  const loop = begin();
  loop.poll.answered();
  request(loop, 0.05);
  loop.turns(100, 0.01);
  request(loop, 0);
  expect(loop.turns(100, 0.01)).toBe(0);
  request(loop, 5);
  expect(loop.turns(100, 0.01)).toBe(0);
  loop.poll.answered();
  request(loop, 0.05);
  expect(loop.turns(3, 0.01)).toBe(3);
});

test('polls once at a time while requests are close, and never during a request', () => {
  const loop = begin();
  loop.poll.answered();
  for (let count = 0; count < 50; count++) {
    request(loop, 0.02);
    // Each turn has at most one call, which turns() ensures.
    expect(loop.turns(2, 0.01)).toBe(2);
  }
  loop.poll.received();
  expect(loop.turns(10, 0.01)).toBe(1);
});

test('does not poll on a single processor, which the client needs too', () => {
  const loop = begin(1);
  loop.poll.answered();
  for (let count = 0; count < 10; count++) {
    request(loop, 0.02);
    expect(loop.turns(10, 0.01)).toBe(0);
  }
});

test('rests for a second when other processes interrupt it again and again, not for single interruptions', () => {
  const loop = begin();
  loop.poll.answered();
  /** A request, and a turn of `duration` after its answer. Returns whether it was polled for. */
  const turnOf = (duration: number): boolean => {
    request(loop, 0.02);
    const polled = loop.turns(1, duration) > 0;
    loop.turns(1, 0.01);
    return polled;
  };
  /** Two requests that are close, after which it may poll again, and a turn of `duration`. */
  const polls = (duration: number): boolean => {
    turnOf(0.01);
    turnOf(0.01);
    return turnOf(duration);
  };
  // As the collection of garbage does.
  for (let count = 0; count < 10; count++) {
    expect(polls(3)).toBe(true);
    loop.after(80);
  }
  loop.after(200);
  for (let count = 0; count < 3; count++) expect(polls(3)).toBe(true);
  for (let ms = 0; ms < 900; ms += 10) expect(polls(9.8)).toBe(false);
  loop.after(200);
  expect(polls(0.01)).toBe(true);
});
