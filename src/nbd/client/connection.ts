/** One connection to an NBD server: many requests under way at a time, each settled by its reply, all of them failed when the connection is. */

import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type SecureContextOptions } from 'node:tls';
import { CodError } from '../../errors.ts';
import type { Clock } from '../../platform/clock.ts';
import { PassingError } from '../../sources/retry.ts';
import { BYTES, COMMAND, MAGIC } from '../constants.ts';
import type { NbdLocation } from '../uri.ts';
import { type NbdExportInfo, Negotiation } from './negotiation.ts';
import { type AllocationRun, type ReadRequest, ReplyParser, type StatusRequest } from './replies.ts';

/** What TLS is done with, in PEM. */
export interface NbdTls extends Pick<SecureContextOptions, 'ca' | 'cert' | 'key'> {
  /** Whose certificate the server must have. Default: the host; `localhost` for a socket. */
  readonly servername?: string;
}

export interface NbdConnectionOptions {
  readonly location: NbdLocation;
  /** The export, for messages. */
  readonly what: string;
  readonly tls: NbdTls;
  readonly clock: Clock;
  /** No byte for so long while one is waited for ends the connection; so does a handshake that takes longer in all. */
  readonly stallTimeoutMs: number;
}

/** Longer reads are split, so that those of others get in between. */
const MAX_READ_BYTES = 2 ** 20;
/** Requests under way; more wait. Servers work on 16 or so at a time. */
const MAX_REQUESTS = 64;
/** 32 bits on the wire. */
const MAX_STATUS_BYTES = 2 ** 30;

export class NbdConnection {
  readonly info: NbdExportInfo;
  readonly #options: NbdConnectionOptions;
  readonly #socket: Socket;
  readonly #parser: ReplyParser;
  readonly #over = new AbortController();
  #waiting: (() => void)[] = [];
  #cookie = 0;
  #lastByteMs: number;
  /** Takes what comes for those who do not want it any more. */
  #scratch: Uint8Array | undefined;

  /** Connects and negotiates. @throws CodError, which is final; any other error may pass; the signal's reason */
  static open(options: NbdConnectionOptions, signal: AbortSignal): Promise<NbdConnection> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const { location, what, clock, stallTimeoutMs } = options;
      const settled = new AbortController();
      let socket: Socket = 'socket' in location.at ? connectTcp({ path: location.at.socket }) : connectTcp(location.at);
      const fail = (error: unknown) => {
        settled.abort();
        signal.removeEventListener('abort', onAbort);
        socket.destroy();
        reject(error);
      };
      const onAbort = () => fail(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      clock.sleep(stallTimeoutMs, settled.signal).then(
        () => fail(new PassingError(`the connection was not made within ${stallTimeoutMs} ms`)),
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
        // With TLS 1.3 the server looks at our certificate when for us all is well already.
        const hint = location.tls && options.tls.cert === undefined ? '; perhaps it wants a certificate of ours' : '';
        const lost = (how: string) => fail(new PassingError(`${how}${hint}`));
        socket.on('error', (error) => {
          const explanation = explained(error, what);
          if (explanation === error) lost(error.message);
          else fail(explanation);
        });
        socket.on('close', () => lost('the server hung up during the handshake'));
        socket.on('data', (bytes) => {
          try {
            const rest = negotiation.push(bytes);
            if (rest.length > 0)
              throw new CodError('COD_SOURCE_IO', `${what}: the server sent bytes that it was not asked for`);
          } catch (error) {
            fail(error);
            return;
          }
          if (info === undefined) return;
          settled.abort();
          signal.removeEventListener('abort', onAbort);
          forget(socket);
          resolve(new NbdConnection(options, socket, info));
        });
      };
      const secure = () => {
        const plain = socket;
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
    this.#options = options;
    this.#socket = socket;
    this.info = info;
    this.#parser = new ReplyParser({ what: options.what, ...info });
    this.#lastByteMs = options.clock.now();
    socket.on('data', (bytes) => this.#onData(bytes));
    socket.on('error', (error) => this.#end(explained(error, options.what)));
    socket.on('close', () => this.#end(new PassingError('the server hung up')));
    void this.#watch();
  }

  /** Whether it can still be used, as far as is known. */
  get usable(): boolean {
    return !this.#over.signal.aborted;
  }

  /** Fills `into` from `offset` on, whatever blocks the server has. @throws CodError, which is final; any other error may pass; the signal's reason */
  async read(into: Uint8Array, offset: number, signal: AbortSignal): Promise<void> {
    const { minBlockBytes: unit, maxBlockBytes, size } = this.info;
    const start = offset - (offset % unit);
    const end = Math.min(size, Math.ceil((offset + into.length) / unit) * unit);
    const isAligned = end - start === into.length;
    const whole = isAligned ? into : new Uint8Array(end - start);
    // A multiple of the unit, as both are.
    const most = Math.min(maxBlockBytes, MAX_READ_BYTES);
    const reads: Promise<void>[] = [];
    for (let at = 0; at < whole.length; at += most)
      reads.push(this.#read(whole.subarray(at, Math.min(whole.length, at + most)), start + at, signal));
    await Promise.all(reads);
    if (!isAligned) into.set(whole.subarray(offset - start, offset - start + into.length));
  }

  /** What of the range reads as zeros: a beginning of the range, at least a byte of it. To be asked only where the export has an `allocationContext`. */
  async status(offset: number, length: number, signal: AbortSignal): Promise<readonly AllocationRun[]> {
    const { minBlockBytes: unit, size } = this.info;
    const start = offset - (offset % unit);
    const end = Math.min(size, Math.ceil(Math.min(offset + length, start + MAX_STATUS_BYTES) / unit) * unit);
    const runs: AllocationRun[] = [];
    await this.#request(signal, (settle) => ({ kind: 'status', offset: start, length: end - start, runs, settle }));
    return clipped(runs, { skip: offset - start, length });
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
        signal.removeEventListener('abort', onAbort);
        this.#wakeWaiting();
        if (error === undefined) resolve();
        else reject(error);
      };
      const request = make(settle);
      // The reply comes all the same: NBD cannot take a request back.
      const onAbort = () => {
        if (request.kind === 'read')
          request.into = (this.#scratch ??= new Uint8Array(MAX_READ_BYTES)).subarray(0, request.length);
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      if (this.#parser.pending === 0) this.#lastByteMs = this.#options.clock.now();
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
    // All requests of one turn go out together.
    if (this.#socket.writableCorked === 0) {
      this.#socket.cork();
      process.nextTick(() => this.#socket.uncork());
    }
    this.#socket.write(bytes);
  }

  #onData(bytes: Uint8Array): void {
    this.#lastByteMs = this.#options.clock.now();
    try {
      this.#parser.push(bytes);
    } catch (error) {
      this.#end(error as Error);
    }
  }

  async #watch(): Promise<void> {
    const { clock, stallTimeoutMs } = this.#options;
    while (this.usable) {
      const idleMs = this.#parser.pending === 0 ? 0 : clock.now() - this.#lastByteMs;
      if (idleMs >= stallTimeoutMs) this.#end(new PassingError(`no byte came for ${stallTimeoutMs} ms`));
      else await clock.sleep(stallTimeoutMs - idleMs, this.#over.signal).catch(() => undefined);
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

  /** Says goodbye; what is under way rejects with `reason`. Idempotent. */
  close(reason: Error): void {
    if (!this.usable) return;
    this.#send(COMMAND.disconnect, { offset: 0, length: 0 });
    this.#over.abort(reason);
    this.#parser.fail(reason);
    this.#wakeWaiting();
    this.#socket.end(() => this.#socket.destroy());
    // Whether it listens or not.
    this.#socket.unref();
  }
}

/** Takes back our listeners; Node has some of its own. */
function forget(socket: Socket): void {
  for (const event of ['data', 'error', 'close']) socket.removeAllListeners(event);
}

/** The runs without their first `skip` bytes, and `length` bytes of them at most. */
function clipped(runs: readonly AllocationRun[], { skip, length }: { skip: number; length: number }): AllocationRun[] {
  const result: AllocationRun[] = [];
  let at = -skip;
  for (const run of runs) {
    const start = Math.max(0, at);
    const end = Math.min(length, at + run.length);
    if (start < end) result.push({ length: end - start, zero: run.zero });
    at += run.length;
  }
  return result;
}

/** Certificates that are not accepted, and servers that do not speak TLS, do not get better by asking again. */
function explained(error: Error, what: string): Error {
  const code = 'code' in error ? String(error.code) : '';
  if (!/^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)|_CERT|EPROTO/.test(code)) return error;
  const message = `${what}: TLS is refused: ${error.message} (${code})`;
  return new CodError('COD_SOURCE_IO', message, { cause: error, details: { errno: code } });
}
