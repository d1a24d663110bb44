/** A process that writes, flushes, writes more and kills itself, so that all later writes are unflushed. */

import { openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { type LostVolumeOrder, lostVolumeWrites } from './lost-volume-load.ts';

const order = JSON.parse(process.argv[2]!) as LostVolumeOrder;
const device = await openDevice({
  source: await fileSource(order.source),
  fileSystem: nodeFileSystem(order.directory),
  target: 'disk',
  hydrate: false,
  // No checkpoint in the background makes a write durable.
  checkpointIntervalMs: 3_600_000,
});
const { flushed, unflushed } = lostVolumeWrites(order);
const write = ({ offset, length, seed }: (typeof flushed)[number]): Promise<void> =>
  device.write(seededRandom(seed).fill(new Uint8Array(length)), offset);
for (const each of flushed) await write(each);
await device.flush();
for (const each of unflushed) await write(each);
process.kill(process.pid, 'SIGKILL');
