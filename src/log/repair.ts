/**
 * Repairs damaged metadata: keeps what is proved, and makes a copy that opens. All else is fetched again.
 *
 *   own → read → plan → save the old files as `.old` → checkpoint of what is proved, in a new session → remove the rest
 *
 * Each step is durable before the next begins. Invariants:
 * - Until the new checkpoint is durable, the copy is refused as before: the checkpoint goes into a slot without whose
 *   file the others are refused too.
 * - Then each old file that is left belongs to another session, so the copy is refused until all are gone.
 * - Nothing is lost: all old files are saved before the first one changes. An interrupted repair reads the saved ones.
 */

import type { CopyState } from '../core/copy-state.ts';
import { HEADER_BYTES } from '../core/layout.ts';
import { newBytes } from '../core/new-bytes.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { readNamed } from '../fs/inline-file.ts';
import type { Environment } from '../platform/clock.ts';
import type { Core } from '../wasm/core.ts';
import { parsing } from '../wasm/cores.ts';
import { Checkpointer } from './checkpointer.ts';
import { lostOf } from './lost-bytes.ts';
import { assertNotOwned, type Ownership, takeOwnership } from './ownership.ts';
import type { Extent } from './proof.ts';
import { recover } from './recovery.ts';
import { contentsOf } from './removal.ts';
import { isValid, type Part, readPart, type Salvage, salvage } from './salvage.ts';
import { ALL_SLOTS, type FileKind, type SlotIndex, Slots, slotName, voidHeader } from './slots.ts';
import { writeAgain } from './write-again.ts';

const SESSION_BYTES = 16;
/** Bytes of a file that are compared or copied at a time. */
const PIECE_BYTES = 2 ** 18;

/** What a repair does, or has done. Bytes are those of the image. */
export interface RepairPlan {
  /** What is damaged, one line each. Empty: the copy opens, and a repair changes nothing. */
  readonly problems: readonly string[];
  readonly size: number;
  /** Bytes that the target holds, and that survive. */
  readonly copiedBytes: number;
  /** The most bytes of those that users wrote: blocks count whole. */
  readonly modifiedBytes: number;
  /** The most bytes written by users that are lost: nothing says whether they were written. */
  readonly lostBytes: number;
  /** Where the lost bytes are, if there are any: ascending, and neither touching nor overlapping. */
  readonly lost: readonly Extent[];
  /** Whether the identity of the source is lost, so that another source would not be noticed. */
  readonly losesIdentity: boolean;
  /** The names under which the old files are kept. */
  readonly saved: readonly string[];
}

interface RepairOptions {
  readonly fileSystem: FileSystem;
  readonly target: string;
  /** Prefix of the metadata files' names. Default: `target`. */
  readonly metadata?: string | undefined;
  /** False: only the plan is made, and nothing changes. */
  readonly apply: boolean;
  /** Called with the plan before anything changes. */
  readonly onPlan?: (plan: RepairPlan) => void;
  readonly signal?: AbortSignal;
}

/**
 * Plans a repair, and does it with `apply`.
 * @throws {@link CodError} COD_NOT_FOUND if there is no metadata; COD_LOCKED if the copy is in use; COD_EXISTS for a
 * foreign file, and for an `.old` file that is in the way; COD_VERSION; COD_CORRUPT or COD_SIZE_MISMATCH if the target
 * does not fit or the files are of several copies; the errors of the file system.
 */
export async function repairIn(environment: Environment, options: RepairOptions): Promise<RepairPlan> {
  const { fileSystem, target, metadata = target, apply, signal } = options;
  signal?.throwIfAborted();
  const lease = apply ? await takeOwnership(fileSystem, metadata, { signal }) : undefined;
  const opened = new OpenedFiles(fileSystem);
  try {
    if (lease === undefined) await assertNotOwned(fileSystem, metadata);
    return await parsing((core) => new Repair(core, environment, options, opened, lease).run());
  } finally {
    await opened.close();
    await lease?.release();
  }
}

/** Files that are only read. */
class OpenedFiles {
  readonly #fileSystem: FileSystem;
  readonly #files: File[] = [];

  constructor(fileSystem: FileSystem) {
    this.#fileSystem = fileSystem;
  }

  async find(name: string): Promise<File | undefined> {
    try {
      const file = await this.#fileSystem.open(name, { noFollow: true, readOnly: true });
      this.#files.push(file);
      return file;
    } catch (error) {
      if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
      throw error;
    }
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#files.splice(0).map((file) => file.close()));
  }
}

/** Files of which one is taken for missing. */
class SlotsWithout extends Slots {
  readonly #hidden: SlotIndex;

  constructor(fileSystem: FileSystem, target: string, hidden: SlotIndex) {
    super(fileSystem, target, { readOnly: true });
    this.#hidden = hidden;
  }

  override async find(kind: FileKind, slot: SlotIndex): Promise<File | undefined> {
    return kind === 'checkpoint' && slot === this.#hidden ? undefined : super.find(kind, slot);
  }
}

/** The files that a repair reads, and how far an earlier repair came. */
interface Found {
  readonly parts: readonly Part[];
  /** The slot of the checkpoint that an interrupted repair was writing, if all old files are saved. */
  readonly begun: { readonly slot: SlotIndex; readonly isDurable: boolean } | undefined;
}

class Repair {
  readonly #core: Core;
  readonly #environment: Environment;
  readonly #options: RepairOptions;
  readonly #opened: OpenedFiles;
  #isDevice = false;
  readonly #lease: Ownership | undefined;

  constructor(
    core: Core,
    environment: Environment,
    options: RepairOptions,
    opened: OpenedFiles,
    lease: Ownership | undefined,
  ) {
    this.#core = core;
    this.#environment = environment;
    this.#options = options;
    this.#opened = opened;
    this.#lease = lease;
  }

  async run(): Promise<RepairPlan> {
    const { apply, onPlan, signal } = this.#options;
    const targetBytes = await this.#targetBytes();
    const refusal = await this.#refusal(targetBytes);
    if (typeof refusal !== 'string') {
      onPlan?.(refusal);
      return refusal;
    }
    const found = await this.#find();
    const { core, clock } = { core: this.#core, clock: this.#environment.clock };
    const context = { core, clock, read: this.#read, targetBytes };
    const salvaged = await salvage(context, found.parts);
    const { state } = salvaged;
    try {
      this.#refuseOtherTarget(state, targetBytes);
      const plan = planOf(salvaged, refusal, found.parts);
      onPlan?.(plan);
      signal?.throwIfAborted();
      if (apply) await this.#apply(found, salvaged);
      return plan;
    } finally {
      state.dispose();
    }
  }

  readonly #read = (into: Uint8Array, offset: number): Promise<void> =>
    readNamed(this.#options.fileSystem, this.#options.target, into, offset);

  async #targetBytes(): Promise<number | undefined> {
    const { fileSystem, target } = this.#options;
    try {
      const file = await fileSystem.open(target, { readOnly: true });
      this.#isDevice = file.deviceContents !== undefined;
      return await file.size().finally(() => file.close());
    } catch (error) {
      if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** @throws {@link CodError} if opening the copy would refuse its target */
  #refuseOtherTarget(state: CopyState, bytes: number | undefined): void {
    const { target } = this.#options;
    const { size } = state.geometry;
    const isLarger = bytes !== undefined && bytes > size;
    if (bytes === size || (isLarger && this.#isDevice) || (state.isEmpty && !bytes)) return;
    const what = bytes === undefined ? 'is missing' : `has ${bytes} bytes instead of ${size}`;
    throw new CodError(
      isLarger ? 'COD_SIZE_MISMATCH' : 'COD_CORRUPT',
      `${target} ${what}: restore the file, or remove the copy (\`copyondemand remove\`)`,
      { details: { target } },
    );
  }

  /** Returns why the copy is refused, or a plan without problems. */
  async #refusal(targetBytes: number | undefined, hidden?: SlotIndex): Promise<string | RepairPlan> {
    const { fileSystem, target, metadata = target } = this.#options;
    const slots =
      hidden === undefined
        ? new Slots(fileSystem, metadata, { readOnly: true })
        : new SlotsWithout(fileSystem, metadata, hidden);
    try {
      const size = async (): Promise<number> => {
        if (!targetBytes) throw new CodError('COD_NOT_FOUND', `${target} is missing or empty: restore the file`);
        return targetBytes;
      };
      const found = await recover(this.#core, slots, { size, read: this.#read }, this.#environment.clock);
      if (found === undefined)
        throw new CodError('COD_NOT_FOUND', `${target} has no metadata: it is not a copy, or its copy is finished`);
      const { state } = found;
      try {
        if (hidden === undefined) this.#refuseOtherTarget(state, targetBytes);
        const none = { problems: [], lostBytes: 0, lost: [], losesIdentity: false, saved: [] };
        return { ...none, ...contentsOf(state) };
      } finally {
        state.dispose();
      }
    } catch (error) {
      if (isCodError(error, 'COD_CORRUPT') && error.details['target'] === undefined) return error.message;
      throw error;
    } finally {
      await slots.close();
    }
  }

  /** Finds the files to read: the present ones, or those that an interrupted repair has saved. */
  async #find(): Promise<Found> {
    const present = await this.#parts('');
    const saved = await this.#parts('.old');
    if (saved.length === 0 || (await isSaving(present, saved))) return { parts: present, begun: undefined };
    const known = saved.find(isValid)?.header.session;
    // Valid files are saved first: so without a session that is saved, none of the old files was valid.
    const isOurs = (part: Part): boolean => {
      if (part.kind !== 'checkpoint') return false;
      return isValid(part)
        ? !known?.every((byte, index) => byte === part.header.session[index])
        : part.header === 'void';
    };
    let changed: Part | undefined;
    let isEmptied = false;
    for (const { kind, slot } of ALL_SLOTS) {
      const part = partOf(present, kind, slot);
      const old = partOf(saved, kind, slot);
      if (part === undefined || part.bytes === 0) isEmptied ||= old !== undefined && old.bytes > 0;
      else if (old === undefined ? isValid(part) && isOurs(part) : !(await isPartOf(old, part))) {
        if (changed !== undefined || !isOurs(part)) throw inTheWay(old ?? part);
        changed = part;
      }
    }
    if (changed === undefined && !isEmptied) return { parts: present, begun: undefined };
    if (changed === undefined) throw inTheWay(saved[0]!);
    return { parts: saved, begun: { slot: changed.slot, isDurable: isValid(changed) } };
  }

  async #parts(suffix: string): Promise<Part[]> {
    const { target, metadata = target } = this.#options;
    const parts: Part[] = [];
    for (const { kind, slot } of ALL_SLOTS) {
      const name = `${slotName(metadata, kind, slot)}${suffix}`;
      const file = await this.#opened.find(name);
      if (file === undefined) continue;
      const isSaved = suffix !== '';
      parts.push(await readPart(this.#core, { name, kind, slot, file }, { lenient: isSaved }));
    }
    return parts;
  }

  async #apply({ parts, begun }: Found, { state, identity, proved }: Salvage): Promise<void> {
    const { fileSystem, target, metadata = target } = this.#options;
    const lease = this.#lease!;
    const { clock } = this.#environment;
    await lease.fence();
    // Valid files first: their session tells an old file from the new checkpoint.
    const order = [...parts.filter(isValid), ...parts.filter((part) => !isValid(part))];
    if (begun === undefined) for (const part of order) await this.#save(part);
    const slot = begun?.slot ?? (await this.#safeSlot());
    await this.#opened.close();

    const slots = new Slots(fileSystem, metadata, { owner: lease });
    const storage = proved.length > 0 ? await fileSystem.open(target) : undefined;
    try {
      for (const { kind, slot: each } of ALL_SLOTS) await slots.find(kind, each);
      if (begun?.isDurable) {
        // Its process may have been killed before the sync.
        await (await slots.find('checkpoint', slot))!.sync();
      } else {
        const session = new Uint8Array(SESSION_BYTES);
        this.#environment.randomBytes(session);
        const checkpointer = new Checkpointer(
          {
            core: this.#core,
            clock,
            slots,
            owner: lease,
            identity,
          },
          state,
          { session, epoch: slot - 1 },
        );
        if (storage !== undefined) {
          // docs/FORMAT.md, Which records count.
          await writeAgain(checkpointer, storage, proved);
          checkpointer.attach(() => storage.sync());
        }
        // An owner before may still write to a file that it knows.
        if (lease.unproved) await slots.remove('checkpoint', slot);
        await lease.fence();
        // A power cut must not leave a part of the new slices behind the old header: no repair could continue then.
        const over = await slots.find('checkpoint', slot);
        if (over !== undefined && (await over.size()) >= HEADER_BYTES) {
          await voidHeader(over);
          await over.sync();
        }
        await checkpointer.writeStandalone();
      }
      await lease.fence();
      await slots.removeAllBut('checkpoint', slot, (file) => file.sync());
      await lease.fence();
    } finally {
      await Promise.allSettled([storage?.close(), slots.close()]);
    }
  }

  /** Returns the slot of a checkpoint without whose file the copy is refused as well. */
  async #safeSlot(): Promise<SlotIndex> {
    const targetBytes = await this.#targetBytes();
    for (const slot of [0, 1] as const) {
      try {
        if (typeof (await this.#refusal(targetBytes, slot)) === 'string') return slot;
      } catch (error) {
        if (!isCodError(error, 'COD_NOT_FOUND')) throw error;
      }
    }
    throw new CodError('COD_CORRUPT', `${this.#options.target}: no step leads to a repair that a crash cannot spoil`);
  }

  /** Copies a file beside itself, durably. Completes a copy that was interrupted. */
  async #save({ name, file, bytes }: Part): Promise<void> {
    const { fileSystem } = this.#options;
    const to = savedName(name);
    const isThere = (await this.#opened.find(to)) !== undefined;
    const saved = await fileSystem.open(
      to,
      isThere ? { noFollow: true } : { create: true, exclusive: true, mode: 0o600 },
    );
    try {
      for await (const { piece, offset } of piecesOf(file, bytes))
        if (!isIn(piece, undefined)) await saved.write(piece, offset);
      await saved.truncate(bytes);
      await saved.sync();
    } finally {
      await saved.close();
    }
  }
}

function savedName(name: string): string {
  return `${name}.old`;
}

function partOf(parts: readonly Part[], kind: FileKind, slot: SlotIndex): Part | undefined {
  return parts.find((part) => part.kind === kind && part.slot === slot);
}

function inTheWay({ name }: Part): CodError {
  return new CodError('COD_EXISTS', `${name} is of an earlier repair: move it, then repair again`, {
    details: { file: name },
  });
}

/** Whether an interruption left a part of a copy. All are complete before anything else begins. */
async function isSaving(present: readonly Part[], saved: readonly Part[]): Promise<boolean> {
  for (const old of saved) {
    const part = partOf(present, old.kind, old.slot);
    if (part && part.bytes > 0 && (await isPartOf(old, part)) && !(await isPartOf(part, old))) return true;
  }
  return false;
}

/** Whether a saved file is a copy of `part`, or what an interruption left of such a copy. */
async function isPartOf(saved: Part, part: Part): Promise<boolean> {
  if (saved.bytes > part.bytes) return false;
  for await (const { piece, offset } of piecesOf(saved.file, saved.bytes)) {
    const other = newBytes(piece.length);
    await part.file.read(other, offset);
    if (!isIn(piece, other)) return false;
  }
  return true;
}

/** Whether each byte is zero, or that of `other`. The bytes begin at a word of their buffer. */
function isIn(bytes: Uint8Array, other: Uint8Array | undefined): boolean {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  const isThere = (at: number): boolean => bytes[at] === 0 || bytes[at] === other?.[at];
  for (let word = 0; word < words.length; word++) {
    const at = word * 4;
    if (words[word] !== 0 && !(isThere(at) && isThere(at + 1) && isThere(at + 2) && isThere(at + 3))) return false;
  }
  for (let at = words.length * 4; at < bytes.length; at++) if (!isThere(at)) return false;
  return true;
}

/** Reads a file in pieces. A piece is valid until the next one. */
async function* piecesOf(
  file: File,
  bytes: number,
): AsyncGenerator<{ piece: Uint8Array; offset: number }, void, undefined> {
  const buffer = newBytes(Math.min(PIECE_BYTES, bytes));
  for (let offset = 0; offset < bytes; offset += buffer.length) {
    const piece = buffer.subarray(0, bytes - offset);
    await file.read(piece, offset);
    yield { piece, offset };
  }
}

function planOf(
  { state, suspects, isIdentityKnown, problems }: Salvage,
  refusal: string,
  parts: readonly Part[],
): RepairPlan {
  return {
    problems: problems.length > 0 ? problems : [refusal],
    ...contentsOf(state),
    ...lostOf(state, suspects),
    losesIdentity: !isIdentityKnown,
    saved: parts.map(({ name }) => (name.endsWith('.old') ? name : savedName(name))),
  };
}
