import { Duplex } from 'node:stream';
import { expect, test, vi } from 'vitest';
import { COMMAND, OPTION } from '../../src/nbd/constants.ts';
import { Connection } from '../../src/nbd/server/connection.ts';
import { CLIENT_FLAGS, option, request } from './client-bytes.ts';

const polled = vi.hoisted((): string[] => []);

vi.mock('../../src/nbd/server/busy-poll.ts', () => ({
  BusyPoll: class {
    answered(): void {
      polled.push('answered');
    }

    received(): void {
      polled.push('received');
    }
  },
}));

const turn = () => new Promise((resolve) => setImmediate(resolve));
const read = request({ type: COMMAND.read, offset: 0, length: 4096 });

/** A connection in transmission; reads take until `answer` is called unless they can be answered at once. */
async function begin({
  now,
}: {
  now: boolean;
}): Promise<{ send: (...requests: Uint8Array[]) => Promise<void>; answer: () => Promise<void> }> {
  const socket = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
  let resolve: () => void = () => undefined;
  const device = {
    size: 2 ** 20,
    blockSize: 4096,
    read: () => new Promise<void>((done) => (resolve = done)),
    readNow: () => now,
  };
  new Connection(socket, { exports: new Map([['', { device }]]) });
  const send = async (...requests: Uint8Array[]): Promise<void> => {
    socket.push(Buffer.concat(requests));
    await turn();
  };
  await send(CLIENT_FLAGS, option(OPTION.exportName));
  polled.length = 0;
  return {
    send,
    answer: async () => {
      resolve();
      await turn();
    },
  };
}

test('the next request of a client that sends one at a time is polled for once it has its answer', async () => {
  const { send } = await begin({ now: true });
  await send(read);
  await send(read);
  expect(polled).toEqual(['received', 'answered', 'received', 'answered']);
});

test('not while one is in work', async () => {
  const { send, answer } = await begin({ now: false });
  await send(read);
  expect(polled).toEqual(['received']);
  await answer();
  expect(polled).toEqual(['received', 'answered']);
});

test('nor for a client that sends several at a time', async () => {
  const { send } = await begin({ now: true });
  await send(read, read);
  expect(polled).toEqual(['received']);
});
