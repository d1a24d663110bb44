/** A process that opens the devices of a folder, in turn or at once, and prints its address space before and after. */

import { readFileSync } from 'node:fs';
import { bytesSource, openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';

const [folder, count, how] = process.argv.slice(2) as [string, string, 'in turn' | 'at once'];
const fileSystem = nodeFileSystem(folder);
const source = bytesSource(new Uint8Array(2 ** 16), { identity: 'zeros' });

/** Bytes of address space that the process has reserved. */
function addressSpace(): number {
  return Number(/^VmSize:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))![1]) * 1024;
}

async function use(index: number): Promise<{ close(): Promise<void> }> {
  const device = await openDevice({ source, fileSystem, target: `disk${index}`, hydrate: false });
  await device.write(Uint8Array.of(1, 2, 3), 100);
  return device;
}

const before = addressSpace();
const indices = Array.from({ length: Number(count) }, (_, index) => index);
const devices: { close(): Promise<void> }[] = [];
if (how === 'at once') devices.push(...(await Promise.all(indices.map(use))));
else for (const index of indices) devices.push(await use(index));
const after = addressSpace();
for (const device of devices) await device.close();
console.log(JSON.stringify({ before, after }));
