/** Requests decoded from any pieces of bytes, and their validator. */

import { describe, expect, test } from 'vitest';
import { ProtocolError, type Request, RequestDecoder, type RequestRules } from '../../src/nbd/server/transmission.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { bytesOf, type RequestFields, request } from './client-bytes.ts';

const FLAG = { readOnly: 2, flush: 4, fua: 8, trim: 32, zeroes: 64, df: 128, cache: 1024, fastZero: 2048 };
const CMD = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, cache: 5, zeroes: 6, status: 7 };
const CMD_FLAG = { fua: 1, noHole: 2, df: 4, reqOne: 8, fastZero: 16, payload: 32 };
const ERROR = { perm: 1, inval: 22, nospc: 28, overflow: 75 };
const ALL = 1 | FLAG.flush | FLAG.fua | FLAG.trim | FLAG.zeroes | FLAG.df | FLAG.cache | FLAG.fastZero;

const rules: RequestRules = {
  size: 2 ** 20,
  flags: ALL,
  structuredReplies: true,
  hasContexts: true,
  maximumPayloadBytes: 2 ** 16,
  pieceBytes: 2 ** 12,
};

/** The requests in bytes that arrive in pieces. */
function decode(pieces: readonly Uint8Array[], changed: Partial<RequestRules> = {}): Request[] {
  const decoder = new RequestDecoder({ ...rules, ...changed });
  const found: Request[] = [];
  for (const piece of pieces) {
    decoder.push(piece);
    while (decoder.next()) {
      const { type, flags, cookieHigh, cookieLow, offset, length, payload, rest, error } = decoder;
      found.push({ type, flags, cookieHigh, cookieLow, offset, length, payload, rest, error });
    }
  }
  expect(decoder.isPartial).toBe(false);
  return found;
}

describe('requests', () => {
  const payload = seededRandom(1).fill(new Uint8Array(1000));
  const sent = bytesOf(
    request({ type: CMD.read, cookie: 0x0102030405060708n, offset: 4096, length: 512 }),
    request({ type: CMD.write, flags: CMD_FLAG.fua, cookie: 2n, offset: 7, length: 1000, payload }),
    request({ type: CMD.flush, cookie: 3n }),
    request({ type: CMD.write, cookie: 4n, offset: 2 ** 20 - 1, length: 1000, payload }),
    request({ type: CMD.write, cookie: 5n, length: 1, payload: new Uint8Array([9]) }),
    request({ type: CMD.disconnect, cookie: 6n }),
  );
  const expected = [
    {
      type: CMD.read,
      flags: 0,
      cookieHigh: 0x01020304,
      cookieLow: 0x05060708,
      offset: 4096,
      length: 512,
      payload: new Uint8Array(0),
      rest: 0,
      error: 0,
    },
    { type: CMD.write, flags: 1, cookieHigh: 0, cookieLow: 2, offset: 7, length: 1000, payload, rest: 0, error: 0 },
    {
      type: CMD.flush,
      flags: 0,
      cookieHigh: 0,
      cookieLow: 3,
      offset: 0,
      length: 0,
      payload: new Uint8Array(0),
      rest: 0,
      error: 0,
    },
    {
      type: CMD.write,
      flags: 0,
      cookieHigh: 0,
      cookieLow: 4,
      offset: 2 ** 20 - 1,
      length: 1000,
      payload: new Uint8Array(0),
      rest: 0,
      error: ERROR.nospc,
    },
    {
      type: CMD.write,
      flags: 0,
      cookieHigh: 0,
      cookieLow: 5,
      offset: 0,
      length: 1,
      payload: new Uint8Array([9]),
      rest: 0,
      error: 0,
    },
    {
      type: CMD.disconnect,
      flags: 0,
      cookieHigh: 0,
      cookieLow: 6,
      offset: 0,
      length: 0,
      payload: new Uint8Array(0),
      rest: 0,
      error: 0,
    },
  ];

  test('are the same for any cuts of the bytes', () => {
    expect(decode([sent])).toEqual(expected);
    for (const step of [1, 3, 27, 28, 29, 100, 1027]) {
      const pieces = Array.from({ length: Math.ceil(sent.length / step) }, (_, index) =>
        sent.subarray(index * step, (index + 1) * step),
      );
      expect(decode(pieces), `in pieces of ${step}`).toEqual(expected);
    }
  });

  test('longer than a piece are several writes, which end where pieces end', () => {
    const long = seededRandom(2).fill(new Uint8Array(10_000));
    const sent = bytesOf(
      request({ type: CMD.write, flags: CMD_FLAG.fua, cookie: 8n, offset: 4000, length: 10_000, payload: long }),
      request({ type: CMD.write, cookie: 9n, offset: 2 ** 20, length: 10_000, payload: long }),
      request({ type: CMD.write, cookie: 10n, offset: 4000, length: 4096, payload: long.subarray(0, 4096) }),
    );
    for (const step of [sent.length, 1, 97, 4096, 5000]) {
      const pieces = Array.from({ length: Math.ceil(sent.length / step) }, (_, index) =>
        sent.subarray(index * step, (index + 1) * step),
      );
      const found = decode(pieces);
      expect(
        found.map(({ cookieLow, flags, offset, length, rest, error }) => [
          cookieLow,
          flags,
          offset,
          length,
          rest,
          error,
        ]),
      ).toEqual([
        [8, 1, 4000, 96, 9904, 0],
        [8, 1, 4096, 4096, 5808, 0],
        [8, 1, 8192, 4096, 1712, 0],
        [8, 1, 12_288, 1712, 0, 0],
        [9, 0, 2 ** 20, 10_000, 0, ERROR.nospc],
        [10, 0, 4000, 4096, 0, 0],
      ]);
      expect(Buffer.concat(found.slice(0, 4).map(({ payload }) => payload)).equals(long), `steps of ${step}`).toBe(
        true,
      );
    }
  });

  test('have a view of a payload that arrived whole, and no payload for a refused write', () => {
    const [, write, , refused] = decode([sent]);
    expect(write!.payload.buffer).toBe(sent.buffer);
    expect(refused!.payload.length).toBe(0);
  });

  test('report an unfinished request, in its header and in its payload', () => {
    for (const bytes of [1, 27, 28, 500]) {
      const decoder = new RequestDecoder(rules);
      decoder.push(request({ type: CMD.write, length: 1000, payload }).subarray(0, bytes));
      expect([decoder.next(), decoder.isPartial]).toEqual([false, true]);
    }
  });

  test.each([
    ['without the magic number', bytesOf(new Uint8Array(28))],
    ['with an obsolete magic number', bytesOf([4, 0x12560953], new Uint8Array(24))],
    ['with extended headers', bytesOf([4, 0x21e41c71], new Uint8Array(28))],
    ['that write more than the maximum', request({ type: CMD.write, length: 2 ** 16 + 1 })],
    ['that write 4 GiB', request({ type: CMD.write, length: 0xffffffff })],
  ])('%s end the connection', (_, bytes) => {
    const decoder = new RequestDecoder(rules);
    decoder.push(bytes);
    expect(() => decoder.next()).toThrow(ProtocolError);
  });
});

describe('the validator', () => {
  const none = { ...rules, flags: 1, structuredReplies: false, hasContexts: false };
  const rows: readonly (readonly [
    name: string,
    error: number,
    fields: RequestFields,
    rules?: Partial<RequestRules>,
  ])[] = [
    ['a read to the end', 0, { type: CMD.read, offset: 2 ** 20 - 10, length: 10 }],
    ['a read past the end', ERROR.inval, { type: CMD.read, offset: 2 ** 20 - 10, length: 11 }],
    ['a read after the end', ERROR.inval, { type: CMD.read, offset: 2 ** 20, length: 1 }],
    ['a read at the largest offset', ERROR.inval, { type: CMD.read, offset: 0xffffffffffffffffn, length: 1 }],
    [
      'a read whose end would overflow',
      ERROR.inval,
      { type: CMD.read, offset: 0xffffffffffffffffn, length: 0xffffffff },
    ],
    ['a read of zero bytes', ERROR.inval, { type: CMD.read }],
    ['a read of more than a payload', ERROR.overflow, { type: CMD.read, length: 2 ** 16 + 1 }],
    [
      'a read of more than a payload without structured replies',
      ERROR.inval,
      { type: CMD.read, length: 2 ** 16 + 1 },
      { structuredReplies: false },
    ],
    ['a read with DF', 0, { type: CMD.read, flags: CMD_FLAG.df, length: 1 }],
    [
      'a read with DF without structured replies',
      ERROR.inval,
      { type: CMD.read, flags: CMD_FLAG.df, length: 1 },
      { structuredReplies: false },
    ],
    ['a read with FUA', 0, { type: CMD.read, flags: CMD_FLAG.fua, length: 1 }],
    [
      'FUA that the server did not offer',
      ERROR.inval,
      { type: CMD.write, flags: CMD_FLAG.fua, length: 1, payload: new Uint8Array(1) },
      { flags: 1 },
    ],
    [
      'a write with NO_HOLE',
      ERROR.inval,
      { type: CMD.write, flags: CMD_FLAG.noHole, length: 1, payload: new Uint8Array(1) },
    ],
    ['a write past the end', ERROR.nospc, { type: CMD.write, offset: 2 ** 20, length: 1, payload: new Uint8Array(1) }],
    [
      'a write to a read-only export',
      ERROR.perm,
      { type: CMD.write, length: 1, payload: new Uint8Array(1) },
      { flags: 1 | FLAG.readOnly },
    ],
    ['zeros for a read-only export', ERROR.perm, { type: CMD.zeroes, length: 1 }, { flags: 1 | FLAG.readOnly }],
    ['a trim of a read-only export', ERROR.perm, { type: CMD.trim, length: 1 }, { flags: 1 | FLAG.readOnly }],
    ['zeros past the end', ERROR.nospc, { type: CMD.zeroes, length: 2 ** 20 + 1 }],
    [
      'zeros with FAST_ZERO and NO_HOLE',
      0,
      { type: CMD.zeroes, flags: CMD_FLAG.noHole | CMD_FLAG.fastZero, length: 2 ** 20 },
    ],
    [
      'FAST_ZERO that the server did not offer',
      ERROR.inval,
      { type: CMD.zeroes, flags: CMD_FLAG.fastZero, length: 1 },
      { flags: 1 | FLAG.zeroes },
    ],
    ['zeros that the server did not offer', ERROR.inval, { type: CMD.zeroes, length: 1 }, none],
    ['a trim', 0, { type: CMD.trim, flags: CMD_FLAG.fua, length: 2 ** 20 }],
    ['a trim past the end', ERROR.inval, { type: CMD.trim, length: 2 ** 20 + 1 }],
    ['a trim that the server did not offer', ERROR.inval, { type: CMD.trim, length: 1 }, none],
    ['a flush', 0, { type: CMD.flush }],
    ['a flush of a range', ERROR.inval, { type: CMD.flush, length: 1 }],
    ['a flush from an offset', ERROR.inval, { type: CMD.flush, offset: 1 }],
    ['a flush that the server did not offer', ERROR.inval, { type: CMD.flush }, none],
    ['caching', 0, { type: CMD.cache, length: 2 ** 20 }],
    ['caching past the end', ERROR.inval, { type: CMD.cache, offset: 1, length: 2 ** 20 }],
    ['caching that the server did not offer', ERROR.inval, { type: CMD.cache, length: 1 }, none],
    ['block status', 0, { type: CMD.status, flags: CMD_FLAG.reqOne, length: 2 ** 20 }],
    ['block status without a context', ERROR.inval, { type: CMD.status, length: 1 }, { hasContexts: false }],
    ['block status past the end', ERROR.inval, { type: CMD.status, offset: 2 ** 20, length: 1 }],
    ['block status with a payload', ERROR.inval, { type: CMD.status, flags: CMD_FLAG.payload, length: 1 }],
    ['a resize', ERROR.inval, { type: 8, length: 1 }],
    ['an unknown command', ERROR.inval, { type: 0xffff, length: 1 }],
  ];

  for (const [name, error, fields, changed] of rows) {
    test(`${name}: error ${error}`, () => {
      expect(decode([request(fields)], changed).map((each) => each.error)).toEqual([error]);
    });
  }
});
