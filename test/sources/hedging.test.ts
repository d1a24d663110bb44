/** Reads whose answer is late are sent a second time. */

import { expect, onTestFinished, test } from 'vitest';
import { Hedging } from '../../src/sources/http/hedging.ts';
import { nodeTransport } from '../../src/sources/http/node-transport.ts';
import { httpSource } from '../../src/sources/http/source.ts';
import type { Source } from '../../src/sources/source.ts';
import { SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { type Ask, HostileServer } from '../support/http-server.ts';

const CONTENT = seededRandom(4).fill(new Uint8Array(100_000));
/** Answers until the usual latency is known. */
const ANSWERS = 8;
const LATE_MS = 100;

/** A source whose latency is known, and its server, which holds back all further requests. */
async function start() {
  const clock = new SimulatedClock();
  const server = await HostileServer.start(CONTENT);
  onTestFinished(() => server.stop());
  const source = await httpSource(server.url, { transport: nodeTransport(), clock });
  onTestFinished(() => source.close());
  for (let count = 0; count < ANSWERS; count++) await read(source, count);
  const held: Ask[] = [];
  let onAsk: () => void = () => {};
  server.behaviour = (ask) => {
    held.push(ask);
    onAsk();
  };
  /** Resolves to the held request number `index`. */
  const ask = async (index: number): Promise<Ask> => {
    while (held[index] === undefined) await new Promise<void>((resolve) => (onAsk = resolve));
    return held[index];
  };
  return { clock, server, source, ask, held };
}

async function read(source: Source, offset: number, length = 1000): Promise<void> {
  const into = new Uint8Array(length);
  await source.read(into, offset);
  expectBytes(into, CONTENT.subarray(offset, offset + length));
}

function closed({ socket }: Ask): Promise<void> {
  return new Promise((resolve) => (socket.closed ? resolve() : socket.once('close', () => resolve())));
}

test('a late read is sent again over another connection, and the second answer counts', async () => {
  const { clock, source, ask } = await start();
  const reading = read(source, 5000);
  const first = await ask(0);
  await clock.advance(LATE_MS);
  const second = await ask(1);
  expect(second.socket).not.toBe(first.socket);
  expect(second.headers['range']).toBe(first.headers['range']);
  second.send();
  await reading;
  await closed(first);
});

test('the first answer counts if it comes first', async () => {
  const { clock, source, ask } = await start();
  const reading = read(source, 5000);
  const first = await ask(0);
  await clock.advance(LATE_MS);
  const second = await ask(1);
  first.send();
  await reading;
  await closed(second);
});

test('the other request counts if one of them fails', async () => {
  for (const failing of [0, 1]) {
    const { clock, source, ask } = await start();
    const reading = read(source, 5000);
    await ask(0);
    await clock.advance(LATE_MS);
    await ask(1);
    const failed = await ask(failing);
    failed.send({ status: 503, headers: { connection: 'close' }, body: '' });
    failed.socket.end();
    await closed(failed);
    (await ask(1 - failing)).send();
    await reading;
  }
});

test('a changed file is final, whichever request tells it', async () => {
  const { clock, source, ask, server } = await start();
  const reading = read(source, 5000);
  await ask(0);
  await clock.advance(LATE_MS);
  const second = await ask(1);
  server.behaviour = (probe) => probe.send({ headers: { etag: '"v2"' } });
  second.send({ headers: { etag: '"v2"' } });
  await expect(reading).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
});

test('a read is not sent again before it is late, or while its body comes', async () => {
  const { clock, source, ask, held } = await start();
  const reading = read(source, 5000);
  const first = await ask(0);
  await clock.advance(LATE_MS - 1);
  first.send({ body: false });
  first.socket.write(CONTENT.subarray(5000, 5001));
  const other = read(source, 7000);
  (await ask(1)).send();
  await other;
  await clock.advance(10 * LATE_MS);
  first.socket.write(CONTENT.subarray(5001, 6000));
  await reading;
  expect(held).toHaveLength(2);
});

test('a stream is not sent again', async () => {
  const { clock, source, ask, held } = await start();
  const next = source.stream!(0, 1000).next();
  const first = await ask(0);
  await clock.advance(100 * LATE_MS);
  first.send();
  await next;
  expect(held).toHaveLength(1);
});

test('a second late read is not sent again, since the budget is used up', async () => {
  const { clock, source, ask, held } = await start();
  const readings = [read(source, 5000), read(source, 6000)];
  await ask(1);
  await clock.advance(LATE_MS);
  await ask(2);
  for (const one of held) one.send();
  await Promise.all(readings);
  expect(held).toHaveLength(3);
});

test('the usual latency follows the server, and the budget is 3 % of the requests', () => {
  const hedging = new Hedging();
  for (let count = 0; count < ANSWERS; count++) {
    expect(hedging.begin()).toBe(Number.POSITIVE_INFINITY);
    hedging.answered(count % 2 === 0 ? 40 : 60);
  }
  expect(hedging.begin()).toBe(200);
  for (let count = 0; count < 100; count++) hedging.answered(500);
  expect(hedging.begin()).toBeCloseTo(2000, 0);

  let taken = 0;
  for (let count = 0; count < 10_000; count++) {
    hedging.begin();
    if (hedging.take()) taken++;
  }
  expect(taken).toBeLessThanOrEqual(1 + 0.03 * 10_010);
  expect(taken).toBeGreaterThan(290);
});

test('few requests are saved for later', () => {
  const hedging = new Hedging();
  for (let count = 0; count < 10_000; count++) hedging.begin();
  let taken = 0;
  while (hedging.take()) taken++;
  expect(taken).toBe(3);
});
