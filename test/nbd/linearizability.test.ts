/**
 * Clients of one NBD export over several connections, whose requests must be linearizable in each sector. Some of the
 * connections are lost with requests in flight.
 *
 * COD_LINEAR_NBD_SEED=… repeats what the clients ask, not the moments; COD_LINEAR_NBD_ROUNDS=… sets the number of
 * rounds.
 */

import { join } from 'node:path';
import { setImmediate as immediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { bytesSource, openDevice } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import { serveNbd } from '../../src/nbd.ts';
import { checkLinearizable, SectorHistory, seededRandom } from '../../src/testing/index.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { readDisk, useDisk } from '../support/disk-users.ts';
import { effort } from '../support/effort.ts';
import { NbdClient, NbdFailure } from '../support/nbd-client.ts';
import { slowFileSystem } from '../support/scheduler.ts';

const ROUNDS = effort('COD_LINEAR_NBD_ROUNDS', { short: 2, long: 100 });
const FIRST_SEED = Number(process.env['COD_LINEAR_NBD_SEED'] ?? 1);
const SIZE = 2 ** 16;
const CONNECTIONS = 4;
/** Requests that a connection has in flight at most. */
const DEPTH = 3;

test('requests over several connections are linearizable, also if connections are lost', async () => {
  let requests = 0;
  for (let seed = FIRST_SEED; seed < FIRST_SEED + ROUNDS; seed++) {
    const random = seededRandom(seed);
    const initial = random.fill(new Uint8Array(SIZE));
    const history = new SectorHistory({ initial });
    const socket = join(temporaryDirectory(), 's');
    // Storage that answers synchronously, or in a later turn of the event loop.
    const turn = (): Promise<void> => (random.oneIn(2) ? immediate() : Promise.resolve());
    const isSlow = seed % 2 === 1;
    const device = await openDevice({
      source: bytesSource(initial),
      fileSystem: isSlow ? slowFileSystem(memfsFileSystem(), { turn }, random.fork()) : memfsFileSystem(),
      target: 'disk',
      hydrate: random.oneIn(2) && {},
    });
    const server = await serveNbd(device, { socket });
    const connection = async (name: number): Promise<void> => {
      const client = await NbdClient.connect(socket);
      const own = random.fork();
      const lostAfter = own.oneIn(2) ? own.below(60) : Number.POSITIVE_INFINITY;
      let pauses = 0;
      const users = Array.from({ length: DEPTH }, () =>
        useDisk(client, {
          history,
          random: own.fork(),
          by: `connection ${name}`,
          steps: 40,
          size: SIZE,
          pause: async () => {
            if (pauses++ === lostAfter) client.destroy();
            if (own.oneIn(3)) await immediate();
          },
          isExpected: (error) => error instanceof NbdFailure && pauses > lostAfter,
        }),
      );
      await Promise.all(users);
      if (pauses <= lostAfter) await client.disconnect();
    };
    await Promise.all(Array.from({ length: CONNECTIONS }, (_, index) => connection(index + 1)));
    const last = await NbdClient.connect(socket);
    await readDisk(last, { history, size: SIZE });
    await last.disconnect();
    await server.close();
    await device.close();
    requests += history.requests.length;
    expect(checkLinearizable(history)?.message, `COD_LINEAR_NBD_SEED=${seed}`).toBeUndefined();
  }
  if (process.env['COD_LINEAR_FIGURES']) console.log({ requests, histories: ROUNDS });
  expect(requests).toBeGreaterThan(100 * ROUNDS);
});
