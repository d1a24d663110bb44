import { expect, test } from 'vitest';
import { BusyPoll } from '../../src/nbd/server/busy-poll.ts';

/** An event loop whose turns are made by hand. */
function begin(processors = 2) {
  let ms = 0;
  let due: (() => void)[] = [];
  const poll = new BusyPoll({ now: () => ms, soon: (call) => due.push(call), processors });
  return {
    poll,
    after: (duration: number) => (ms += duration),
    /** Makes so many turns, each of `duration`; how many of them did not sleep. */
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

/** A request that comes `pause` after the answer to the one before, and is answered. */
function request({ poll, after }: ReturnType<typeof begin>, pause: number): void {
  after(pause);
  poll.received();
  after(0.01);
  poll.answered();
}

test('nothing is polled for a first request, nor after one that came late', () => {
  const loop = begin();
  loop.poll.answered();
  expect(loop.turns(10, 0.01)).toBe(0);
  request(loop, 5);
  expect(loop.turns(10, 0.01)).toBe(0);
});

test('after a request that came soon the next one is polled for, but not for longer than a tenth of a millisecond', () => {
  const loop = begin();
  loop.poll.answered();
  request(loop, 0.05);
  expect(loop.turns(100, 0.01)).toBe(10);
  expect(loop.turns(100, 0.01)).toBe(0);
});

test('a late request ends it, until two are close again', () => {
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

test('while requests are close there is one poll at a time, and none while one is in work', () => {
  const loop = begin();
  loop.poll.answered();
  for (let count = 0; count < 50; count++) {
    request(loop, 0.02);
    // Each turn has one call at most, which turns() sees to.
    expect(loop.turns(2, 0.01)).toBe(2);
  }
  loop.poll.received();
  expect(loop.turns(10, 0.01)).toBe(1);
});

test('a single processor is the client’s too', () => {
  const loop = begin(1);
  loop.poll.answered();
  for (let count = 0; count < 10; count++) {
    request(loop, 0.02);
    expect(loop.turns(10, 0.01)).toBe(0);
  }
});
