/**
 * The server's half of the handshake (fixed newstyle): bytes in, actions out. It uses no socket, clock or device.
 *
 *   greeting → client flags → options, each answered before the next is read → transmission | closed
 *                               └ STARTTLS → (the caller secures the connection, then `secured`) → options …
 *
 * Whatever a client sends, at most one option of {@link MAX_OPTION_BYTES} is kept, and replies of
 * {@link LIMITS.unsentBytes} and one more.
 */

import { concat } from '../../core/concat.ts';
import {
  BYTES,
  CLIENT_FLAG,
  HANDSHAKE_FLAG,
  INFO,
  MAGIC,
  MAX_STRING_BYTES,
  OPTION,
  OPTION_REPLY,
  TRANSMISSION_FLAG,
} from '../constants.ts';
import { getU16, getU32, putU16, putU32, putU64 } from '../wire.ts';
import { LIMITS } from './limits.ts';

/** Bytes of one option's data: room for a name and a dozen queries of the greatest length. No client sends more. */
const MAX_OPTION_BYTES = 65_536;
/** Options of one connection. A client sends about ten; nbdinfo with a list sends some for each export. */
const MAX_OPTIONS = 1024;

/** What a client learns about an export. */
export interface ExportInfo {
  readonly name: string;
  readonly description?: string | undefined;
  /** Bytes. */
  readonly size: number;
  /** All `TRANSMISSION_FLAG`s of the export. A client gets `sendDf` only once structured replies are agreed on. */
  readonly flags: number;
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number;
  readonly maximumPayloadBytes: number;
  /** Metadata contexts that a client can choose. A context's id is its index plus 1. */
  readonly contexts: readonly string[];
}

/** What the client and the server have agreed on. */
export interface Agreement {
  readonly export: ExportInfo;
  readonly structuredReplies: boolean;
  /** Ids of the metadata contexts that the client chose. */
  readonly contexts: readonly number[];
}

type End = Exclude<Next, { readonly next: 'receive' }>;

type Next =
  | { readonly next: 'receive' }
  /** Secure the connection, then call `secured`. What was agreed on in plaintext is void. */
  | { readonly next: 'starttls' }
  | { readonly next: 'transmission'; readonly agreement: Agreement; readonly rest: Uint8Array }
  | { readonly next: 'close'; readonly reason: string };

/** What the caller does after it has sent `send`. */
export type HandshakeAction = { readonly send: Uint8Array } & Next;

export interface HandshakeOptions {
  /** All exports, in the order of the list that clients get. May change at any time. */
  readonly exports: readonly ExportInfo[];
  /** `required`: before TLS only STARTTLS and ABORT are accepted. `absent`: TLS is not offered. */
  readonly tls: 'absent' | 'required';
  /** Whether the empty name means the only export, if there is one. Default: true. */
  readonly onlyIsDefault?: boolean;
}

/** An option that is malformed or cannot be granted. The client gets an error reply. */
class Refusal {
  readonly type: number;
  readonly message: string;

  constructor(type: number, message: string) {
    this.type = type;
    this.message = message;
  }
}

const invalid = (message: string): Refusal => new Refusal(OPTION_REPLY.errInvalid, message);

const EMPTY = new Uint8Array(0);

export class Handshake {
  readonly #options: HandshakeOptions;
  /** Bytes that were received and not consumed: the first `#length` bytes. */
  #buffer = new Uint8Array(256);
  #length = 0;
  #output: Uint8Array[] = [];
  #outputBytes = 0;
  #clientFlags: number | undefined;
  #secured = false;
  #optionCount = 0;
  #structuredReplies = false;
  #chosen: { readonly export: ExportInfo; readonly contexts: readonly number[] } | undefined;
  #ended = false;

  constructor(options: HandshakeOptions) {
    this.#options = options;
  }

  /** Returns the first message of the server. */
  greeting(): Uint8Array {
    const bytes = new Uint8Array(BYTES.serverGreeting);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, MAGIC.init);
    view.setBigUint64(8, MAGIC.option);
    view.setUint16(16, HANDSHAKE_FLAG.fixedNewstyle | HANDSHAKE_FLAG.noZeroes);
    return bytes;
  }

  /** To be called when the connection is secured. Discards what was agreed on in plaintext. */
  secured(): void {
    this.#secured = true;
    this.#structuredReplies = false;
    this.#chosen = undefined;
  }

  /** Handles bytes from the client. They are copied where they are needed later. */
  receive(bytes: Uint8Array): HandshakeAction {
    if (this.#ended) throw new Error('the handshake has ended');
    this.#append(bytes);
    const end = this.#run();
    const send = concat(...this.#output);
    this.#output = [];
    this.#outputBytes = 0;
    if (end === undefined) return { send, next: 'receive' };
    this.#ended = end.next !== 'starttls';
    return { send, ...end };
  }

  #append(bytes: Uint8Array): void {
    const needed = this.#length + bytes.length;
    if (needed > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(needed, 2 * this.#buffer.length));
      larger.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length = needed;
  }

  #consume(bytes: number): void {
    this.#buffer.copyWithin(0, bytes, this.#length);
    this.#length -= bytes;
  }

  #run(): End | undefined {
    if (this.#clientFlags === undefined) {
      if (this.#length < BYTES.clientFlags) return undefined;
      const flags = getU32(this.#buffer, 0);
      if ((flags & ~(CLIENT_FLAG.fixedNewstyle | CLIENT_FLAG.noZeroes)) !== 0)
        return close(`unknown client flags 0x${flags.toString(16)}`);
      this.#clientFlags = flags;
      this.#consume(BYTES.clientFlags);
    }
    while (this.#length >= BYTES.optionHeader) {
      const head = new DataView(this.#buffer.buffer, 0, BYTES.optionHeader);
      if (head.getBigUint64(0) !== MAGIC.option) return close('an option without its magic number');
      const option = head.getUint32(8);
      const dataBytes = head.getUint32(12);
      if (dataBytes > MAX_OPTION_BYTES)
        return close(`an option of ${dataBytes} bytes, at most ${MAX_OPTION_BYTES} are allowed`);
      if (this.#length < BYTES.optionHeader + dataBytes) return undefined;
      // 4096 requests for the list fit in one piece of input.
      if (this.#outputBytes > LIMITS.unsentBytes) return close('a client that sends options and awaits no reply');
      if (++this.#optionCount > MAX_OPTIONS) return close(`more than ${MAX_OPTIONS} options`);
      const data = this.#buffer.slice(BYTES.optionHeader, BYTES.optionHeader + dataBytes);
      this.#consume(BYTES.optionHeader + dataBytes);
      const end = this.#handle(option, data);
      if (end !== undefined) return end;
    }
    return undefined;
  }

  /** Answers one option. Returns what follows the options, or undefined if another option may follow. */
  #handle(option: number, data: Uint8Array): End | undefined {
    const fixed = (this.#clientFlags! & CLIENT_FLAG.fixedNewstyle) !== 0;
    // A client without fixed newstyle does not understand option replies.
    if (!fixed && option !== OPTION.exportName) return close(`option ${option} from a client without fixed newstyle`);
    const insecure = this.#options.tls === 'required' && !this.#secured;
    if (option === OPTION.exportName) return insecure ? close('a client without TLS') : this.#exportName(data);
    if (option === OPTION.abort) {
      this.#reply(option, OPTION_REPLY.ack);
      return close('the client aborted the handshake');
    }
    if (insecure && option !== OPTION.starttls) {
      this.#refuse(option, new Refusal(OPTION_REPLY.errTlsReqd, 'this server requires TLS'));
      return undefined;
    }
    try {
      return this.#negotiate(option, data);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#refuse(option, error);
      return undefined;
    }
  }

  #negotiate(option: number, data: Uint8Array): End | undefined {
    switch (option) {
      case OPTION.starttls:
        return this.#startTls(data);
      case OPTION.list:
        this.#list(data);
        return undefined;
      case OPTION.structuredReply:
        if (data.length > 0) throw invalid('this option takes no data');
        this.#structuredReplies = true;
        this.#reply(option, OPTION_REPLY.ack);
        return undefined;
      case OPTION.info:
      case OPTION.go:
        return this.#info(option, data);
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        this.#metaContext(option, data);
        return undefined;
      default:
        throw new Refusal(OPTION_REPLY.errUnsup, `option ${option} is unknown`);
    }
  }

  #startTls(data: Uint8Array): End | undefined {
    if (this.#options.tls === 'absent') throw new Refusal(OPTION_REPLY.errPolicy, 'this server does not offer TLS');
    if (this.#secured) throw invalid('the connection already uses TLS');
    if (data.length > 0) throw invalid('this option takes no data');
    // An attacker could have put these bytes in front of what the client sends over TLS.
    if (this.#length > 0) return close('plaintext after STARTTLS');
    this.#reply(OPTION.starttls, OPTION_REPLY.ack);
    return { next: 'starttls' };
  }

  #exportName(data: Uint8Array): End {
    const found = data.length > MAX_STRING_BYTES ? undefined : this.#find(text(data));
    if (found === undefined) return close('an export that does not exist');
    const zeroes = (this.#clientFlags! & CLIENT_FLAG.noZeroes) !== 0 ? 0 : BYTES.exportNameZeroes;
    const bytes = new Uint8Array(BYTES.exportNameReply + zeroes);
    putU64(bytes, 0, found.size);
    putU16(bytes, 8, this.#flagsOf(found));
    this.#output.push(bytes);
    return this.#agree(found);
  }

  #list(data: Uint8Array): void {
    if (data.length > 0) throw invalid('this option takes no data');
    for (const { name, description = '' } of this.#options.exports) {
      const nameBytes = utf8(name);
      const payload = concat(u32(nameBytes.length), nameBytes, utf8(description));
      this.#reply(OPTION.list, OPTION_REPLY.server, payload);
    }
    this.#reply(OPTION.list, OPTION_REPLY.ack);
  }

  #info(option: number, data: Uint8Array): End | undefined {
    const input = new Input(data);
    const name = input.string();
    const wanted = new Set<number>();
    for (let left = input.u16(); left > 0; left--) wanted.add(input.u16());
    input.end();
    const found = this.#find(name);
    if (found === undefined) throw new Refusal(OPTION_REPLY.errUnknown, 'there is no such export');
    const fixed = new Uint8Array(12);
    putU16(fixed, 0, INFO.export);
    putU64(fixed, 2, found.size);
    putU16(fixed, 10, this.#flagsOf(found));
    this.#reply(option, OPTION_REPLY.info, fixed);
    if (wanted.has(INFO.name)) this.#reply(option, OPTION_REPLY.info, concat(u16(INFO.name), utf8(found.name)));
    if (wanted.has(INFO.description) && found.description !== undefined) {
      this.#reply(option, OPTION_REPLY.info, concat(u16(INFO.description), utf8(found.description)));
    }
    if (wanted.has(INFO.blockSize)) {
      const sizes = [found.minimumBlockBytes, found.preferredBlockBytes, found.maximumPayloadBytes];
      this.#reply(option, OPTION_REPLY.info, concat(u16(INFO.blockSize), ...sizes.map(u32)));
    }
    this.#reply(option, OPTION_REPLY.ack);
    return option === OPTION.go ? this.#agree(found) : undefined;
  }

  #metaContext(option: number, data: Uint8Array): void {
    const choosing = option === OPTION.setMetaContext;
    // The specification: "replaces all previously-set metadata contexts (including when this command fails)"
    if (choosing) this.#chosen = undefined;
    if (!this.#structuredReplies) throw invalid('structured replies were not negotiated');
    const input = new Input(data);
    const name = input.string();
    const queries: string[] = [];
    for (let left = input.u32(); left > 0; left--) queries.push(input.string());
    input.end();
    const found = this.#find(name);
    if (found === undefined) throw new Refusal(OPTION_REPLY.errUnknown, 'there is no such export');
    const matching = found.contexts.flatMap((context, index) => {
      const all = !choosing && (queries.length === 0 || queries.includes(context.slice(0, context.indexOf(':') + 1)));
      return all || queries.includes(context) ? [index + 1] : [];
    });
    for (const number of matching) {
      const payload = concat(u32(choosing ? number : 0), utf8(found.contexts[number - 1]!));
      this.#reply(option, OPTION_REPLY.metaContext, payload);
    }
    if (choosing) this.#chosen = { export: found, contexts: matching };
    this.#reply(option, OPTION_REPLY.ack);
  }

  /** Returns an export by name. The empty name is the default export: the one of that name, or the only one. */
  #find(name: string): ExportInfo | undefined {
    const { exports, onlyIsDefault = true } = this.#options;
    const only = onlyIsDefault && name === '' && exports.length === 1 ? exports[0] : undefined;
    return exports.find((each) => each.name === name) ?? only;
  }

  #flagsOf({ flags }: ExportInfo): number {
    return this.#structuredReplies ? flags : flags & ~TRANSMISSION_FLAG.sendDf;
  }

  #agree(found: ExportInfo): End {
    const contexts = this.#chosen?.export === found ? this.#chosen.contexts : [];
    const rest = this.#buffer.slice(0, this.#length);
    return {
      next: 'transmission',
      agreement: { export: found, structuredReplies: this.#structuredReplies, contexts },
      rest,
    };
  }

  #reply(option: number, type: number, payload: Uint8Array = EMPTY): void {
    const bytes = new Uint8Array(BYTES.optionReplyHeader + payload.length);
    new DataView(bytes.buffer).setBigUint64(0, MAGIC.optionReply);
    putU32(bytes, 8, option);
    putU32(bytes, 12, type);
    putU32(bytes, 16, payload.length);
    bytes.set(payload, BYTES.optionReplyHeader);
    this.#output.push(bytes);
    this.#outputBytes += bytes.length;
  }

  #refuse(option: number, { type, message }: Refusal): void {
    this.#reply(option, type, utf8(message));
  }
}

function close(reason: string): End {
  return { next: 'close', reason };
}

/** Reads the data of an option in order. @throws {@link Refusal} if the data is too short or too long. */
class Input {
  readonly #data: Uint8Array;
  #at = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  #take(bytes: number): number {
    if (bytes > this.#data.length - this.#at) throw invalid('the data ends too early');
    const at = this.#at;
    this.#at += bytes;
    return at;
  }

  u16(): number {
    return getU16(this.#data, this.#take(2));
  }

  u32(): number {
    return getU32(this.#data, this.#take(4));
  }

  /** Reads a length of 32 bits and a string of that many bytes. */
  string(): string {
    const length = this.u32();
    const at = this.#take(length);
    if (length > MAX_STRING_BYTES)
      throw new Refusal(OPTION_REPLY.errTooBig, `a string of ${length} bytes, at most ${MAX_STRING_BYTES} are allowed`);
    return text(this.#data.subarray(at, at + length));
  }

  end(): void {
    if (this.#at !== this.#data.length) throw invalid('the data is too long');
  }
}

/** Decodes UTF-8. A malformed name does not throw: it becomes a text that names nothing. */
function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function utf8(string: string): Uint8Array {
  return new TextEncoder().encode(string);
}

function u16(value: number): Uint8Array {
  const bytes = new Uint8Array(2);
  putU16(bytes, 0, value);
  return bytes;
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  putU32(bytes, 0, value);
  return bytes;
}
