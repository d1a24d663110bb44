/**
 * An instance of the WASM core with its memory. cores.ts says which instance has what.
 *
 * Invariants:
 * - Every call goes through a guard. After a trap or a failed growth the state of the memory is unknown, so each later
 *   call throws.
 * - A view over the memory is renewed after each call that may have grown the memory.
 */
import { CodError, outOfMemory } from '../errors.ts';
import { FAILED_NOTHING } from './codes.ts';
import { CORE_ALPHABET, CORE_COUNT, CORE_SHIFT, CORE_TEXT } from './generated/core-bytes.ts';
import type { CoreExports } from './generated/interface.ts';

/** Bytes of {@link Core.staging}. */
export const STAGING_BYTES: number = 256 * 1024;

/** The size of the pieces that are copied in: a piece is still in the processor's cache when it is read (measured). */
const COPIED_BYTES = 64 * 1024;

/** The core sums this many bytes at a time. */
const SUM_UNIT_BYTES = 32;

/** The default limit of the memory of an instance, in bytes. */
export const DEFAULT_MEMORY_LIMIT: number = 2 ** 30;

type RawExport = (a?: number, b?: number, c?: number, d?: number, e?: number) => number;

let compiled: WebAssembly.Module | undefined;

function coreBytes(): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  let skipped = 0;
  for (const character of CORE_TEXT) {
    const number = CORE_ALPHABET.indexOf(character);
    if (number >= CORE_COUNT) skipped = (number - CORE_COUNT + 1) * CORE_COUNT;
    else {
      bytes.push(number + skipped - CORE_SHIFT);
      skipped = 0;
    }
  }
  // Numbers outside of a byte wrap.
  return Uint8Array.from(bytes);
}

function instantiate(bytes: Uint8Array<ArrayBuffer> | undefined): WebAssembly.Instance {
  try {
    const module = bytes ? new WebAssembly.Module(bytes) : (compiled ??= new WebAssembly.Module(coreBytes()));
    return new WebAssembly.Instance(module);
  } catch (error) {
    if (error instanceof RangeError) throw outOfMemory('an instance of the WASM core', error);
    const message = "WebAssembly is refused: allow 'wasm-unsafe-eval' in script-src of the Content-Security-Policy";
    throw new CodError('COD_UNSUPPORTED', message, { cause: error });
  }
}

/** An instance of the wasm core with a memory of its own. */
export class Core {
  readonly exports: CoreExports;
  readonly #limit: number;
  readonly #memory: WebAssembly.Memory;
  readonly #stagingAt: number;
  #staging: Uint8Array<ArrayBuffer>;
  #words: Uint32Array<ArrayBuffer>;
  #failure: CodError | undefined;

  /**
   * Creates an instance. The built-in module is compiled once.
   *
   * @param bytes another build of the module, for tests
   * @throws {RangeError} if `memoryLimit` is not an integer from 1 MiB to 2 GiB
   * @throws {@link CodError} COD_NO_MEMORY if there is no memory or address space for an instance
   */
  static create(bytes?: Uint8Array<ArrayBuffer>, options: { memoryLimit?: number } = {}): Core {
    const { memoryLimit = DEFAULT_MEMORY_LIMIT } = options;
    if (!Number.isInteger(memoryLimit) || memoryLimit < 2 ** 20 || memoryLimit > 2 ** 31) {
      throw new RangeError(`memoryLimit ${memoryLimit} is not an integer from ${2 ** 20} to ${2 ** 31} bytes`);
    }
    return new Core(instantiate(bytes), memoryLimit);
  }

  private constructor(instance: WebAssembly.Instance, memoryLimit: number) {
    const raw = instance.exports as unknown as Record<string, RawExport> & { memory: WebAssembly.Memory };
    this.#memory = raw.memory;
    this.#limit = memoryLimit;
    const exports: Record<string, RawExport> = {};
    for (const [name, call] of Object.entries(raw)) {
      if (typeof call === 'function') exports[name] = this.#guard(call, raw['failureCode'] as RawExport);
    }
    this.exports = exports as unknown as CoreExports;
    this.exports.setLimit(memoryLimit);
    this.#stagingAt = this.exports.alloc(STAGING_BYTES);
    this.#staging = this.view(this.#stagingAt, STAGING_BYTES);
    this.#words = new Uint32Array(this.#memory.buffer as ArrayBuffer);
  }

  /** A buffer of 256 KiB to read files into: {@link feed} does not copy it. A view, valid until the next call. */
  get staging(): Uint8Array<ArrayBuffer> {
    if (this.#staging.buffer !== this.#memory.buffer) this.#staging = this.view(this.#stagingAt, STAGING_BYTES);
    return this.#staging;
  }

  /** The error that made the instance unusable. Every later call throws it. */
  get failure(): CodError | undefined {
    return this.#failure;
  }

  /** The present size of the memory in bytes. */
  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
  }

  /** Whether `share` of the memory limit is free behind `bytes` more bytes. False after a failure. */
  hasRoom(share: number, bytes: number = 0): boolean {
    const room = share * this.#limit + bytes;
    return this.#failure === undefined && room <= this.#limit && this.exports.hasRoom(room) !== 0;
  }

  /** A view of the memory from `pointer` on, valid until the next call. */
  view(pointer: number, length: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#memory.buffer as ArrayBuffer, pointer, length);
  }

  /** A view of the whole memory as u32, for the fields of handles. Valid until the next call. */
  get words(): Uint32Array<ArrayBuffer> {
    if (this.#failure) throw this.#failure;
    if (this.#words.buffer !== this.#memory.buffer) this.#words = new Uint32Array(this.#memory.buffer as ArrayBuffer);
    return this.#words;
  }

  /** The u32 at `pointer`. */
  u32(pointer: number): number {
    return this.words[pointer >>> 2]!;
  }

  /** The u64 at `pointer`. Values above 2^53 are rounded. */
  u64(pointer: number): number {
    return this.u32(pointer) + this.u32(pointer + 4) * 2 ** 32;
  }

  /**
   * Passes `bytes` to `take`: as they are if they are in the memory, else in pieces that are copied to {@link staging}.
   */
  feed(bytes: Uint8Array, take: (pointer: number, length: number) => void): void {
    if (bytes.buffer === this.#memory.buffer) {
      take(bytes.byteOffset, bytes.length);
      return;
    }
    for (let at = 0; at < bytes.length; at += COPIED_BYTES) {
      const length = Math.min(COPIED_BYTES, bytes.length - at);
      this.staging.set(length === bytes.length ? bytes : bytes.subarray(at, at + length));
      take(this.#stagingAt, length);
    }
  }

  /** The CRC32C of `bytes`. `seed` is the CRC of the bytes before them. */
  crc32c(bytes: Uint8Array, seed: number = 0): number {
    let crc = seed;
    this.feed(bytes, (pointer, length) => {
      crc = this.exports.crc32c(pointer, length, crc) >>> 0;
    });
    return crc >>> 0;
  }

  /** The sum of a cell's content, at most 4096 bytes. A cell that is shorter is summed as if zeros followed. */
  cellSum(content: Uint8Array): number {
    const { staging } = this;
    const length = Math.ceil(content.length / SUM_UNIT_BYTES) * SUM_UNIT_BYTES;
    staging.set(content);
    if (length > content.length) staging.fill(0, content.length, length);
    return this.exports.cellSum(this.#stagingAt, length) >>> 0;
  }

  #guard(call: RawExport, failureCode: RawExport): RawExport {
    return (a, b, c, d, e) => {
      if (this.#failure) throw this.#failure;
      try {
        return call(a, b, c, d, e);
      } catch (error) {
        throw (this.#failure = this.#describe(error, failureCode()));
      }
    };
  }

  #describe(error: unknown, code: number): CodError {
    const memoryBytes = this.memoryBytes;
    if (code === FAILED_NOTHING) {
      return new CodError(
        'COD_BUG',
        `the WASM core trapped: ${String(error)}. This instance is unusable: create a new instance`,
        { cause: error, details: { memoryBytes } },
      );
    }
    return outOfMemory(`more than ${memoryBytes} bytes of the WASM core: create a new instance`, error);
  }
}
