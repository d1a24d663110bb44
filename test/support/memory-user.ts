/**
 * A process that uses a device until memory is short, gets memory again, and closes the device.
 *
 * It prints `short CODE` for what was done without memory, `later STEP CODE` for what the device did when there was
 * memory again, and how many writes were acknowledged. CODE is `-` for a success. An error without a code ends it.
 */

import { writeSync } from 'node:fs';
import { RoaringUint8Array } from 'roaring-wasm/browser';
import { type Device, isCodError, openDevice } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { Core } from '../../src/wasm/core.ts';
import { DEVICE_BYTES, FIRST_WRITES, type MemoryOrder, memoryWrite, source, WRITES } from './memory-load.ts';

const order = JSON.parse(process.argv[2]!) as MemoryOrder;
const say = (line: string): unknown => writeSync(1, `${line}\n`);

async function outcome(call: () => Promise<unknown>): Promise<string> {
  try {
    await call();
    return '-';
  } catch (error) {
    if (isCodError(error)) return error.code;
    throw error;
  }
}

const open = (target: string): Promise<Device> =>
  openDevice({
    source,
    fileSystem: nodeFileSystem(order.directory),
    target,
    hydrate: false,
    checkpointIntervalMs: 3_600_000,
  });

/** Takes all memory of the bitmaps. Returns a function that gives it back. */
function takeHeap(): () => void {
  const { grow } = WebAssembly.Memory.prototype;
  const { asTypedArray } = RoaringUint8Array.prototype;
  const print = console.error;
  // roaring-wasm prints the aborts that it throws.
  console.error = () => undefined;
  WebAssembly.Memory.prototype.grow = () => {
    throw new RangeError('WebAssembly.Memory.grow(): Maximum memory size exceeded');
  };
  const taken: RoaringUint8Array[] = [];
  for (let length = 2 ** 20; length >= 8; ) {
    try {
      taken.push(new RoaringUint8Array(length));
    } catch {
      length /= 2;
    }
  }
  if (order.shortage === 'heap') {
    // The heap seems to have its full size, so that only what is free within is room.
    const view = new Uint8Array(8);
    Object.defineProperty(view, 'buffer', { value: { byteLength: 2 ** 31 } });
    RoaringUint8Array.prototype.asTypedArray = () => view;
  }
  return () => {
    WebAssembly.Memory.prototype.grow = grow;
    RoaringUint8Array.prototype.asTypedArray = asTypedArray;
    console.error = print;
    for (const bytes of taken) bytes.dispose();
  };
}

if (order.shortage === 'core') {
  const create = Core.create.bind(Core);
  Core.create = (bytes, options) => {
    const isShared = options?.memoryLimit !== undefined;
    return create(bytes, isShared ? { memoryLimit: order.coreBytes! } : options);
  };
}

const device = await open('disk');
let written = 0;
async function write(count: number): Promise<void> {
  for (const end = written + count; written < end; written++) {
    const { offset, bytes } = memoryWrite(written);
    await device.write(bytes, offset);
  }
}

async function discard(): Promise<void> {
  for (let block = 0; block < 2 ** 17; block++) await device.discard((2 * block + 1) * 4096, 4096);
}

await write(FIRST_WRITES);
await (await open('other')).close();
const giveBack = order.shortage === 'core' ? (): void => undefined : takeHeap();
const acts: Readonly<Record<MemoryOrder['act'], () => Promise<unknown>>> = {
  write: () => write(WRITES - FIRST_WRITES),
  discard,
  flush: () => device.flush(),
  checkpoint: () => device.checkpoint(),
  extents: () => device.extents(0, DEVICE_BYTES, 1000),
  open: async () => (await open('other')).close(),
  close: () => device.close(),
};
say(`short ${await outcome(acts[order.act])}`);
giveBack();
say(`later write ${await outcome(() => write(10))}`);
say(`later flush ${await outcome(() => device.flush())}`);
say(`later close ${await outcome(() => device.close())}`);
say(`wrote ${written}`);
