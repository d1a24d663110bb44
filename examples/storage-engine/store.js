/**
 * A store of 64-byte slots in one file. The first read of a slot fetches it from a slow original and keeps it.
 *
 *   put, and get of a missing slot:  intend → write the file → commit
 *   flush:                           makes all of that survive a power cut
 *
 * Invariants:
 * - The file is read only where the log says that it holds a slot. All other bytes of the file mean nothing.
 * - At most one call writes to a cell, which is 4096 aligned bytes, at a time. The log announces a write with a sum of
 *   its whole cell. A value of the original never replaces a newer value.
 */

import { isCodError, recoverIntentLog } from 'copyondemand/log';

export const SLOT_BYTES = 64;
const CELL_BYTES = 4096;

/**
 * Opens the store `name`, or makes it.
 *
 * `original.read(slot)` resolves to the 64 bytes of a slot. `original.identity` names the original's content.
 */
export async function openSlotStore({ fileSystem, name, slotCount, original, environment }) {
  const size = slotCount * SLOT_BYTES;
  let file = await findFile(fileSystem, name);
  let recovered;
  try {
    const log = { fileSystem, name, size, identity: original.identity, ...(environment && { environment }) };
    // Recovery reads the file: a write that was not flushed counts where the file holds its bytes.
    recovered = await recoverIntentLog({ ...log, ...(file && { storage: file }) });
    if (recovered.size !== size) throw new Error(`${name} has ${recovered.size} bytes, not ${size}`);
    if (recovered.identity !== original.identity)
      throw new Error(`${name} has the original ${recovered.identity}, not ${original.identity}`);
    if (recovered.isNew && file !== undefined) throw new Error(`${name} exists and has no log: choose another name`);
    // The log is durable before the file exists, so a file without a log belongs to another program.
    await recovered.prepare();
    file ??= await fileSystem.open(name, { create: true });
    await checkSize(file, recovered, name);
    return new SlotStore(file, await recovered.begin(file), original);
  } catch (error) {
    await recovered?.close();
    await file?.close();
    throw error;
  }
}

async function findFile(fileSystem, name) {
  try {
    return await fileSystem.open(name);
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
    throw error;
  }
}

async function checkSize(file, { size, blocks, dirty }, name) {
  const bytes = await file.size();
  if (bytes === size) return;
  if (blocks.count > 0 || dirty.blockCount > 0)
    throw new Error(`${name} has ${bytes} bytes, not ${size}: another program changed it`);
  // A crash happened before the file had its size.
  await file.truncate(size);
}

class SlotStore {
  #file;
  #log;
  #original;
  /** The last pending call on each cell. */
  #turns = new Map();

  constructor(file, log, original) {
    this.#file = file;
    this.#log = log;
    this.#original = original;
  }

  /** Resolves to the bytes of a slot. */
  async get(slot) {
    if (!this.#has(slot)) {
      // Other calls on this cell continue meanwhile, because the original is slow.
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

  /** Runs `task` when the earlier calls on this slot's cell have ended. */
  async #inTurn(slot, task) {
    const cell = Math.floor((slot * SLOT_BYTES) / CELL_BYTES);
    const before = this.#turns.get(cell);
    const turn = before === undefined ? task() : before.then(task, task);
    this.#turns.set(cell, turn);
    try {
      await turn;
    } finally {
      if (this.#turns.get(cell) === turn) this.#turns.delete(cell);
    }
  }
}
