/**
 * A store of 64-byte slots in one file. The first read of a slot fetches it from a slow original and keeps it.
 *
 *   put, and get of a missing slot:  intend → write the file → commit
 *   flush:                           makes all of that survive a power cut
 *
 * Invariants:
 * - The file is read only where the log says that it holds a slot. All other bytes of the file mean nothing.
 * - At most one call writes a slot at a time. Otherwise a value of the original could replace a newer value.
 */

import { isCodError, recoverIntentLog } from 'copyondemand/log';

export const SLOT_BYTES = 64;

/**
 * Opens the store `name`, or makes it.
 *
 * `original.read(slot)` resolves to the 64 bytes of a slot. `original.identity` names the original's content.
 */
export async function openSlotStore({ fileSystem, name, slotCount, original, environment }) {
  const size = slotCount * SLOT_BYTES;
  const log = { fileSystem, name, size, identity: original.identity, ...(environment && { environment }) };
  const recovered = await recoverIntentLog(log);
  let file;
  try {
    if (recovered.size !== size) throw new Error(`${name} has ${recovered.size} bytes, not ${size}`);
    if (recovered.identity !== original.identity)
      throw new Error(`${name} has the original ${recovered.identity}, not ${original.identity}`);
    file = await openFile(fileSystem, name, recovered);
    return new SlotStore(file, await recovered.begin(file), original);
  } catch (error) {
    await recovered.close();
    await file?.close();
    throw error;
  }
}

/**
 * Opens or makes the file. The log is durable before the file exists, so a file without a log belongs to another
 * program.
 */
async function openFile(fileSystem, name, recovered) {
  const found = await fileSystem.open(name).catch((error) => {
    if (!isCodError(error, 'COD_NOT_FOUND')) throw error;
  });
  if (recovered.isNew && found !== undefined) {
    await found.close();
    throw new Error(`${name} exists and has no log: choose another name`);
  }
  await recovered.prepare();
  const file = found ?? (await fileSystem.open(name, { create: true }));
  const bytes = await file.size();
  if (bytes === recovered.size) return file;
  if (recovered.blocks.count === 0 && recovered.dirty.blockCount === 0) {
    // A crash happened before the file had its size.
    await file.truncate(recovered.size);
    return file;
  }
  await file.close();
  throw new Error(`${name} has ${bytes} bytes, not ${recovered.size}: another program changed it`);
}

class SlotStore {
  #file;
  #log;
  #original;
  /** The last pending call on each slot. */
  #turns = new Map();

  constructor(file, log, original) {
    this.#file = file;
    this.#log = log;
    this.#original = original;
  }

  /** Resolves to the bytes of a slot. */
  async get(slot) {
    if (!this.#has(slot)) {
      // Other calls on this slot continue meanwhile, because the original is slow.
      const value = await this.#original.read(slot);
      await this.#inTurn(slot, async () => {
        if (!this.#has(slot)) await this.#write(slot, value);
      });
    }
    const value = new Uint8Array(SLOT_BYTES);
    await this.#inTurn(slot, () => this.#file.read(value, slot * SLOT_BYTES));
    return value;
  }

  /** Replaces a slot. Resolves when the value survives the death of the process. `value` must not change until then. */
  put(slot, value) {
    if (value.length !== SLOT_BYTES) throw new RangeError(`a slot has ${SLOT_BYTES} bytes, not ${value.length}`);
    return this.#inTurn(slot, () => this.#write(slot, value));
  }

  /** Resolves when every `put` that resolved before survives a power cut. */
  flush() {
    return this.#log.flush();
  }

  async close() {
    await Promise.allSettled(this.#turns.values());
    await this.#log.close();
    await this.#file.close();
  }

  /** Whether the file holds the slot. The log joins neighbouring parts, so one part covers a whole slot. */
  #has(slot) {
    const { blockSize, blocks, dirty } = this.#log;
    const block = Math.floor((slot * SLOT_BYTES) / blockSize);
    const start = (slot * SLOT_BYTES) % blockSize;
    const isPart = ([from, to]) => from <= start && start + SLOT_BYTES <= to;
    return blocks.has(block) || dirty.parts(block).some(isPart);
  }

  async #write(slot, value) {
    const transaction = this.#log.begin();
    await transaction.intend(slot * SLOT_BYTES, value);
    await this.#file.write(value, slot * SLOT_BYTES);
    await this.#log.commit(transaction);
  }

  /** Runs `task` when the earlier calls on this slot have ended. */
  async #inTurn(slot, task) {
    const before = this.#turns.get(slot);
    const turn = before === undefined ? task() : before.then(task, task);
    this.#turns.set(slot, turn);
    try {
      await turn;
    } finally {
      if (this.#turns.get(slot) === turn) this.#turns.delete(slot);
    }
  }
}
