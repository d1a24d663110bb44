/** Encodes what a client sends, and decodes what it receives. Written from the specification, not from the server. */

/** Big-endian fields of given widths in bytes, and bytes or text unchanged. */
export function bytesOf(
  ...fields: readonly (readonly [width: 2 | 4 | 8, value: number | bigint] | Uint8Array | string)[]
): Uint8Array {
  const parts = fields.map((field) => {
    if (typeof field === 'string') return Buffer.from(field);
    if (field instanceof Uint8Array) return Buffer.from(field);
    const [width, value] = field;
    const bytes = Buffer.alloc(width);
    if (width === 8) bytes.writeBigUInt64BE(BigInt(value));
    else bytes.writeUIntBE(Number(value), 0, width);
    return bytes;
  });
  return new Uint8Array(Buffer.concat(parts));
}

export const CLIENT_FLAGS: Uint8Array = bytesOf([4, 3]);

export function option(number: number, data: Uint8Array | string = ''): Uint8Array {
  return bytesOf('IHAVEOPT', [4, number], [4, Buffer.byteLength(data as string)], data);
}

/** Data of `NBD_OPT_INFO` and `NBD_OPT_GO`. */
export function infoData(name: string, wanted: readonly number[] = []): Uint8Array {
  return bytesOf(
    [4, Buffer.byteLength(name)],
    name,
    [2, wanted.length],
    ...wanted.map((info): [2, number] => [2, info]),
  );
}

/** Data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`. */
export function metaData(name: string, queries: readonly string[]): Uint8Array {
  const each = queries.map((query) => bytesOf([4, Buffer.byteLength(query)], query));
  return bytesOf([4, Buffer.byteLength(name)], name, [4, queries.length], ...each);
}

export interface RequestFields {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly payload?: Uint8Array;
}

export function request({
  type,
  flags = 0,
  cookie = 1n,
  offset = 0,
  length = 0,
  payload = new Uint8Array(0),
}: RequestFields): Uint8Array {
  return bytesOf([4, 0x25609513], [2, flags], [2, type], [8, cookie], [8, offset], [4, length], payload);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** Decodes `bytes`, which must consist of replies to options. */
export function optionReplies(bytes: Uint8Array): OptionReply[] {
  const buffer = Buffer.from(bytes);
  const replies: OptionReply[] = [];
  for (let at = 0; at < buffer.length; ) {
    if (buffer.readBigUInt64BE(at) !== 0x3e889045565a9n) throw new Error(`no reply at ${at}`);
    const length = buffer.readUInt32BE(at + 16);
    replies.push({
      option: buffer.readUInt32BE(at + 8),
      type: buffer.readUInt32BE(at + 12),
      data: buffer.subarray(at + 20, at + 20 + length),
    });
    at += 20 + length;
    if (at > buffer.length) throw new Error('a reply is cut short');
  }
  return replies;
}

export interface Chunk {
  readonly simple: boolean;
  readonly cookie: bigint;
  /** The error of a simple reply or of an error chunk. */
  readonly error: number;
  readonly type: number;
  readonly done: boolean;
  readonly data: Buffer;
}

/** Decodes `bytes`, which must consist of structured replies. Simple replies have no data. */
export function chunks(bytes: Uint8Array): Chunk[] {
  const buffer = Buffer.from(bytes);
  const found: Chunk[] = [];
  for (let at = 0; at < buffer.length; ) {
    const magic = buffer.readUInt32BE(at);
    if (magic === 0x67446698) {
      found.push({
        simple: true,
        error: buffer.readUInt32BE(at + 4),
        cookie: buffer.readBigUInt64BE(at + 8),
        type: 0,
        done: true,
        data: Buffer.alloc(0),
      });
      at += 16;
      continue;
    }
    if (magic !== 0x668e33ef) throw new Error(`no reply at ${at}`);
    const length = buffer.readUInt32BE(at + 16);
    const data = buffer.subarray(at + 20, at + 20 + length);
    if (data.length < length) throw new Error('a reply is cut short');
    const type = buffer.readUInt16BE(at + 6);
    const error = type >= 0x8000 ? data.readUInt32BE(0) : 0;
    found.push({
      simple: false,
      cookie: buffer.readBigUInt64BE(at + 8),
      type,
      error,
      done: (buffer.readUInt16BE(at + 4) & 1) !== 0,
      data,
    });
    at += 20 + length;
  }
  return found;
}
