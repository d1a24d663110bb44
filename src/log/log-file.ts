/**
 * The file of a log slot, which logs take over in place. A later log finds the room of an earlier one, also on a full
 * disk (docs/RECOVERY.md, "A full disk").
 *
 * Invariants:
 * - The first `allocated` bytes of the file were written. Writing there again needs no room, unless the file system
 *   copies on write.
 * - The file is claimed (`Slots.make`): it begins with the magic of a log.
 * - Whatever an earlier life left here is zeroed, durably, before a header is written. So every frame in the file is of
 *   this life, and of an earlier epoch than that of the header.
 * - Until its header is written whole, the file has no log.
 */

import type { Done } from '../async/done.ts';
import { HEADER_BYTES } from '../core/layout.ts';
import type { File } from '../fs/file-system.ts';
import { writeFile } from '../fs/inline-file.ts';
import { voidHeader } from './slots.ts';

/** Bytes that are allocated at a time. */
const STEP_BYTES = 65_536;

/** Runs a sync, and makes sure that a failed sync is not repeated. */
export type GuardSync = (sync: () => Promise<void>) => Promise<void>;

export class LogFile {
  readonly #file: File;
  #allocated = STEP_BYTES;
  /** Bytes of the file, as the header says. */
  #capacity = 0;
  /** Whether frames of an earlier life may come back after a power cut. */
  #isStale: boolean;

  private constructor(file: File, isStale: boolean) {
    this.#file = file;
    this.#isStale = isStale;
  }

  /**
   * Empties a file whose log is void, and allocates its first bytes. Once in each life, since an earlier life may have
   * begun the same epoch.
   */
  static async take(file: File): Promise<LogFile> {
    const size = await file.size();
    await file.write(new Uint8Array(STEP_BYTES - HEADER_BYTES), HEADER_BYTES);
    if (size > STEP_BYTES) await file.truncate(STEP_BYTES);
    return new LogFile(file, size > HEADER_BYTES);
  }

  /** Bytes from the beginning of the file on that need no room. */
  get allocated(): number {
    return this.#allocated;
  }

  /**
   * Begins a log: voids the header, sets the size and writes the new header. Not durable yet.
   * @param header of a later epoch than the file ever had in this life
   */
  async begin(header: Uint8Array, capacity: number, guardSync: GuardSync): Promise<void> {
    await voidHeader(this.#file);
    if ((await this.#file.size()) !== capacity) {
      this.#allocated = Math.min(this.#allocated, capacity);
      await this.#file.truncate(capacity);
    }
    this.#capacity = capacity;
    if (this.#isStale) await guardSync(() => this.#file.sync());
    this.#isStale = false;
    await this.#file.write(header, 0);
  }

  /**
   * Allocates the bytes below `end`, or all of the file, synchronously if the file can. Bytes below `from`, where the
   * frames of the log end, stay as they are.
   */
  allocate(from: number, end: number): Done {
    const next = Math.min(Math.ceil(end / STEP_BYTES) * STEP_BYTES, this.#capacity);
    const start = Math.max(from, this.#allocated);
    if (end <= this.#allocated || next <= start) return undefined;
    const allocated = (): void => {
      this.#allocated = next;
    };
    const writing = writeFile(this.#file, new Uint8Array(next - start), start);
    if (writing !== undefined) return writing.then(allocated);
    allocated();
    return undefined;
  }

  /** Writes frames, synchronously if the file can. */
  write(bytes: Uint8Array, offset: number): Done {
    return writeFile(this.#file, bytes, offset);
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }
}
