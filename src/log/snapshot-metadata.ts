/**
 * The metadata of a snapshot: of a copy that is made as a whole, beside the copy that it is taken of.
 *
 *   claim → (the caller makes the target and fills the state) → commit, or abandon → close
 *
 * Invariants (docs/RECOVERY.md, "A snapshot"):
 * - Before a target exists, a checkpoint says durably that nothing of it counts. It has an identity of its own, so that
 *   no source is taken for its source.
 * - The checkpoint that counts is written after the target is durable.
 * - No file that existed before is changed or removed.
 */

import { CopyState } from '../core/copy-state.ts';
import type { Geometry } from '../core/geometry.ts';
import { CodError, isCodError } from '../errors.ts';
import type { FileSystem } from '../fs/file-system.ts';
import type { Environment } from '../platform/clock.ts';
import type { Core } from '../wasm/core.ts';
import { parsing, sharedCore } from '../wasm/cores.ts';
import { Checkpointer } from './checkpointer.ts';
import { type Ownership, takeOwnership } from './ownership.ts';
import { recover } from './recovery.ts';
import { ALL_SLOTS, Slots, slotName } from './slots.ts';

const SESSION_BYTES = 16;

/** The identity of a snapshot that is not complete. Only a source of this identity could be used with it. */
export const UNFINISHED = 'an unfinished snapshot';

/** What making a snapshot needs, and its name. */
export interface SnapshotPlace {
  readonly environment: Environment;
  readonly fileSystem: FileSystem;
  readonly name: string;
  readonly geometry: Geometry;
}

export class SnapshotMetadata {
  /** What the snapshot holds. Empty at first: the caller fills it. */
  readonly state: CopyState;
  readonly #place: SnapshotPlace;
  readonly #core: Core;
  readonly #slots: Slots;
  readonly #lease: Ownership;
  readonly #session = new Uint8Array(SESSION_BYTES);

  private constructor(place: SnapshotPlace, parts: { core: Core; state: CopyState; slots: Slots; lease: Ownership }) {
    this.#place = place;
    this.#core = parts.core;
    this.state = parts.state;
    this.#slots = parts.slots;
    this.#lease = parts.lease;
    place.environment.randomBytes(this.#session);
  }

  /**
   * Claims the name of a snapshot, durably. Changes nothing if a file is in the way.
   *
   * @throws {@link CodError} COD_EXISTS if any of its names is taken; COD_LOCKED if it has an owner; COD_NO_SPACE;
   * COD_TARGET_IO.
   */
  static async claim(place: SnapshotPlace, signal: AbortSignal): Promise<SnapshotMetadata> {
    const { fileSystem, name, geometry } = place;
    const lease = await takeOwnership(fileSystem, name, { signal });
    const slots = new Slots(fileSystem, name, { owner: lease });
    let claimed: SnapshotMetadata | undefined;
    try {
      await refuseTaken(place, slots);
      const core = sharedCore();
      claimed = new SnapshotMetadata(place, { core, state: await CopyState.open(core, geometry), slots, lease });
      await claimed.#write(-1, UNFINISHED, undefined);
      return claimed;
    } catch (error) {
      await claimed?.abandon();
      claimed?.state.dispose();
      await closeAll(slots, lease);
      throw causeOf(error);
    }
  }

  /**
   * Makes the snapshot count: writes the state as a checkpoint that needs no log.
   *
   * @param syncTarget makes the target durable, before the checkpoint is
   * @throws {@link CodError} COD_NO_SPACE, COD_TARGET_IO; COD_LOCKED if another owner has taken over. Call
   * {@link abandon} then.
   */
  async commit(identity: string | undefined, syncTarget: () => Promise<void>): Promise<void> {
    try {
      await this.#write(0, identity, syncTarget);
      // Void from now on: if it stays, the newer checkpoint counts.
      await this.#slots.remove('checkpoint', 0).catch(() => undefined);
    } catch (error) {
      throw causeOf(error);
    }
  }

  /** Writes the checkpoint that follows `epoch`. */
  async #write(epoch: number, identity: string | undefined, sync: (() => Promise<void>) | undefined): Promise<void> {
    const checkpointer = new Checkpointer(
      {
        core: this.#core,
        clock: this.#place.environment.clock,
        slots: this.#slots,
        owner: this.#lease,
        identity,
      },
      this.state,
      { session: this.#session, epoch },
    );
    if (sync !== undefined) checkpointer.attach(sync);
    await checkpointer.writeStandalone();
    await this.#lease.fence();
  }

  /** Removes the snapshot after a failure, as far as the disk allows it: the target by `remove`, then the metadata. */
  async abandon(remove?: () => Promise<void>): Promise<void> {
    try {
      // The names may be those of another owner's files.
      await this.#lease.fence();
      await remove?.();
      await this.#slots.removeOpen();
    } catch {
      // What is left says that nothing counts, and can be removed later. The caller has the cause.
    }
  }

  /** Closes the files and releases the name. */
  async close(): Promise<void> {
    await this.#place.environment.clock.turn?.();
    this.state.dispose();
    await closeAll(this.#slots, this.#lease);
  }
}

/** Whether `name` is one of the names of the copy `target`, whether the file exists or not. */
export function isNameOf(target: string, name: string): boolean {
  const isSlot = ALL_SLOTS.some(({ kind, slot }) => slotName(target, kind, slot) === name);
  return name === target || isSlot || name.startsWith(`${target}.lock`);
}

async function closeAll(slots: Slots, lease: Ownership): Promise<void> {
  try {
    await slots.close();
  } finally {
    await lease.release();
  }
}

/** The snapshot's own log is poisoned by what the caller needs to know, and never used again. */
function causeOf(error: unknown): unknown {
  return isCodError(error, 'COD_POISONED') ? error.cause : error;
}

/** @throws {@link CodError} COD_EXISTS if a file of another program or copy has one of the names. */
async function refuseTaken({ environment, fileSystem, name, geometry }: SnapshotPlace, slots: Slots): Promise<void> {
  // Nothing of what is found is used, so nothing needs a proof.
  const read = () => Promise.reject(new CodError('COD_NOT_FOUND', name));
  const storage = { size: async () => geometry.size, read };
  const found = await parsing(async (core) => {
    const found = await recover(core, slots, storage, environment.clock);
    found?.state.dispose();
    return found;
  }).catch((cause: unknown) => {
    if (!isCodError(cause, 'COD_CORRUPT') && !isCodError(cause, 'COD_VERSION')) throw cause;
    throw new CodError('COD_EXISTS', cause.message, { cause, details: cause.details });
  });
  if (found?.identity === UNFINISHED) throw exists(found.files[0]!.name, `${UNFINISHED}: remove it`);
  if (found !== undefined) throw exists(found.files[0]!.name, 'the file exists');
  try {
    await (await fileSystem.open(name, { readOnly: true })).close();
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND')) return;
    throw error;
  }
  throw exists(name, 'the file exists');
}

function exists(file: string, what: string): CodError {
  return new CodError('COD_EXISTS', `${file}: ${what}`, { details: { file } });
}
