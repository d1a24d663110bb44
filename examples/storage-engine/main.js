/** Reads and writes some slots of a store in ./data, and prints how long each call took. */

import { mkdirSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { nodeFileSystem } from 'copyondemand/node';
import { openSlotStore, SLOT_BYTES } from './store.js';

const toSlot = (text) => new TextEncoder().encode(text.padEnd(SLOT_BYTES));

/** Simulates a remote server: 100 ms for each slot. */
const original = {
  identity: 'numbers, version 1',
  read: async (slot) => {
    await setTimeout(100);
    return toSlot(`original of slot ${slot}`);
  },
};

mkdirSync('data', { recursive: true });
const store = await openSlotStore({ fileSystem: nodeFileSystem('data'), name: 'slots', slotCount: 1000, original });

for (const slot of [7, 8, 500]) {
  const start = performance.now();
  const text = new TextDecoder().decode(await store.get(slot)).trim();
  console.log(`slot ${slot}: ${text} (${Math.round(performance.now() - start)} ms)`);
}

await store.put(8, toSlot(`written by process ${process.pid}`)); // survives kill -9
if (process.argv.includes('--kill')) process.kill(process.pid, 'SIGKILL');
await store.flush(); // survives a power cut
await store.close();
