/** The writes of a device whose memory becomes short. Numbers alone determine them, for two processes. */

import type { Source } from '../../src/index.ts';

/** What becomes short: the memory of the core, or the heap of the bitmaps, which says so before a call or in it. */
export type Shortage = 'core' | 'heap' | 'heap, unforeseen';

/** What is done while memory is short. */
export const ACTS = ['write', 'discard', 'flush', 'checkpoint', 'extents', 'open', 'close'] as const;

/** The argument of the process, as JSON. */
export interface MemoryOrder {
  readonly directory: string;
  readonly shortage: Shortage;
  readonly act: (typeof ACTS)[number];
  /** Bytes of the core's memory. */
  readonly coreBytes?: number;
}

export const DEVICE_BYTES: number = 2 ** 40;
/** What the device is a copy of. */
export const source: Source = {
  size: DEVICE_BYTES,
  identity: 'zeros',
  read: async (into) => void into.fill(0),
  close: async () => undefined,
};
export const WRITE_BYTES = 7;
/** Writes before memory is short. */
export const FIRST_WRITES = 300;
/** Writes in all. */
export const WRITES = 30_000;

const BLOCK_BYTES = 4096;

/** Write number `index`: to a block of its own, a part of a cell. */
export function memoryWrite(index: number): { offset: number; bytes: Uint8Array } {
  return { offset: 2 * index * BLOCK_BYTES + 100, bytes: new Uint8Array(WRITE_BYTES).fill(1 + (index % 255)) };
}
