/**
 * The history of a disk that several clients use at a time: when each request began and ended, and what was read.
 * linearizability.ts checks it.
 *
 * Invariants:
 * - Time is a count of events, so no two events are simultaneous. It is exact if one process records all clients.
 * - A content is a number. Two sectors with the same bytes have the same content.
 * - No sector is written twice with the same bytes, nor with its initial bytes.
 */

import type { CrashKind } from './crash-story.ts';
import { SECTOR_BYTES } from './unsynced-file.ts';

/** Options of a {@link SectorHistory}. */
export interface SectorHistoryOptions {
  /** The content of the disk before all requests. Must not change. Zeros lie beyond its end. Default: all zeros. */
  readonly initial?: Uint8Array;
  /** The bytes of a sector, which the disk writes as a whole. Default: {@link SECTOR_BYTES}. */
  readonly sectorBytes?: number;
}

/** Options of a request. */
export interface SectorRequestOptions {
  /** Names the client in messages. Default: no name. */
  readonly by?: string;
}

/** A request in a history. */
export interface SectorRequest {
  /** What was asked for. */
  readonly kind: 'write' | 'read' | 'flush';
  /** The number of the request, from 1 on, in the order in which requests began. */
  readonly number: number;
  /** The name of the client, if it has one. */
  readonly by: string | undefined;
  /** Whether a write is durable once it has ended. */
  readonly fua: boolean;
  /** The first sector of the range; 0 for a flush. */
  readonly firstSector: number;
  /** The number of each sector's content. Empty for a flush, and for a read without an answer. */
  readonly contents: readonly number[];
  /** When the request began. */
  readonly began: number;
  /** When its answer came. Undefined if none has come, or only after a crash. */
  readonly ended: number | undefined;
}

/** A crash in a history. */
export interface SectorCrash {
  /** `power` also stands for `loss`, which leaves the same bytes. */
  readonly kind: 'process' | 'power';
  /** When it came. */
  readonly at: number;
}

/**
 * Records the requests of all clients of a disk, for {@link checkLinearizable}.
 *
 * Call `begin…` before the request is sent, and its result once the answer has come. A request that fails has no
 * answer: do not call the result. It may then count or not.
 *
 * @example
 * ```ts
 * import { checkLinearizable, SectorHistory } from 'copyondemand/testing';
 *
 * const history = new SectorHistory();
 * const disk = new Uint8Array(4096);
 *
 * const bytes = new Uint8Array(1024).fill(7);
 * const written = history.beginWrite(bytes, 512);
 * disk.set(bytes, 512);
 * written();
 *
 * const read = history.beginRead(0, 1024);
 * read(disk.subarray(0, 1024));
 * console.log(checkLinearizable(history)); // undefined
 * ```
 */
export class SectorHistory {
  /** The bytes of a sector. */
  readonly sectorBytes: number;
  readonly #initial: Uint8Array;
  readonly #requests: SectorRequest[] = [];
  readonly #crashes: SectorCrash[] = [];
  readonly #contents = new Map<string, number>();
  /** The contents that each sector was written with. */
  readonly #written = new Map<number, Set<number>>();
  // Latin 1 gives each byte a character of its own.
  readonly #decoder = new TextDecoder('latin1');
  /** The initial content is there at 0 and 1, as what a crash leaves is there at two moments. */
  #time = 1;

  /** Makes an empty history. */
  constructor({ initial = new Uint8Array(0), sectorBytes = SECTOR_BYTES }: SectorHistoryOptions = {}) {
    this.#initial = initial;
    this.sectorBytes = sectorBytes;
  }

  /** The requests so far, in the order in which they began. */
  get requests(): readonly SectorRequest[] {
    return this.#requests;
  }

  /** The crashes so far. */
  get crashes(): readonly SectorCrash[] {
    return this.#crashes;
  }

  /**
   * Begins a write. Returns a function to call when the write is acknowledged.
   *
   * @param from whole sectors. Their bytes are noted now.
   * @param offset in bytes, a multiple of the sector
   * @param options.fua whether the write is durable once it is acknowledged. Default: false.
   * @throws RangeError if a part of a sector is written, or if a sector has had the same bytes before. Random bytes
   *   are always new.
   */
  beginWrite(from: Uint8Array, offset: number, options: SectorRequestOptions & { fua?: boolean } = {}): () => void {
    const firstSector = this.#sectorAt(offset);
    const contents = this.#contentsOf(from);
    for (const [index, content] of contents.entries()) {
      const sector = firstSector + index;
      const written = this.#written.get(sector) ?? new Set([this.initialContent(sector)]);
      if (written.has(content))
        throw new RangeError(`a write of sector ${sector} has the same bytes as an earlier write, or the initial ones`);
      this.#written.set(sector, written.add(content));
    }
    return this.#begin('write', { ...options, firstSector, contents });
  }

  /**
   * Begins a read. Returns a function to call with the bytes that were read.
   *
   * @param offset in bytes, a multiple of the sector
   * @param length in bytes, a multiple of the sector
   * @throws RangeError if a part of a sector is read.
   */
  beginRead(offset: number, length: number, options: SectorRequestOptions = {}): (found: Uint8Array) => void {
    const firstSector = this.#sectorAt(offset);
    this.#sectorAt(length);
    const end = this.#begin('read', { ...options, firstSector });
    return (found) => {
      if (found.length !== length) throw new RangeError(`a read of ${length} bytes ended with ${found.length} bytes`);
      end(this.#contentsOf(found));
    };
  }

  /** Begins a flush. Returns a function to call when the flush is acknowledged. */
  beginFlush(options: SectorRequestOptions = {}): () => void {
    return this.#begin('flush', options);
  }

  /**
   * Notes that the server of the disk has crashed. Requests in flight have no answer from now on, and take effect
   * before the crash or never. Do not call it when only a client ends, or if a client sends its requests again until
   * the next server answers them.
   *
   * @param kind `process`: what was acknowledged stays. `power` and `loss`: what no flush has covered may be lost.
   */
  crash(kind: CrashKind): void {
    this.#crashes.push({ kind: kind === 'process' ? 'process' : 'power', at: ++this.#time });
    ++this.#time;
  }

  /** Returns the content of a sector before all requests. */
  initialContent(sector: number): number {
    const bytes = new Uint8Array(this.sectorBytes);
    const start = sector * this.sectorBytes;
    bytes.set(this.#initial.subarray(start, start + this.sectorBytes));
    return this.#contentsOf(bytes)[0]!;
  }

  #begin(
    kind: SectorRequest['kind'],
    { by, fua = false, firstSector = 0, contents = [] }: Partial<SectorRequest>,
  ): (found?: number[]) => void {
    const crashes = this.#crashes.length;
    const number = this.#requests.length + 1;
    const begun: SectorRequest = {
      kind,
      number,
      by,
      fua,
      firstSector,
      contents,
      began: ++this.#time,
      ended: undefined,
    };
    this.#requests.push(begun);
    return (found = [...contents]) => {
      if (this.#crashes.length > crashes || this.#requests[number - 1] !== begun) return;
      this.#requests[number - 1] = { ...begun, contents: found, ended: ++this.#time };
    };
  }

  #sectorAt(offset: number): number {
    if (offset % this.sectorBytes !== 0)
      throw new RangeError(`${offset} is not a multiple of a sector of ${this.sectorBytes} bytes`);
    return offset / this.sectorBytes;
  }

  /** Returns the number of each sector's content. */
  #contentsOf(bytes: Uint8Array): number[] {
    const count = this.#sectorAt(bytes.length);
    return Array.from({ length: count }, (_, index) => {
      const start = index * this.sectorBytes;
      const key = this.#decoder.decode(bytes.subarray(start, start + this.sectorBytes));
      const content = this.#contents.get(key) ?? this.#contents.size;
      this.#contents.set(key, content);
      return content;
    });
  }
}
