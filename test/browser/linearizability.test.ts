/**
 * Users of one disk in several devices of a page, as in several tabs, while workers end. Their requests must be
 * linearizable in each sector.
 *
 * Each user writes sectors of its own: a write whose answer was lost with a worker is sent again, and then replaces
 * what another user has written to the same bytes meanwhile (docs/BROWSER.md).
 */

import { expect, onTestFinished, test } from 'vitest';
import { type BrowserDevice, openDevice } from '../../src/browser.ts';
import { checkLinearizable, SectorHistory, seededRandom } from '../../src/testing/index.ts';
import { readDisk, useDisk } from '../support/disk-users.ts';
import { bundledWorker } from './workers.ts';

const SIZE = 2 ** 16;
const DEVICES = 3;
const USERS_PER_DEVICE = 3;
const STEPS = 30;
/** After this many requests all workers end: that of the owner, and those that forward calls to it. */
const REQUESTS_PER_WORKER = 90;

test('requests of several devices are linearizable, also if all workers are terminated', async () => {
  const random = seededRandom(1);
  const initial = random.fill(new Uint8Array(SIZE)) as Uint8Array<ArrayBuffer>;
  // A call that was sent again takes effect once all the same. So the crash of a worker is none of the disk.
  const history = new SectorHistory({ initial });
  const source = new Blob([initial]);
  const target = `disk-${Date.now()}`;
  const workers: Worker[] = [];
  const worker = (): Worker => {
    const started = bundledWorker('browser-worker');
    workers.push(started);
    return started;
  };
  const devices: BrowserDevice[] = [];
  onTestFinished(async () => {
    for (const device of devices) await device.close();
  });
  while (devices.length < DEVICES) devices.push(await openDevice({ source, target, hydrate: false, worker }));

  let requests = 0;
  const pause = async (): Promise<void> => {
    if (++requests % REQUESTS_PER_WORKER === 0) for (const running of workers.splice(0)) running.terminate();
  };
  const count = DEVICES * USERS_PER_DEVICE;
  const users = Array.from({ length: count }, (_, index) => {
    const by = `user ${index + 1} of device ${1 + (index % DEVICES)}`;
    const own = { index, count };
    return useDisk(devices[index % DEVICES]!, {
      history,
      random: random.fork(),
      by,
      steps: STEPS,
      size: SIZE,
      own,
      pause,
    });
  });
  await Promise.all(users);
  await readDisk(devices[0]!, { history, size: SIZE });
  expect(checkLinearizable(history)?.message).toBeUndefined();
});
