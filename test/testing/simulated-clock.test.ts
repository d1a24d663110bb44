import { expect, test } from 'vitest';
import { SimulatedClock } from '../../src/testing/index.ts';

test('sleepers wake in order, at the times that they waited for', async () => {
  const clock = new SimulatedClock();
  const woken: string[] = [];
  const sleep = async (ms: number, name: string): Promise<void> => {
    await clock.sleep(ms);
    woken.push(`${name} at ${clock.now()}`);
  };
  await clock.run(Promise.all([sleep(30, 'a'), sleep(10, 'b'), sleep(20, 'c'), sleep(10, 'd'), sleep(0, 'e')]));
  expect(woken).toEqual(['e at 0', 'b at 10', 'd at 10', 'c at 20', 'a at 30']);
});

test('advance runs exactly the events of that time', async () => {
  const clock = new SimulatedClock();
  let ticks = 0;
  const tick = async (): Promise<void> => {
    for (;;) {
      await clock.sleep(10);
      ticks++;
    }
  };
  void tick();
  await clock.advance(35);
  expect([ticks, clock.now()]).toEqual([3, 35]);
  await clock.advance(5);
  expect([ticks, clock.now()]).toEqual([4, 40]);
});

test('run ends with its work, although others still sleep', async () => {
  const clock = new SimulatedClock();
  const endless = async (): Promise<void> => {
    for (;;) await clock.sleep(1);
  };
  void endless();
  expect(await clock.run(clock.sleep(1000).then(() => 'done'))).toBe('done');
  expect(clock.now()).toBe(1000);
  await expect(clock.run(clock.sleep(1).then(() => Promise.reject(new Error('failed'))))).rejects.toThrow('failed');
});

test('run waits for work that first awaits something else and then sleeps', async () => {
  const clock = new SimulatedClock({ settle: () => new Promise(setImmediate) });
  const work = async (): Promise<number> => {
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    await clock.sleep(50);
    return clock.now();
  };
  expect(await clock.run(work())).toBe(50);
});

test('an aborted sleep rejects with the reason of the signal', async () => {
  const clock = new SimulatedClock();
  const controller = new AbortController();
  const sleep = clock.sleep(10, controller.signal);
  controller.abort(new Error('enough'));
  await expect(sleep).rejects.toThrow('enough');
  await expect(clock.sleep(10, controller.signal)).rejects.toThrow('enough');
  await clock.advance(100);
});

test('a sleep of Infinity ends only with its signal', async () => {
  const clock = new SimulatedClock();
  const stop = new AbortController();
  const endless = clock.sleep(Number.POSITIVE_INFINITY, stop.signal);
  const watched = expect(endless).rejects.toThrow('stopped');
  await clock.run(clock.sleep(1000));
  expect(clock.now()).toBe(1000);
  stop.abort(new Error('stopped'));
  await watched;
  await clock.run(clock.sleep(1));
  expect(clock.now()).toBe(1001);
});
