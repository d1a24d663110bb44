/** Clients that do harm with what the protocol allows: they are silent, or do not read their replies. */

import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { makeImage, makeSparse } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { bytesOf, CLIENT_FLAGS, infoData, option, request } from '../nbd/client-bytes.ts';
import { startServe } from '../support/programs.ts';

const MiB = 2 ** 20;
const PLACES = 64;
const GO: Uint8Array = bytesOf(CLIENT_FLAGS, option(7, infoData('')));

/** The greeting and the replies to GO. */
const GO_BYTES = 18 + 52;

/** Connects a client. The promise resolves to whether `bytes` have arrived before the connection has ended. */
function client(path: string, sent: Uint8Array, bytes: number): { socket: Socket; arrived: Promise<boolean> } {
  const socket = connect(path);
  onTestFinished(() => void socket.destroy());
  socket.on('error', () => undefined);
  socket.write(sent);
  let received = 0;
  const arrived = new Promise<boolean>((resolve) => {
    socket.on('data', (chunk) => {
      received += chunk.length;
      if (received >= bytes) resolve(true);
    });
    socket.on('close', () => resolve(false));
  });
  return { socket, arrived };
}

test('a client is served beside silent connections, and refused beside 64 others with one line on stderr', async () => {
  const directory = temporaryDirectory();
  const image = makeImage(directory);
  const socket = join(directory, 's');
  const { stop } = await startServe(image, join(directory, 'disk'), '--socket', socket);
  const nothing = new Uint8Array(0);
  for (let count = 0; count < PLACES; count++) expect(await client(socket, nothing, 18).arrived).toBe(true);
  for (let count = 0; count < PLACES; count++) expect(await client(socket, GO, GO_BYTES).arrived).toBe(true);
  for (let count = 0; count < 3; count++) expect(await client(socket, GO, 1).arrived).toBe(false);
  const { exitCode, stderr } = await stop();
  expect(exitCode).toBe(0);
  expect(stderr.split('\n').filter((line) => line.includes('refused'))).toEqual([
    'copyondemand: all places for clients are taken; clients refused so far: 1',
  ]);
});

/** The most memory that a process had, in MiB. */
function peakMemory(pid: number): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;
}

test.skipIf(process.platform !== 'linux')('clients that do not read their replies cost a bounded memory', async () => {
  const directory = temporaryDirectory();
  const image = makeSparse(join(directory, 'image'), 64 * MiB);
  const path = join(directory, 's');
  const { pid, stop } = await startServe(image, join(directory, 'disk'), '--socket', path, '--no-hydrate');
  const readAt = (offset: number, length: number): Uint8Array => request({ type: 0, offset, length });
  const before = peakMemory(pid);
  for (let count = 0; count < 24; count++) {
    const { socket, arrived } = client(path, GO, GO_BYTES);
    expect(await arrived).toBe(true);
    socket.pause();
    const kind = count % 3;
    if (kind === 0) socket.write(bytesOf(...Array.from({ length: 20 }, () => readAt(0, 32 * MiB))));
    if (kind === 1) socket.write(bytesOf(...Array.from({ length: 5000 }, (_, index) => readAt(4096 * index, 4096))));
    // The payload does not end.
    if (kind === 2) socket.write(bytesOf(request({ type: 1, length: 32 * MiB }), new Uint8Array(31 * MiB)));
  }
  // Another client is served meanwhile. The memory is bounded from the first request on.
  for (let count = 0; count < 10; count++) {
    const sent = bytesOf(GO, readAt(0, 8 * MiB), readAt(count * MiB, 100));
    expect(await client(path, sent, GO_BYTES + 16 + 8 * MiB + 16 + 100).arrived).toBe(true);
  }
  // 16 clients with 32 MiB each would need 512 MiB.
  expect(peakMemory(pid) - before).toBeLessThan(320);
  expect((await stop()).exitCode).toBe(0);
});
