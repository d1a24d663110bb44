/** Clients that do harm with what the protocol allows: they are silent, or do not read their replies. */

import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { makeImage } from '../cli/copies.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { bytesOf, CLIENT_FLAGS, infoData, option } from '../nbd/client-bytes.ts';
import { startServe } from '../support/programs.ts';

const PLACES = 64;
const GO: Uint8Array = bytesOf(CLIENT_FLAGS, option(7, infoData('')));

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
  for (let count = 0; count < PLACES; count++) expect(await client(socket, GO, 18 + 52).arrived).toBe(true);
  for (let count = 0; count < 3; count++) expect(await client(socket, GO, 1).arrived).toBe(false);
  const { exitCode, stderr } = await stop();
  expect(exitCode).toBe(0);
  expect(stderr.split('\n').filter((line) => line.includes('refused'))).toEqual([
    'copyondemand: all 64 places are taken; clients refused so far: 1',
  ]);
});
