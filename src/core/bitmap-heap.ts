/**
 * The memory of roaring-wasm: one heap for all maps of a thread, which grows to 2 GiB.
 *
 * Invariant: no call of roaring-wasm runs out of memory. One that did may have written to address 0 and returned, so
 * that no bitmap of the thread could be trusted. Room is therefore looked for before each call that may need some.
 * If a call traps all the same, all maps of the thread refuse every later call.
 */
import { RoaringUint8Array, roaringLibraryInitialize } from 'roaring-wasm/browser';
import { CodError, outOfMemory } from '../errors.ts';

const MAX_HEAP_BYTES = 2 ** 31;
/** The most that one call needs: a slice takes 2 MiB, and a call has at most three copies of it. */
const CALL_BYTES = 2 ** 23;
/** With this much behind its end, the heap has room whatever is free within. */
const SPARE_BYTES = 2 ** 26;

/** A few bytes of the heap, which know its size. */
let probe: RoaringUint8Array | undefined;
let failure: CodError | undefined;

/** Resolves when roaring-wasm is ready, which takes one turn of the event loop or a few. */
export function bitmapsReady(): Promise<unknown> {
  return roaringLibraryInitialize();
}

/** @throws {@link CodError} COD_NO_MEMORY if a call has failed, so that bitmaps may be wrong. */
export function checkHeap(): void {
  if (failure !== undefined) throw failure;
}

/**
 * Runs calls of roaring-wasm that may need memory.
 *
 * @throws {@link CodError} COD_NO_MEMORY
 */
export function allocating<T>(calls: () => T): T {
  checkRoom();
  try {
    return calls();
  } catch (error) {
    throw noMemory(error);
  }
}

/** As {@link allocating}, before the calls. Near the end of the heap this takes 1 ms. */
export function checkRoom(): void {
  checkHeap();
  try {
    probe ??= new RoaringUint8Array(8);
    if (probe.asTypedArray().buffer.byteLength > MAX_HEAP_BYTES - SPARE_BYTES)
      new RoaringUint8Array(CALL_BYTES).dispose();
  } catch (error) {
    throw outOfMemory('the block maps: close other devices', error);
  }
}

/** Returns the error to throw for what roaring-wasm has thrown. */
export function noMemory(error: unknown): unknown {
  // A use of a bitmap that was disposed; the rest is lack of memory, since arguments and bytes are checked.
  if (error instanceof CodError || error instanceof TypeError) return error;
  const found = outOfMemory('the block maps: end the process', error);
  // Nothing was written where the JavaScript of roaring-wasm found that it had no memory.
  if ((error as Error).name === 'RuntimeError') failure = found;
  return found;
}
