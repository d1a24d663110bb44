/** Clients that send invalid bytes: no crash, no hang, bounded memory, and the next client is served. */

import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bytesSource, openDevice } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import { Handshake } from '../../src/nbd/server/handshake.ts';
import { ProtocolError, RequestDecoder } from '../../src/nbd/server/transmission.ts';
import { type NbdServer, serveNbd } from '../../src/nbd.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { bytesOf, CLIENT_FLAGS, chunks, infoData, metaData, option, request } from './client-bytes.ts';

const SIZE = 2 ** 20 - 100;

/** The bytes of a correct client, in steps that the server answers. */
const NEGOTIATION: readonly Uint8Array[] = [
  CLIENT_FLAGS,
  option(8),
  option(3),
  option(9, metaData('disk', [])),
  option(10, metaData('disk', ['base:allocation', 'copyondemand:state'])),
  option(6, infoData('disk', [1, 2, 3])),
  option(7, infoData('disk', [3])),
];
const REQUESTS: readonly Uint8Array[] = [
  request({ type: 0, cookie: 1n, offset: 5, length: 5000 }),
  request({ type: 1, cookie: 2n, offset: 4000, length: 300, payload: new Uint8Array(300).fill(7) }),
  request({ type: 1, flags: 1, cookie: 3n, offset: 70_000, length: 70_000, payload: new Uint8Array(70_000).fill(8) }),
  request({ type: 7, cookie: 4n, length: SIZE }),
  request({ type: 7, flags: 8, cookie: 5n, length: SIZE }),
  request({ type: 5, cookie: 6n, offset: 400_000, length: 100_000 }),
  request({ type: 6, flags: 2, cookie: 7n, offset: 200_000, length: 50_000 }),
  request({ type: 4, cookie: 8n, offset: 300_000, length: 50_000 }),
  request({ type: 3, cookie: 9n }),
  request({ type: 0, flags: 4, cookie: 10n, offset: SIZE - 200_000, length: 200_000 }),
  request({ type: 2, cookie: 11n }),
];
const SESSION: Uint8Array = bytesOf(...NEGOTIATION, ...REQUESTS);

async function startServer(): Promise<{ server: NbdServer; path: string }> {
  const path = join(temporaryDirectory(), 's');
  const image = seededRandom(2).fill(new Uint8Array(SIZE));
  const device = await openDevice({
    source: bytesSource(image),
    fileSystem: memfsFileSystem(),
    target: 'disk',
    hydrate: false,
  });
  const server = await serveNbd(device, { socket: path, exportName: 'disk' });
  onTestFinished(async () => {
    await server.close();
    await device.close();
  });
  return { server, path };
}

/** Sends bytes and ends the stream. Resolves to everything received until the server closes the connection. */
async function converse(path: string, bytes: Uint8Array): Promise<Buffer> {
  const socket: Socket = connect(path);
  const received: Buffer[] = [];
  socket.on('data', (chunk) => received.push(chunk));
  // The server closes the connection during invalid bytes. Without a listener the error would fail the test.
  socket.on('error', () => undefined);
  const closed = new Promise((resolve) => socket.on('close', resolve));
  socket.end(bytes);
  await closed;
  return Buffer.concat(received);
}

/** Expects correct answers to a session: the last reply to an option, then every reply. */
async function expectServed(path: string): Promise<void> {
  const all = await converse(path, SESSION);
  const transmission = all.lastIndexOf(Buffer.from('0003e889045565a9', 'hex')) + 20;
  const replies = chunks(all.subarray(transmission));
  expect(replies.map(({ error }) => error)).toEqual(replies.map(() => 0));
  expect(new Set(replies.filter(({ done }) => done).map(({ cookie }) => cookie)).size).toBe(REQUESTS.length - 1);
}

test('answers a whole session sent at once', async () => {
  const { server, path } = await startServer();
  await expectServed(path);
  await expect.poll(() => server.connectionCount).toBe(0);
});

describe('arbitrary bytes', () => {
  test('leave a handshake open or ended, with replies in proportion to the input', () => {
    const greeting = fc.constantFrom(new Uint8Array(0), CLIENT_FLAGS, bytesOf(CLIENT_FLAGS, 'IHAVEOPT'));
    const numbers = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 40 }),
        fc
          .record({ number: fc.integer({ min: 0, max: 12 }), data: fc.uint8Array({ maxLength: 60 }) })
          .map(({ number, data }) => option(number, Buffer.from(data))),
        fc.constantFrom(...NEGOTIATION),
      ),
      { maxLength: 12 },
    );
    const exports = [
      {
        name: 'disk',
        size: SIZE,
        flags: 0xfff,
        minimumBlockBytes: 1,
        preferredBlockBytes: 4096,
        maximumPayloadBytes: 2 ** 25,
        contexts: ['base:allocation'],
      },
    ];
    fc.assert(
      fc.property(greeting, numbers, fc.constantFrom('absent' as const, 'required' as const), (first, rest, tls) => {
        const handshake = new Handshake({ exports, tls });
        let sent = 0;
        let replied = 0;
        for (const bytes of [first, ...rest]) {
          const action = handshake.receive(bytes);
          sent += bytes.length;
          replied += action.send.length;
          if (action.next === 'starttls') handshake.secured();
          else if (action.next !== 'receive') break;
        }
        expect(replied).toBeLessThanOrEqual(20 * sent + 200);
      }),
      { numRuns: 2000 },
    );
  });

  test('are decoded as requests or end the connection', () => {
    const pieces = fc.array(fc.oneof(fc.uint8Array({ maxLength: 60 }), fc.constantFrom(...REQUESTS)), {
      maxLength: 10,
    });
    fc.assert(
      fc.property(pieces, (sent) => {
        const decoder = new RequestDecoder({
          size: SIZE,
          flags: 0xfff,
          structuredReplies: true,
          hasContexts: true,
          maximumPayloadBytes: 2 ** 20,
          pieceBytes: 2 ** 15,
        });
        try {
          for (const bytes of sent) {
            decoder.push(bytes);
            while (decoder.next())
              expect(decoder.error === 0 ? decoder.payload.length : 0).toBe(
                decoder.type === 1 && decoder.error === 0 ? decoder.length : 0,
              );
          }
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

/** Changes some bytes of a session: replaces, removes, inserts, repeats or truncates; often in lengths. */
function mutate(seed: number): Uint8Array {
  const random = seededRandom(seed);
  let bytes: Uint8Array = SESSION.slice();
  for (let count = 1 + random.below(4); count > 0; count--) {
    // Half of the changes are near the numbers: in the negotiation, and in the headers of the first requests.
    const at = random.below(random.oneIn(2) ? 700 : bytes.length);
    const length = 1 + random.below(40);
    const kinds = [
      () => bytes.fill(random.below(256), at, at + 1 + random.below(4)),
      () => bytes.fill(0xff, at, at + 4),
      () => bytesOf(bytes.subarray(0, at), bytes.subarray(at + length)),
      () => bytesOf(bytes.subarray(0, at), random.fill(new Uint8Array(length)), bytes.subarray(at)),
      () => bytesOf(bytes.subarray(0, at + length), bytes.subarray(at)),
      () => bytes.slice(0, at),
    ];
    bytes = kinds[random.below(kinds.length)]!();
  }
  return bytes;
}

test('closes sessions with changed bytes, and serves the next client', async () => {
  const { server, path } = await startServer();
  const first = Number(process.env['COD_FUZZ_SEED'] ?? 1);
  for (let seed = first; seed < first + 400; seed += 8) {
    await Promise.all(Array.from({ length: 8 }, (_, index) => converse(path, mutate(seed + index))));
  }
  await expectServed(path);
  await expect.poll(() => server.connectionCount).toBe(0);
});

test('stops reading from a client that reads nothing, with bounded memory for its requests', async () => {
  const { server, path } = await startServer();
  await expectServed(path);
  const socket = connect(path);
  socket.on('error', () => undefined);
  socket.pause();
  socket.write(bytesOf(...NEGOTIATION));
  const many = bytesOf(
    ...Array.from({ length: 2000 }, (_, index) => request({ type: 0, cookie: BigInt(index), length: 65_536 })),
  );
  const before = process.memoryUsage().arrayBuffers;
  // 20,000 reads of 64 KiB would need more than a gigabyte.
  for (let count = 0; count < 10; count++) socket.write(many);
  let unsent = -1;
  while (unsent !== socket.writableLength) {
    unsent = socket.writableLength;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 26);
  socket.destroy();
  await expectServed(path);
  await expect.poll(() => server.connectionCount).toBe(0);
});
