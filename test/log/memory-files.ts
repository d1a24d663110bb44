/**
 * Files in memory that are cheap to restore: a state of a volume is a few images, which many volumes share until they
 * write. Records each call, and can delay it or make it fail.
 */

import { CodError } from '../../src/errors.ts';
import type { File, FileSystem, OpenOptions } from '../../src/index.ts';
import { forReading } from '../../src/testing/for-reading.ts';

/** A file of `size` bytes, with zeros after `bytes`. Must not be changed. */
export interface Image {
  readonly bytes: Uint8Array;
  readonly size: number;
}

export type Images = ReadonlyMap<string, Image>;

/** A call that changes or syncs a file. `open` is recorded only if it creates a file. */
export interface Call {
  readonly kind: 'open' | 'remove' | 'write' | 'truncate' | 'sync';
  readonly name: string;
  /** The first byte of a write, or the new size of a truncation. */
  readonly offset: number;
  readonly length: number;
}

/** Thrown by {@link MemoryFiles.before}: the write fails with COD_NO_SPACE after this number of bytes. */
export class Torn extends Error {
  readonly written: number;

  constructor(written: number) {
    super(`torn after ${written} bytes`);
    this.written = written;
  }
}

interface Content {
  /** Zeros from `used` on. */
  bytes: Uint8Array;
  used: number;
  size: number;
  shared: boolean;
  /** The bytes that the last sync covered: those of the moment of its call. */
  synced: Uint8Array;
}

export interface MemoryFilesOptions {
  readonly bootId?: string | undefined;
  /** Whether a sync copies the file, for {@link MemoryFiles.syncedImage}. Default: true. */
  readonly keepsSynced?: boolean;
}

export class MemoryFiles implements FileSystem {
  readonly bootId?: string;
  /** Calls in the order in which they took effect. */
  readonly calls: Call[] = [];
  /** Called before each call takes effect. May wait or throw; {@link Torn} leaves the beginning of a write. */
  before: ((call: Call) => Promise<void> | void) | undefined;
  readonly #files = new Map<string, Content>();

  readonly #keepsSynced: boolean;

  constructor(images: Images = new Map(), options: MemoryFilesOptions = {}) {
    this.#keepsSynced = options.keepsSynced ?? true;
    for (const [name, { bytes, size }] of images)
      this.#files.set(name, { bytes, used: bytes.length, size, shared: true, synced: bytes });
    if (options.bootId !== undefined) this.bootId = options.bootId;
  }

  /** All files in their present state. */
  images(): Map<string, Image> {
    const images = new Map<string, Image>();
    for (const [name, { bytes, used, size }] of this.#files) {
      let end = Math.min(used, size);
      while (end > 0 && bytes[end - 1] === 0) end--;
      images.set(name, { bytes: bytes.slice(0, end), size });
    }
    return images;
  }

  /** The file's present size, with the bytes of its last sync. Undefined if it does not exist. */
  syncedImage(name: string): Image | undefined {
    const content = this.#files.get(name);
    return content && { bytes: content.synced.slice(0, content.size), size: content.size };
  }

  async open(name: string, { create, exclusive, readOnly }: OpenOptions = {}): Promise<File> {
    if (readOnly) return forReading(await this.open(name), name);
    if (exclusive && this.#files.has(name)) throw new CodError('COD_EXISTS', `${name} exists`);
    if (!this.#files.has(name)) {
      if (!create && !exclusive) throw new CodError('COD_NOT_FOUND', `${name} does not exist`);
      await this.#effect({ kind: 'open', name, offset: 0, length: 0 }, () =>
        this.#files.set(name, { bytes: new Uint8Array(0), used: 0, size: 0, shared: false, synced: new Uint8Array(0) }),
      );
    }
    const content = this.#files.get(name)!;
    return {
      size: async () => content.size,
      read: async (into, offset) => {
        if (into.length > 0 && offset + into.length > content.size)
          throw new CodError('COD_SHORT_READ', `${name} ends at ${content.size}`);
        const there = content.bytes.subarray(offset, Math.max(offset, Math.min(content.used, offset + into.length)));
        into.set(there);
        into.fill(0, there.length);
      },
      write: (from, offset) =>
        this.#effect(
          { kind: 'write', name, offset, length: from.length },
          () => put(content, from, offset),
          (written) => put(content, from.subarray(0, written), offset),
        ),
      truncate: (size) =>
        this.#effect({ kind: 'truncate', name, offset: size, length: 0 }, () => {
          if (size < content.used) {
            own(content, content.used);
            content.bytes.fill(0, size, content.used);
            content.used = size;
          }
          content.size = size;
        }),
      sync: () => {
        const synced = this.#keepsSynced ? content.bytes.slice(0, content.used) : content.synced;
        return this.#effect({ kind: 'sync', name, offset: 0, length: 0 }, () => (content.synced = synced));
      },
      close: async () => undefined,
    };
  }

  remove(name: string): Promise<void> {
    return this.#effect({ kind: 'remove', name, offset: 0, length: 0 }, () => this.#files.delete(name));
  }

  async #effect(call: Call, effect: () => unknown, tear?: (written: number) => void): Promise<void> {
    try {
      if (this.before !== undefined) await this.before(call);
    } catch (error) {
      if (!(error instanceof Torn)) throw error;
      tear?.(error.written);
      throw new CodError('COD_NO_SPACE', `${call.name}: ${error.message}`);
    }
    effect();
    this.calls.push(call);
  }
}

function put(content: Content, from: Uint8Array, offset: number): void {
  const end = offset + from.length;
  own(content, Math.max(content.used, end));
  content.bytes.set(from, offset);
  content.used = Math.max(content.used, end);
  content.size = Math.max(content.size, end);
}

/** Gives the file its own copy of the bytes, with room for `length`. */
function own(content: Content, length: number): void {
  if (!content.shared && content.bytes.length >= length) return;
  const bytes = new Uint8Array(Math.max(length, content.shared ? 0 : 2 * content.bytes.length));
  bytes.set(content.bytes.subarray(0, content.used));
  content.bytes = bytes;
  content.shared = false;
}
