/** A source over NBD: any export of any server. Requests that fail are repeated over a new connection. */

import { setMaxListeners } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sharedAbort } from '../../async/shared-abort.ts';
import { withSignal } from '../../async/with-signal.ts';
import { CodError } from '../../errors.ts';
import type { Clock } from '../../platform/clock.ts';
import { pieceBuffer, releasePages } from '../../platform/pages.ts';
import { systemClock } from '../../platform/system-clock.ts';
import { addExtent, type ExtentList } from '../../sources/extents.ts';
import { ExtentsAhead } from '../../sources/extents-ahead.ts';
import { checkRange } from '../../sources/range.ts';
import { Retries, type Retry, type RetryReport, type StallLimits } from '../../sources/retry.ts';
import type { InlineSource, InternalStreamOptions, Source, SourceExtent } from '../../sources/source.ts';
import { type NbdLocation, parseNbdUri, showNbdLocation } from '../uri.ts';
import { NbdConnection, type NbdConnectionOptions, type NbdTls } from './connection.ts';

/** Options of {@link nbdSource}. */
export interface NbdSourceOptions extends StallLimits {
  /**
   * TLS settings for `nbds://`. Each setting replaces that of the URI's `tls-certificates`. Default: Node's certificate
   * authorities, and no client certificate.
   */
  tls?: NbdTls;
  /** Retries of failed requests. */
  retry?: Retry;
  /**
   * Names the content of the export, since NBD does not. A copy does not resume against another identity. Default:
   * none.
   */
  identity?: string;
  /** Aborts opening; has no effect on the opened source. */
  signal?: AbortSignal;
  /** Default: the machine's clock. */
  clock?: Clock;
  /** Returns a number in [0, 1), for the jitter of delays. Default: `Math.random`. */
  random?: () => number;
}

const ATTEMPTS_OPENING = 5;
const ATTEMPTS = 20;
/** Bytes of a stream in flight. At a latency of 20 ms, that is 200 MB/s. A reader may have to wait for as many. */
const STREAM_BYTES = 2 ** 22;
const PIECE_BYTES = 2 ** 18;
/** Pieces in flight, however long they are: one is being written, one is coming, one is requested. */
const MIN_PIECES = 3;
/** Runs of one answer. Bytes after them count as data, so that memory stays bounded. */
const MAX_RUNS = 2 ** 20;

/**
 * Connects to an export and returns it as a source.
 *
 * - Without TLS: `nbd://host:port/name`, `nbd+unix:///name?socket=PATH`.
 * - With TLS: `nbds://…`, `nbds+unix://…`. Their parameter `tls-certificates=DIR` names a folder with `ca-cert.pem`
 *   and, if the server verifies clients, `client-cert.pem` and `client-key.pem`.
 *
 * The server must speak fixed newstyle; nothing else is required (NBD protocol, doc/proto.md). `extents` exists if the
 * server reports zeros (`base:allocation`).
 *
 * One connection carries many requests. If it fails or stalls, a new one replaces it. If the export then has another
 * size, calls reject with COD_SOURCE_CHANGED. NBD cannot tell one content from another: see
 * {@link NbdSourceOptions.identity}. After `close()` calls reject with COD_CLOSED.
 *
 * @param uri as doc/uri.md of NBD specifies it
 * @throws {@link CodError} COD_NOT_FOUND when the server has no such export, or a certificate's file is missing;
 *   COD_SOURCE_IO when the server cannot be reached, refuses, or breaks the protocol.
 * @throws `TypeError` when the URI is malformed or has an unknown parameter.
 * @throws the signal's reason when it is aborted.
 * @example
 * ```ts
 * import { nbdSource } from 'copyondemand/nbd';
 *
 * const source = await nbdSource('nbd://example.org/disk');
 * const sector = new Uint8Array(512);
 * await source.read(sector, 0);
 * await source.close();
 * ```
 */
export async function nbdSource(uri: string | URL, options: NbdSourceOptions = {}): Promise<Source & AsyncDisposable> {
  return nbdSourceAt(parseNbdUri(uri), options);
}

/** Like {@link nbdSource}, for a URI that is parsed already. */
export async function nbdSourceAt(
  location: NbdLocation,
  options: NbdSourceOptions = {},
): Promise<Source & AsyncDisposable> {
  const source = new NbdSource(location, { ...(await tlsIn(location.tlsCertificates)), ...options.tls }, options);
  try {
    return await source.open(options.signal ?? new AbortController().signal);
  } catch (error) {
    await source.close();
    throw error;
  }
}

class NbdSource implements InlineSource, AsyncDisposable {
  size = 0;
  declare readonly identity?: string;
  extents?: (offset: number, length: number) => Promise<readonly SourceExtent[]>;
  readonly #connectionOptions: NbdConnectionOptions;
  readonly #retries: Retries;
  readonly #closed = sharedAbort();
  #connection: NbdConnection | undefined;
  #connecting: Promise<NbdConnection> | undefined;

  constructor(location: NbdLocation, tls: NbdTls, options: NbdSourceOptions) {
    const { clock = systemClock, stallTimeoutMs = 15_000, minBytesPerSecond = 1024 } = options;
    const { retry = {}, random = Math.random, identity } = options;
    const limits = { stallTimeoutMs, minBytesPerSecond };
    this.#connectionOptions = { location, tls, clock, limits, what: showNbdLocation(location) };
    this.#retries = new Retries(retry, { clock, random });
    if (identity !== undefined) this.identity = identity;
  }

  set onRetry(listener: ((retry: RetryReport) => void) | undefined) {
    this.#retries.onRetry = listener;
  }

  async open(signal: AbortSignal): Promise<NbdSource> {
    const { info } = await this.#retrying(
      'connect',
      { attempts: ATTEMPTS_OPENING, signal },
      async (connection) => connection,
    );
    this.size = info.size;
    if (info.allocationContext !== undefined) {
      const ahead = new ExtentsAhead((offset, length) => this.#extents(offset, length));
      this.extents = async (offset, length) => {
        this.#closed.signal.throwIfAborted();
        checkRange(this.size, offset, length);
        return ahead.of(offset, length, this.size);
      };
    }
    return this;
  }

  read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    const sinceMs = this.#connectionOptions.clock.now();
    return this.#during(offset, into.length, options.signal, (signal) => this.#read(into, offset, { signal, sinceMs }));
  }

  async *stream(
    offset: number,
    length: number,
    options: InternalStreamOptions = {},
  ): AsyncIterableIterator<Uint8Array> {
    checkRange(this.size, offset, length);
    const over = new AbortController();
    const signal = AbortSignal.any([over.signal, ...(options.signal === undefined ? [] : [options.signal])]);
    setMaxListeners(0, signal);
    const end = offset + length;
    let asked = offset;
    const ask = (buffer: Uint8Array): { buffer: Uint8Array; piece: Uint8Array; done: Promise<void> } => {
      const piece = buffer.subarray(0, Math.min(buffer.length, end - asked));
      const at = asked;
      const done = this.#during(at, piece.length, signal, (own) => this.#read(piece, at, { signal: own }));
      // The loop below awaits the pieces in order, and reports the failure.
      done.catch(() => undefined);
      asked += piece.length;
      return { buffer, piece, done };
    };
    const window: ReturnType<typeof ask>[] = [];
    const buffers: Uint8Array[] = [];
    try {
      const pieces = Math.max(MIN_PIECES, STREAM_BYTES / (options.pieceBytes ?? PIECE_BYTES));
      while (asked < end && window.length < pieces) {
        buffers.push(pieceBuffer(options.pieceBytes, PIECE_BYTES, length));
        window.push(ask(buffers.at(-1)!));
      }
      for (let next = window.shift(); next !== undefined; next = window.shift()) {
        await next.done;
        yield next.piece;
        if (asked < end) window.push(ask(next.buffer));
      }
    } finally {
      // Replies that still come go elsewhere from now on.
      over.abort();
      for (const buffer of buffers) releasePages(buffer);
    }
  }

  #extents(offset: number, length: number): Promise<readonly SourceExtent[]> {
    return this.#during(offset, length, undefined, async (signal) => {
      const runs: ExtentList = [];
      for (let done = 0; done < length; ) {
        const left = length - done;
        const more = runs.length > MAX_RUNS ? DATA(left) : await this.#status(offset + done, left, signal);
        for (const run of more) addExtent(runs, run.length, run.zero);
        done += more.reduce((sum, run) => sum + run.length, 0);
      }
      return runs;
    });
  }

  #read(into: Uint8Array, offset: number, how: { signal: AbortSignal; sinceMs?: number }): Promise<void> {
    const what = `read ${into.length} bytes at ${offset}`;
    const task = (connection: NbdConnection): Promise<void> => connection.read(into, offset, how.signal);
    return this.#retrying(what, { attempts: ATTEMPTS, ...how }, task);
  }

  #status(offset: number, length: number, signal: AbortSignal): Promise<readonly SourceExtent[]> {
    const what = `block status of ${length} bytes at ${offset}`;
    return this.#retrying(what, { attempts: ATTEMPTS, signal }, async (connection) =>
      // After a reconnect, the server may no longer report zeros.
      connection.info.allocationContext === undefined ? DATA(length) : connection.status(offset, length, signal),
    );
  }

  /** Runs what a caller requested. The caller's signal and {@link close} abort it. */
  async #during<T>(
    offset: number,
    length: number,
    signal: AbortSignal | undefined,
    task: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    this.#closed.signal.throwIfAborted();
    signal?.throwIfAborted();
    checkRange(this.size, offset, length);
    if (length === 0) return task(this.#closed.signal);
    const own = sharedAbort();
    const onAbort = () => own.abort(signal?.reason);
    const onClosed = () => own.abort(this.#closed.signal.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#closed.signal.addEventListener('abort', onClosed, { once: true });
    try {
      return await task(own.signal);
    } catch (error) {
      // Of a read in parts, the other parts may be in flight: their replies must not reach the caller's buffer.
      own.abort(error);
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.#closed.signal.removeEventListener('abort', onClosed);
    }
  }

  async #retrying<T>(
    what: string,
    { attempts, signal, sinceMs }: { attempts: number; signal: AbortSignal; sinceMs?: number },
    task: (connection: NbdConnection) => Promise<T>,
  ): Promise<T> {
    const backoff = this.#retries.backoff(`${this.#connectionOptions.what}: ${what}`, attempts, sinceMs);
    for (;;) {
      try {
        return await task(await withSignal(this.#connect(), signal));
      } catch (error) {
        await backoff.wait(error, signal);
      }
    }
  }

  /** Returns the connection, or a new one if it cannot be used. At most one is being opened. */
  async #connect(): Promise<NbdConnection> {
    if (this.#connection?.usable) return this.#connection;
    this.#connecting ??= this.#open().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #open(): Promise<NbdConnection> {
    const before = this.#connection?.info;
    const connection = await NbdConnection.open(this.#connectionOptions, this.#closed.signal);
    if (this.#closed.signal.aborted || (before !== undefined && before.size !== connection.info.size)) {
      const { what } = this.#connectionOptions;
      const message = `${what} had ${before?.size} bytes at opening, and now has ${connection.info.size}`;
      const reason = this.#closed.signal.aborted
        ? this.#closed.signal.reason
        : new CodError('COD_SOURCE_CHANGED', message);
      connection.close(reason);
      throw reason;
    }
    this.#connection = connection;
    return connection;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    const reason = new CodError('COD_CLOSED', 'the source is closed');
    this.#closed.abort(reason);
    this.#connection?.close(reason);
  }
}

const DATA = (length: number): ExtentList => [{ length, zero: false }];

/** Reads the certificates in a folder, by the file names that qemu-nbd, nbdkit and libnbd use. */
async function tlsIn(directory: string | undefined): Promise<NbdTls> {
  if (directory === undefined) return {};
  const [ca, cert, key] = await Promise.all(
    ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'].map((name) => pemIn(join(directory, name))),
  );
  if (ca === undefined) throw new CodError('COD_NOT_FOUND', `${join(directory, 'ca-cert.pem')} does not exist`);
  if ((cert === undefined) !== (key === undefined)) {
    throw new CodError(
      'COD_NOT_FOUND',
      `${directory} has only one of client-cert.pem and client-key.pem: both are required`,
    );
  }
  return { ca, ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) };
}

async function pemIn(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return undefined;
    throw new CodError('COD_SOURCE_IO', `${path} cannot be read: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}
