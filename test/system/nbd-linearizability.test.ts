/**
 * Clients of `serve`, which is killed and started again. Acknowledged writes survive, and the requests of all lives
 * must be linearizable in each sector.
 *
 * COD_LINEAR_KILL_SEED=… repeats what the clients ask, not the moments; COD_LINEAR_KILL_LIVES=… sets the number of
 * lives.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as immediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { checkLinearizable, type Random, SectorHistory, seededRandom } from '../../src/testing/index.ts';
import { temporaryDirectory } from '../cli/temporary.ts';
import { readDisk, useDisk } from '../support/disk-users.ts';
import { effort } from '../support/effort.ts';
import { NbdClient, NbdFailure } from '../support/nbd-client.ts';
import { startServe } from '../support/programs.ts';

const LIVES = effort('COD_LINEAR_KILL_LIVES', { short: 3, long: 20 });
const SIZE = 2 ** 20;
const CONNECTIONS = 4;
/** Requests that a connection has in flight at most. */
const DEPTH = 3;

/** Sends requests over all connections until they are lost. Calls `kill` before one of the requests. */
async function useUntilKilled(
  clients: readonly NbdClient[],
  { history, random, kill }: { history: SectorHistory; random: Random; kill: () => void },
): Promise<void> {
  let untilKill = 40 + random.below(400);
  const users = clients.flatMap((client, index) =>
    Array.from({ length: DEPTH }, async () => {
      const own = random.fork();
      let isLost = false;
      while (!isLost) {
        await useDisk(client, {
          history,
          random: own,
          by: `connection ${index + 1}`,
          steps: 1,
          size: SIZE,
          pause: async () => {
            if (untilKill-- === 0) kill();
            if (own.oneIn(3)) await immediate();
          },
          isExpected: (error) => {
            isLost = error instanceof NbdFailure && error.message === 'the connection was lost';
            return isLost;
          },
        });
      }
    }),
  );
  await Promise.all(users);
}

test(`requests to a server that is killed ${LIVES} times are linearizable`, async () => {
  const seed = Number(process.env['COD_LINEAR_KILL_SEED'] ?? Date.now() % 2 ** 31);
  const random = seededRandom(seed);
  const directory = temporaryDirectory();
  const initial = random.fill(new Uint8Array(SIZE));
  writeFileSync(join(directory, 'image'), initial);
  const socket = join(directory, 's');
  const start = (): ReturnType<typeof startServe> =>
    startServe(join(directory, 'image'), join(directory, 'disk'), '--socket', socket, '--rate', '1M');
  const history = new SectorHistory({ initial });
  for (let life = 0; life < LIVES; life++) {
    const { stop } = await start();
    let killed: ReturnType<typeof stop> | undefined;
    const clients = await Promise.all(Array.from({ length: CONNECTIONS }, () => NbdClient.connect(socket)));
    const kill = (): void => {
      killed = stop('SIGKILL');
    };
    await useUntilKilled(clients, { history, random: random.fork(), kill });
    await killed;
    history.crash('process');
  }
  const { stop } = await start();
  const last = await NbdClient.connect(socket);
  await readDisk(last, { history, size: SIZE });
  await last.disconnect();
  await stop();
  const answered = history.requests.filter(({ ended }) => ended !== undefined).length;
  console.log(`${answered} requests answered, ${history.requests.length - answered} in flight when the server died`);
  expect(checkLinearizable(history)?.message, `COD_LINEAR_KILL_SEED=${seed}`).toBeUndefined();
  expect(answered).toBeGreaterThan(20 * LIVES);
});
