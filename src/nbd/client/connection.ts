/**
 * One connection to an NBD server. Many requests may be in flight, and each is settled by its reply. If the connection
 * fails, all of them fail.
 */

import { connect as connectTcp, type OnReadOpts, type Socket } from 'node:net';
import { connect as connectTls, type SecureContextOptions } from 'node:tls';
import { CodError } from '../../errors.ts';
import type { Clock } from '../../platform/clock.ts';
import { type ExtentList, partOf } from '../../sources/extents.ts';
import { PassingError, type StallLimits } from '../../sources/retry.ts';
import type { SourceExtent } from '../../sources/source.ts';
import { StallWatch } from '../../sources/stall-watch.ts';
import { BYTES, COMMAND, MAGIC } from '../constants.ts';
import type { NbdLocation } from '../uri.ts';
import { type NbdExportInfo, Negotiation } from './negotiation.ts';
import { type ReadRequest, ReplyParser, type StatusRequest } from './replies.ts';

/** TLS settings of a client. Certificates and keys are in PEM, as `tls.createSecureContext` of Node takes them. */
export interface NbdTls extends Pick<SecureContextOptions, 'ca' | 'cert' | 'key'> {
  /** The host name that the server's certificate must have. Default: the host; `localhost` for a socket. */
  readonly servername?: string;
}

export interface NbdConnectionOptions {
  readonly location: NbdLocation;
  /** Names the export in messages. */
  readonly what: string;
  readonly tls: NbdTls;
  readonly clock: Clock;
  /** When a connection counts as stalled. A handshake may take as long as the longest silence. */
  readonly limits: Required<StallLimits>;
}

/** Longer reads are split, so that replies to other requests come in between. */
const MAX_READ_BYTES = 2 ** 20;
/** Requests in flight at a time; further ones wait. Servers process about 16 at a time. */
const MAX_REQUESTS = 64;
/** Memory for each read of a socket, used again: Node would allocate 64 KiB each time. TLS cannot use it. */
const RECEIVED_BYTES = 2 ** 18;
/** Lengths have 32 bits on the wire. */
const MAX_STATUS_BYTES = 2 ** 30;

export class NbdConnection {
  readonly info: NbdExportInfo;
  readonly #socket: Socket;
  readonly #parser: ReplyParser;
  readonly #over = new AbortController();
  #waiting: (() => void)[] = [];
  #cookie = 0;
  readonly #watch: StallWatch;
  /** Receives the replies to aborted reads. */
  #scratch: Uint8Array | undefined;

  /**
   * Connects and negotiates.
   * @throws {@link CodError} when a retry is pointless; another error when a retry may succeed; the signal's reason if
   *   it is aborted.
   */
  static open(options: NbdConnectionOptions, signal: AbortSignal): Promise<NbdConnection> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const { location, what, clock } = options;
      const { stallTimeoutMs } = options.limits;
      const settled = new AbortController();
      /** Takes the bytes that come: of the handshake, and then of the connection. They are gone after the call. */
      let receive: (bytes: Uint8Array) => void;
      const inOneBuffer = (): OnReadOpts => ({
        buffer: new Uint8Array(RECEIVED_BYTES),
        callback: (length, bytes) => {
          receive(bytes.subarray(0, length));
          return true;
        },
      });
      const at = 'socket' in location.at ? { path: location.at.socket } : location.at;
      let socket: Socket = connectTcp(location.tls ? at : { ...at, onread: inOneBuffer() });
      const fail = (error: unknown) => {
        settled.abort();
        signal.removeEventListener('abort', onAbort);
        socket.destroy();
        reject(error);
      };
      const onAbort = () => fail(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      clock.sleep(stallTimeoutMs, settled.signal).then(
        () => fail(new PassingError(`no connection within ${stallTimeoutMs} ms`)),
        () => undefined,
      );
      let info: NbdExportInfo | undefined;
      const negotiation = new Negotiation(
        { exportName: location.exportName, tls: location.tls, what },
        {
          send: (bytes) => void socket.write(bytes),
          startTls: () => secure(),
          done: (agreed) => {
            info = agreed;
          },
        },
      );
      const listen = () => {
        socket.setNoDelay(true);
        // With TLS 1.3 the server checks the client's certificate after the client has completed its handshake.
        const hint =
          location.tls && options.tls.cert === undefined ? '; the server may require a client certificate' : '';
        const lost = (how: string) => fail(new PassingError(`${how}${hint}`));
        socket.on('error', (error) => {
          const explanation = explained(error, what);
          if (explanation === error) lost(error.message);
          else fail(explanation);
        });
        socket.on('close', () => lost('the server closed the connection during the handshake'));
        if (location.tls) socket.on('data', (bytes) => receive(bytes));
        receive = (bytes) => {
          try {
            const rest = negotiation.push(bytes);
            if (rest.length > 0)
              throw new CodError('COD_SOURCE_IO', `${what}: the server sent unexpected bytes after the handshake`);
          } catch (error) {
            fail(error);
            return;
          }
          if (info === undefined) return;
          settled.abort();
          signal.removeEventListener('abort', onAbort);
          forget(socket);
          const connection = new NbdConnection(options, socket, info);
          receive = (more) => connection.#onData(more);
          resolve(connection);
        };
      };
      const secure = () => {
        const plain = socket;
        plain.removeAllListeners('data');
        forget(plain);
        plain.on('error', (error) => fail(explained(error, what)));
        const servername = options.tls.servername ?? ('host' in location.at ? location.at.host : 'localhost');
        socket = connectTls({ ...options.tls, socket: plain, servername }, () => negotiation.secured());
        listen();
      };
      listen();
    });
  }

  private constructor(options: NbdConnectionOptions, socket: Socket, info: NbdExportInfo) {
    this.#socket = socket;
    this.info = info;
    this.#parser = new ReplyParser({ what: options.what, ...info });
    const { clock, limits } = options;
    this.#watch = new StallWatch({ clock, limits, signal: this.#over.signal, expire: (why) => this.#end(why) });
    socket.on('error', (error) => this.#end(explained(error, options.what)));
    socket.on('close', () => this.#end(new PassingError('the server closed the connection')));
  }

  /** Whether the connection can be used, as far as is known. */
  get usable(): boolean {
    return !this.#over.signal.aborted;
  }

  /**
   * Fills `into` with the bytes from `offset` on. The range may begin and end anywhere, whatever blocks the server has.
   * @throws {@link CodError} when a retry is pointless; another error when a retry may succeed; the signal's reason if
   *   it is aborted.
   */
  async read(into: Uint8Array, offset: number, signal: AbortSignal): Promise<void> {
    const { minBlockBytes: unit, maxBlockBytes, size } = this.info;
    const end = Math.min(size, Math.ceil((offset + into.length) / unit) * unit);
    // A multiple of `unit`, since both are.
    const most = Math.min(maxBlockBytes, MAX_READ_BYTES);
    const reads: Promise<void>[] = [];
    for (let at = offset - (offset % unit); at < end; at += most)
      reads.push(this.#readPiece(into, offset, { start: at, end: Math.min(end, at + most) }, signal));
    await Promise.all(reads);
  }

  /** Reads whole blocks of the server. Of those at the ends of `into`, only a part may be wanted. */
  async #readPiece(
    into: Uint8Array,
    offset: number,
    { start, end }: { start: number; end: number },
    signal: AbortSignal,
  ): Promise<void> {
    const part = into.subarray(Math.max(0, start - offset), end - offset);
    if (part.length === end - start) return this.#read(part, start, signal);
    const whole = new Uint8Array(end - start);
    await this.#read(whole, start, signal);
    const skipped = Math.max(0, offset - start);
    part.set(whole.subarray(skipped, skipped + part.length));
  }

  /**
   * Returns which bytes of a range read as zeros. The runs begin at `offset` and cover 1 to `length` bytes. To be
   * called only if `info.allocationContext` is defined.
   * @throws as {@link read}.
   */
  async status(offset: number, length: number, signal: AbortSignal): Promise<readonly SourceExtent[]> {
    const { minBlockBytes: unit, size } = this.info;
    const start = offset - (offset % unit);
    const end = Math.min(size, Math.ceil(Math.min(offset + length, start + MAX_STATUS_BYTES) / unit) * unit);
    const runs: ExtentList = [];
    await this.#request(signal, (settle) => ({ kind: 'status', offset: start, length: end - start, runs, settle }));
    return partOf(runs, offset - start, length);
  }

  #read(into: Uint8Array, offset: number, signal: AbortSignal): Promise<void> {
    return this.#request(signal, (settle) => ({ kind: 'read', offset, length: into.length, into, settle }));
  }

  async #request(
    signal: AbortSignal,
    make: (settle: (error?: Error) => void) => ReadRequest | StatusRequest,
  ): Promise<void> {
    signal.throwIfAborted();
    while (this.usable && this.#parser.pending >= MAX_REQUESTS)
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    signal.throwIfAborted();
    if (!this.usable) throw this.#over.signal.reason;
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error) => {
        // Replies to many small requests may be few bytes.
        this.#watch.restart();
        if (this.#parser.pending === 0) this.#watch.end();
        signal.removeEventListener('abort', onAbort);
        this.#wakeWaiting();
        if (error === undefined) resolve();
        else reject(error);
      };
      const request = make(settle);
      // NBD cannot cancel a request, so its reply still comes.
      const onAbort = () => {
        if (request.kind === 'read')
          request.into = (this.#scratch ??= new Uint8Array(MAX_READ_BYTES)).subarray(0, request.length);
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#watch.begin();
      this.#parser.add(++this.#cookie, request);
      this.#send(request.kind === 'read' ? COMMAND.read : COMMAND.blockStatus, request);
    });
  }

  #send(command: number, { offset, length }: { offset: number; length: number }): void {
    const bytes = Buffer.alloc(BYTES.request);
    bytes.writeUInt32BE(MAGIC.request, 0);
    bytes.writeUInt16BE(command, 6);
    bytes.writeBigUInt64BE(BigInt(this.#cookie), 8);
    bytes.writeBigUInt64BE(BigInt(offset), 16);
    bytes.writeUInt32BE(length, 24);
    // All requests of one turn are sent in one write.
    if (this.#socket.writableCorked === 0) {
      this.#socket.cork();
      process.nextTick(() => this.#socket.uncork());
    }
    this.#socket.write(bytes);
  }

  #onData(bytes: Uint8Array): void {
    this.#watch.received(bytes.length);
    try {
      this.#parser.push(bytes);
    } catch (error) {
      this.#end(error as Error);
    }
  }

  #end(error: Error): void {
    if (!this.usable) return;
    this.#over.abort(error);
    this.#socket.destroy();
    this.#parser.fail(error);
    this.#wakeWaiting();
  }

  #wakeWaiting(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Sends a disconnect and closes the connection. Requests in flight reject with `reason`. Idempotent. */
  close(reason: Error): void {
    if (!this.usable) return;
    this.#send(COMMAND.disconnect, { offset: 0, length: 0 });
    this.#over.abort(reason);
    this.#parser.fail(reason);
    this.#wakeWaiting();
    this.#socket.end(() => this.#socket.destroy());
    // The process must not wait for a server that does not read.
    this.#socket.unref();
  }
}

/** Removes the listeners of how a socket ends. Node's listeners of other events must stay. */
function forget(socket: Socket): void {
  for (const event of ['error', 'close']) socket.removeAllListeners(event);
}

/** Makes TLS errors final: a retry helps neither with a rejected certificate nor with a server without TLS. */
function explained(error: Error, what: string): Error {
  const code = 'code' in error ? String(error.code) : '';
  if (!/^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)|_CERT|EPROTO/.test(code)) return error;
  const message = `${what}: the TLS connection failed: ${error.message} (${code})`;
  return new CodError('COD_SOURCE_IO', message, { cause: error, details: { errno: code } });
}
