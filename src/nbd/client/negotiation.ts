/**
 * The client's half of the NBD handshake (fixed newstyle): bytes in, bytes out. It uses no socket.
 *
 * The steps in order: greeting, TLS if wanted, structured replies, block status, the export itself. The export is
 * opened with OPT_GO if the server knows it, else with OPT_EXPORT_NAME. What a server may send is bounded at each step.
 */

import { CodError, type CodErrorCode } from '../../errors.ts';
import { PassingError } from '../../sources/retry.ts';
import {
  BASE_ALLOCATION,
  BYTES,
  CLIENT_FLAG,
  DEFAULT_MAX_PAYLOAD_BYTES,
  HANDSHAKE_FLAG,
  INFO,
  MAGIC,
  MAX_STRING_BYTES,
  OPTION,
  OPTION_REPLY,
  TRANSMISSION_FLAG,
} from '../constants.ts';
import { Intake } from './intake.ts';

/** What the client and the server have agreed on. */
export interface NbdExportInfo {
  /** Bytes. */
  readonly size: number;
  /** Whether replies to reads come in chunks, which may be holes. */
  readonly structured: boolean;
  /** The server's id of `base:allocation`. Undefined if the server does not report zeros. */
  readonly allocationContext: number | undefined;
  /** Offsets and lengths of requests must be multiples of this. */
  readonly minBlockBytes: number;
  /** The greatest length of a request. */
  readonly maxBlockBytes: number;
}

/** What the negotiation calls. */
export interface NegotiationHooks {
  send(bytes: Uint8Array): void;
  /** Encrypts the connection. {@link Negotiation.secured} must be called when that has succeeded. */
  startTls(): void;
  done(info: NbdExportInfo): void;
}

export interface NegotiationOptions {
  readonly exportName: string;
  readonly tls: boolean;
  /** Names the export in messages. */
  readonly what: string;
}

/** Bytes of an option's reply: one string, and the fields beside it. */
const MAX_REPLY_BYTES = MAX_STRING_BYTES + 64;
/** Replies to one option. A server has four kinds of information and one context for this client. */
const MAX_REPLIES = 64;
const MAX_MIN_BLOCK_BYTES = 2 ** 16;
const OLDSTYLE_MAGIC = 0x420281861253n;

/** A reply to an option. */
interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

export class Negotiation {
  readonly #options: NegotiationOptions;
  readonly #hooks: NegotiationHooks;
  readonly #intake = new Intake();
  #noZeroes = false;
  #structured = false;
  #context: number | undefined;
  #size: number | undefined;
  #minBlockBytes = 1;
  #maxBlockBytes = DEFAULT_MAX_PAYLOAD_BYTES;

  constructor(options: NegotiationOptions, hooks: NegotiationHooks) {
    this.#options = options;
    this.#hooks = hooks;
    this.#expect(16, (bytes) => this.#onMagic(bytes));
  }

  /**
   * Handles bytes from the server. Returns those after the negotiation.
   * @throws {@link CodError} when a retry is pointless; {@link PassingError} when a retry may succeed.
   */
  push(bytes: Uint8Array): Uint8Array {
    return this.#intake.push(bytes);
  }

  /** To be called when the connection is encrypted. */
  secured(): void {
    this.#askStructured();
  }

  #expect(length: number, then: (bytes: Buffer) => void): void {
    this.#intake.expect(Buffer.alloc(length), (portion) => then(portion as Buffer));
  }

  #onMagic(bytes: Buffer): void {
    if (bytes.readBigUInt64BE(0) !== MAGIC.init) throw this.#refused('the server does not speak NBD');
    const second = bytes.readBigUInt64BE(8);
    if (second === OLDSTYLE_MAGIC)
      throw this.#refused('the server uses the oldstyle handshake: start it with newstyle');
    if (second !== MAGIC.option) throw this.#refused('the server uses an unknown handshake');
    this.#expect(BYTES.serverGreeting - 16, (flags) => this.#onFlags(flags.readUInt16BE(0)));
  }

  #onFlags(flags: number): void {
    if ((flags & HANDSHAKE_FLAG.fixedNewstyle) === 0)
      throw this.#refused('the server does not support the fixed newstyle handshake');
    this.#noZeroes = (flags & HANDSHAKE_FLAG.noZeroes) !== 0;
    const answer = Buffer.alloc(BYTES.clientFlags);
    answer.writeUInt32BE(CLIENT_FLAG.fixedNewstyle | (this.#noZeroes ? CLIENT_FLAG.noZeroes : 0));
    this.#hooks.send(answer);
    if (this.#options.tls) this.#askTls();
    else this.#askStructured();
  }

  #askTls(): void {
    this.#ask(OPTION.starttls, Buffer.alloc(0), ({ type }) => {
      if (type !== OPTION_REPLY.ack)
        throw this.#refused('the server does not offer TLS; use nbd:// if the network is trusted');
      this.#hooks.startTls();
      return 'last';
    });
  }

  #askStructured(): void {
    this.#ask(OPTION.structuredReply, Buffer.alloc(0), ({ type }) => {
      if (type === OPTION_REPLY.errTlsReqd) throw this.#failure(type);
      this.#structured = type === OPTION_REPLY.ack;
      // Only structured replies can carry block status.
      if (this.#structured) this.#askContext();
      else this.#askGo();
      return 'last';
    });
  }

  #askContext(): void {
    const data = Buffer.concat([this.#name(), u32(1), lengthAndText(BASE_ALLOCATION)]);
    this.#ask(OPTION.setMetaContext, data, ({ type, data }) => {
      if (type === OPTION_REPLY.metaContext) {
        if (data.length < 4) throw this.#malformed('a metadata context without its ID');
        if (data.toString('utf8', 4) === BASE_ALLOCATION) this.#context = data.readUInt32BE(0);
        return 'more';
      }
      if (type !== OPTION_REPLY.ack) this.#context = undefined;
      this.#askGo();
      return 'last';
    });
  }

  #askGo(): void {
    const data = Buffer.concat([this.#name(), u16(1), u16(INFO.blockSize)]);
    this.#ask(OPTION.go, data, ({ type, data }) => {
      if (type === OPTION_REPLY.info) {
        this.#onInfo(data);
        return 'more';
      }
      if (type === OPTION_REPLY.ack) this.#finish();
      else if (type === OPTION_REPLY.errUnsup) this.#askExportName();
      else throw this.#failure(type, data);
      return 'last';
    });
  }

  #onInfo(data: Buffer): void {
    if (data.length < 2) throw this.#malformed('information without its type');
    const kind = data.readUInt16BE(0);
    if (kind === INFO.export) {
      if (data.length !== 12) throw this.#malformed(`export information of ${data.length} bytes instead of 12`);
      this.#onExport(data.readBigUInt64BE(2), data.readUInt16BE(10));
    } else if (kind === INFO.blockSize) {
      if (data.length !== 14) throw this.#malformed(`block size information of ${data.length} bytes instead of 14`);
      const [min, max] = [data.readUInt32BE(2), data.readUInt32BE(10)];
      const sensible = min > 0 && min <= MAX_MIN_BLOCK_BYTES && Number.isInteger(Math.log2(min)) && max >= min;
      if (!sensible) throw this.#malformed(`invalid block sizes, ${min} to ${max} bytes`);
      this.#minBlockBytes = min;
      this.#maxBlockBytes = max - (max % min);
    }
  }

  /** Opens the export on a server without OPT_GO. Such a server closes the connection if the export does not exist. */
  #askExportName(): void {
    const name = Buffer.from(this.#options.exportName);
    this.#send(OPTION.exportName, name);
    this.#expect(BYTES.exportNameReply + (this.#noZeroes ? 0 : BYTES.exportNameZeroes), (reply) => {
      this.#onExport(reply.readBigUInt64BE(0), reply.readUInt16BE(8));
      this.#finish();
    });
  }

  #onExport(size: bigint, flags: number): void {
    if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw this.#refused(`the export has ${size} bytes, more than 2^53 - 1`);
    if ((flags & TRANSMISSION_FLAG.hasFlags) === 0) throw this.#malformed('an export without flags');
    this.#size = Number(size);
  }

  #finish(): void {
    if (this.#size === undefined) throw this.#malformed('an export without size');
    if (this.#size % this.#minBlockBytes !== 0)
      throw this.#malformed(`a size of ${this.#size} bytes, not a multiple of its block size ${this.#minBlockBytes}`);
    this.#hooks.done({
      size: this.#size,
      structured: this.#structured,
      allocationContext: this.#context,
      minBlockBytes: this.#minBlockBytes,
      maxBlockBytes: this.#maxBlockBytes,
    });
  }

  #send(option: number, data: Buffer): void {
    const head = Buffer.alloc(BYTES.optionHeader);
    head.writeBigUInt64BE(MAGIC.option, 0);
    head.writeUInt32BE(option, 8);
    head.writeUInt32BE(data.length, 12);
    this.#hooks.send(Buffer.concat([head, data]));
  }

  /** Sends an option. `onReply` gets each reply to it and returns whether `more` may come. */
  #ask(option: number, data: Buffer, onReply: (reply: OptionReply) => 'more' | 'last'): void {
    let replies = 0;
    const expectReply = () => {
      if (++replies > MAX_REPLIES) throw this.#malformed(`more than ${MAX_REPLIES} replies to option ${option}`);
      this.#expect(BYTES.optionReplyHeader, (head) => {
        if (head.readBigUInt64BE(0) !== MAGIC.optionReply)
          throw this.#malformed('an option reply without its magic number');
        if (head.readUInt32BE(8) !== option)
          throw this.#malformed(`a reply to option ${head.readUInt32BE(8)} instead of ${option}`);
        const type = head.readUInt32BE(12);
        const length = head.readUInt32BE(16);
        if (length > MAX_REPLY_BYTES)
          throw this.#malformed(
            `a reply of ${length} bytes to option ${option}, at most ${MAX_REPLY_BYTES} are allowed`,
          );
        const onData = (data: Buffer) => {
          if (onReply({ type, data }) === 'more') expectReply();
        };
        if (length === 0) onData(Buffer.alloc(0));
        else this.#expect(length, onData);
      });
    };
    expectReply();
    this.#send(option, data);
  }

  #name(): Buffer {
    return lengthAndText(this.#options.exportName);
  }

  /** Returns the error for an error reply. */
  #failure(type: number, data: Buffer = Buffer.alloc(0)): Error {
    const said = data.length === 0 ? '' : ` (the server says: ${printable(data.toString('utf8', 0, 200))})`;
    const { exportName } = this.#options;
    switch (type) {
      case OPTION_REPLY.errShutdown:
        return new PassingError('the server is shutting down');
      case OPTION_REPLY.errUnknown:
        return this.#refused(`the server has no export named ${JSON.stringify(exportName)}${said}`, 'COD_NOT_FOUND');
      case OPTION_REPLY.errTlsReqd:
        return this.#refused(`the server requires TLS: use nbds://${said}`);
      case OPTION_REPLY.errPolicy:
        return this.#refused(`the server denies access to the export${said}`);
      case OPTION_REPLY.errBlockSizeReqd:
        return this.#refused(`the server requires block sizes that it did not announce${said}`);
      default:
        return this.#refused(`the server refuses the export with error 0x${type.toString(16)}${said}`);
    }
  }

  #malformed(what: string): CodError {
    return this.#refused(`the server sent ${what}`);
  }

  #refused(what: string, code: CodErrorCode = 'COD_SOURCE_IO'): CodError {
    return new CodError(code, `${this.#options.what}: ${what}`);
  }
}

/** Replaces what is not printable. A server's text goes into one line, and onto a terminal. */
export function printable(text: string): string {
  return text.replace(/[^\p{L}\p{N}\p{P}\p{S} ]/gu, '?');
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function lengthAndText(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u32(bytes.length), bytes]);
}
