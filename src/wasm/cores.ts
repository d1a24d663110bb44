/**
 * The instances of the core. An instance reserves 10 GiB of address space, whatever its maximum (V8, 2026), so all
 * devices of a thread share one.
 *
 * - The shared instance has our own data: dirty maps, frames, sums. If a call traps, all of its devices are poisoned,
 *   and later ones get another instance.
 * - The parsing instance has bytes from outside: the metadata of copies that are opened or inspected. It is dropped
 *   after a failure, and when it has grown.
 *
 * Invariant: neither the staging area nor any view of an instance is used across an `await`, since tasks of several
 * devices take turns.
 */
import { outOfMemory } from '../errors.ts';
import { Core } from './core.ts';

const SHARED_BYTES = 2 ** 31;
/**
 * New devices use an instance until this share of it is used. Freed memory serves only blocks of its size, so devices
 * that come and go could use up an instance.
 */
const SHARE_FOR_NEW = 1 / 2;
/** What stays free for the changes that are in flight when memory becomes short. */
const SHARE_IN_RESERVE = 1 / 8;
/** A parsing instance of at most this many bytes is kept for the next task. */
const KEPT_BYTES = 2 ** 24;

let shared: Core | undefined;

/**
 * Returns the instance for a device that begins with `bytes` bytes in it.
 *
 * @throws {@link CodError} COD_NO_MEMORY
 */
export function sharedCore(bytes: number = 0): Core {
  if (shared?.hasRoom(1 - SHARE_FOR_NEW, bytes)) return shared;
  shared = Core.create(undefined, { memoryLimit: SHARED_BYTES });
  if (shared.hasRoom(SHARE_IN_RESERVE, bytes)) return shared;
  throw outOfMemory(`${bytes} bytes of dirty parts`);
}

let parser: Core | undefined;

/** Runs a task that reads bytes from outside. Tasks that overlap share the instance, and fail together if it fails. */
export async function parsing<T>(task: (core: Core) => Promise<T>): Promise<T> {
  const core = (parser ??= Core.create());
  try {
    return await task(core);
  } finally {
    if (parser === core && (core.failure !== undefined || core.memoryBytes > KEPT_BYTES)) parser = undefined;
  }
}
