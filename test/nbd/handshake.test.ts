/** The handshake from the side of the specification: what a client sends and receives. */

import { describe, expect, test } from 'vitest';
import { type ExportInfo, Handshake, type HandshakeAction } from '../../src/nbd/server/handshake.ts';
import { bytesOf, CLIENT_FLAGS, infoData, metaData, option, optionReplies } from './client-bytes.ts';

const ACK = 1;
const ERROR = {
  unsup: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  tls: 0x80000005,
  unknown: 0x80000006,
  tooBig: 0x80000009,
};
const OPT = {
  exportName: 1,
  abort: 2,
  list: 3,
  starttls: 5,
  info: 6,
  go: 7,
  structured: 8,
  listMeta: 9,
  setMeta: 10,
  extended: 11,
};
const ALL_FLAGS = 0x0de1 | 0xc;

function info(name: string, more: Partial<ExportInfo> = {}): ExportInfo {
  return {
    name,
    size: 2 ** 40 + 5,
    flags: ALL_FLAGS,
    minimumBlockBytes: 1,
    preferredBlockBytes: 4096,
    maximumPayloadBytes: 2 ** 25,
    contexts: ['base:allocation', 'copyondemand:state'],
    ...more,
  };
}

function begin(options: { exports?: ExportInfo[]; tls?: 'absent' | 'required' } = {}): Handshake {
  const handshake = new Handshake({ exports: options.exports ?? [info('disk')], tls: options.tls ?? 'absent' });
  expect(handshake.receive(CLIENT_FLAGS)).toEqual({ send: new Uint8Array(0), next: 'receive' });
  return handshake;
}

/** Returns the types of the replies to one option. */
function ask(handshake: Handshake, number: number, data: Uint8Array | string = ''): number[] {
  return optionReplies(handshake.receive(option(number, data)).send).map(({ type }) => type);
}

function transmission(action: HandshakeAction): Extract<HandshakeAction, { next: 'transmission' }> {
  if (action.next !== 'transmission') throw new Error(`${action.next} instead of transmission`);
  return action;
}

describe('the greeting', () => {
  test('is that of fixed newstyle', () => {
    const handshake = new Handshake({ exports: [], tls: 'absent' });
    expect(handshake.greeting()).toEqual(bytesOf('NBDMAGIC', 'IHAVEOPT', [2, 3]));
  });

  test.each([4, 0x80000001, 0xffffffff])('ends the connection for unknown client flags 0x%s', (flags) => {
    const handshake = new Handshake({ exports: [info('disk')], tls: 'absent' });
    expect(handshake.receive(bytesOf([4, flags]))).toMatchObject({ next: 'close' });
  });

  test('admits only EXPORT_NAME from a client without fixed newstyle', () => {
    for (const [sent, next] of [
      [option(OPT.list), 'close'],
      [option(OPT.exportName, 'disk'), 'transmission'],
    ] as const) {
      const handshake = new Handshake({ exports: [info('disk')], tls: 'absent' });
      handshake.receive(bytesOf([4, 0]));
      expect(handshake.receive(sent).next).toBe(next);
    }
  });
});

describe('EXPORT_NAME', () => {
  test('gives size and flags without DF, and zeros unless the client declined them', () => {
    const handshake = new Handshake({ exports: [info('disk')], tls: 'absent' });
    handshake.receive(bytesOf([4, 1]));
    const action = transmission(handshake.receive(option(OPT.exportName, 'disk')));
    expect(action.send).toEqual(bytesOf([8, 2 ** 40 + 5], [2, ALL_FLAGS & ~0x80], new Uint8Array(124)));
    expect(action.agreement).toMatchObject({ structuredReplies: false, contexts: [] });
  });

  test('ends the connection for an unknown export, also for an endless name', () => {
    expect(begin().receive(option(OPT.exportName, 'disc'))).toMatchObject({ next: 'close', send: new Uint8Array(0) });
    expect(begin().receive(option(OPT.exportName, 'x'.repeat(5000)))).toMatchObject({ next: 'close' });
  });
});

test('a list is answered whole, and a client that asks on without awaiting it is closed', () => {
  const exports = Array.from({ length: 3000 }, (_, index) => info(`${index}`.padEnd(500, 'x')));
  const handshake = begin({ exports });
  expect(ask(handshake, OPT.list)).toHaveLength(3001);
  const lists = bytesOf(...Array.from({ length: 900 }, () => option(OPT.list)));
  const { send, next } = handshake.receive(lists);
  expect(next).toBe('close');
  expect(send.length).toBeLessThan(2 ** 21);
});

describe('GO and INFO', () => {
  test('describe an export and the requested information', () => {
    const handshake = begin({ exports: [info('disk', { description: 'a disk' })] });
    ask(handshake, OPT.structured);
    const action = transmission(handshake.receive(option(OPT.go, infoData('disk', [1, 2, 3, 77]))));
    const replies = optionReplies(action.send);
    expect(replies.map(({ type }) => type)).toEqual([3, 3, 3, 3, ACK]);
    expect(replies.map(({ data }) => new Uint8Array(data))).toEqual([
      bytesOf([2, 0], [8, 2 ** 40 + 5], [2, ALL_FLAGS]),
      bytesOf([2, 1], 'disk'),
      bytesOf([2, 2], 'a disk'),
      bytesOf([2, 3], [4, 1], [4, 4096], [4, 2 ** 25]),
      new Uint8Array(0),
    ]);
    expect(action.agreement.structuredReplies).toBe(true);
  });

  test('INFO keeps the handshake open, and the same GO has the same replies', () => {
    const handshake = begin();
    const first = handshake.receive(option(OPT.info, infoData('disk', [3])));
    const second = handshake.receive(option(OPT.go, infoData('disk', [3])));
    expect([first.next, second.next]).toEqual(['receive', 'transmission']);
    expect(optionReplies(second.send).map(({ data }) => data)).toEqual(
      optionReplies(first.send).map(({ data }) => data),
    );
  });

  test('the empty name selects the export of that name, or the only export, or none', () => {
    expect(transmission(begin().receive(option(OPT.go, infoData('')))).agreement.export.name).toBe('disk');
    const named = begin({ exports: [info('disk'), info('')] });
    expect(transmission(named.receive(option(OPT.go, infoData('')))).agreement.export.name).toBe('');
    expect(ask(begin({ exports: [info('a'), info('b')] }), OPT.go, infoData(''))).toEqual([ERROR.unknown]);
  });

  test('pass on the bytes that follow GO', () => {
    const action = transmission(begin().receive(bytesOf(option(OPT.go, infoData('disk')), 'requests')));
    expect(Buffer.from(action.rest).toString()).toBe('requests');
  });

  test.each([
    ['no data', new Uint8Array(0), ERROR.invalid],
    ['a name longer than the data', bytesOf([4, 100], 'disk', [2, 0]), ERROR.invalid],
    ['a name of 4 GiB', bytesOf([4, 0xffffffff], 'disk', [2, 0]), ERROR.invalid],
    ['fewer requests for information than announced', bytesOf([4, 4], 'disk', [2, 3], [2, 1]), ERROR.invalid],
    ['more requests for information than announced', bytesOf([4, 4], 'disk', [2, 0], [2, 1]), ERROR.invalid],
    ['a name of more than 4096 bytes', infoData('x'.repeat(4097)), ERROR.tooBig],
    ['a name that is not UTF-8', bytesOf([4, 2], new Uint8Array([0xff, 0xfe]), [2, 0]), ERROR.unknown],
    ['an unknown name', infoData('disc'), ERROR.unknown],
  ])('refuse %s', (_, data, error) => {
    const handshake = begin();
    expect(ask(handshake, OPT.go, data)).toEqual([error]);
    expect(handshake.receive(option(OPT.go, infoData('disk'))).next).toBe('transmission');
  });
});

test('LIST names all exports, and refuses data', () => {
  const handshake = begin({ exports: [info('a'), info('ä/b', { description: 'of b' })] });
  const replies = optionReplies(handshake.receive(option(OPT.list)).send);
  expect(replies.map(({ type }) => type)).toEqual([2, 2, ACK]);
  expect(new Uint8Array(replies[1]!.data)).toEqual(bytesOf([4, 4], 'ä/b', 'of b'));
  expect(ask(handshake, OPT.list, 'x')).toEqual([ERROR.invalid]);
});

test('ABORT is acknowledged and ends the connection; unknown options are refused and keep it open', () => {
  const handshake = begin();
  expect(ask(handshake, OPT.extended)).toEqual([ERROR.unsup]);
  expect(ask(handshake, 4711, 'what is this')).toEqual([ERROR.unsup]);
  expect(ask(handshake, OPT.structured, 'x')).toEqual([ERROR.invalid]);
  const action = handshake.receive(option(OPT.abort, 'bye'));
  expect(action.next).toBe('close');
  expect(optionReplies(action.send).map(({ type }) => type)).toEqual([ACK]);
});

describe('metadata contexts', () => {
  const contextsOf = (handshake: Handshake, number: number, queries: readonly string[]): string[] =>
    optionReplies(handshake.receive(option(number, metaData('disk', queries))).send)
      .filter(({ type }) => type === 4)
      .map(({ data }) => `${data.readUInt32BE(0)} ${data.subarray(4).toString()}`);

  test('are listed: all, by namespace, by name', () => {
    const handshake = begin();
    ask(handshake, OPT.structured);
    expect(contextsOf(handshake, OPT.listMeta, [])).toEqual(['0 base:allocation', '0 copyondemand:state']);
    expect(contextsOf(handshake, OPT.listMeta, ['base:'])).toEqual(['0 base:allocation']);
    expect(contextsOf(handshake, OPT.listMeta, ['copyondemand:state', 'x-y:z'])).toEqual(['0 copyondemand:state']);
    expect(contextsOf(handshake, OPT.listMeta, ['base:other', 'qemu:'])).toEqual([]);
  });

  test('are selected by name only; the last selection counts, for its export only', () => {
    const handshake = begin({ exports: [info('disk'), info('other')] });
    ask(handshake, OPT.structured);
    expect(contextsOf(handshake, OPT.setMeta, ['base:'])).toEqual([]);
    expect(contextsOf(handshake, OPT.setMeta, ['base:allocation'])).toEqual(['1 base:allocation']);
    expect(contextsOf(handshake, OPT.setMeta, ['copyondemand:state', 'base:allocation', 'base:allocation'])).toEqual([
      '1 base:allocation',
      '2 copyondemand:state',
    ]);
    const agreement = (name: string): readonly number[] =>
      transmission(handshake.receive(option(OPT.go, infoData(name)))).agreement.contexts;
    expect(agreement('disk')).toEqual([1, 2]);
  });

  test.each([
    ['an export that is not used later', metaData('other', ['base:allocation']), ACK],
    ['a query that ends too early', bytesOf([4, 4], 'disk', [4, 1], [4, 50], 'base:'), ERROR.invalid],
    ['endless queries', bytesOf([4, 4], 'disk', [4, 0xffffffff], [4, 0]), ERROR.invalid],
    ['a query of 4097 bytes', metaData('disk', ['x'.repeat(4097)]), ERROR.tooBig],
    ['a missing export', metaData('none', []), ERROR.unknown],
  ])('are deselected by a selection for %s', (_, data, type) => {
    const handshake = begin({ exports: [info('disk'), info('other')] });
    ask(handshake, OPT.structured);
    contextsOf(handshake, OPT.setMeta, ['base:allocation']);
    expect(ask(handshake, OPT.setMeta, data).at(-1)).toBe(type);
    expect(transmission(handshake.receive(option(OPT.go, infoData('disk')))).agreement.contexts).toEqual([]);
  });

  test('need structured replies', () => {
    expect(ask(begin(), OPT.setMeta, metaData('disk', ['base:allocation']))).toEqual([ERROR.invalid]);
    expect(ask(begin(), OPT.listMeta, metaData('disk', []))).toEqual([ERROR.invalid]);
  });
});

describe('TLS', () => {
  test('is refused without TLS in the server', () => {
    expect(ask(begin(), OPT.starttls)).toEqual([ERROR.policy]);
  });

  test('precedes every other option if it is required', () => {
    const handshake = begin({ tls: 'required' });
    for (const number of [OPT.list, OPT.info, OPT.go, OPT.structured, OPT.setMeta, OPT.extended, 99]) {
      expect(ask(handshake, number, infoData('disk'))).toEqual([ERROR.tls]);
    }
    expect(ask(handshake, OPT.starttls, 'x')).toEqual([ERROR.invalid]);
    const action = handshake.receive(option(OPT.starttls));
    expect(action.next).toBe('starttls');
    expect(optionReplies(action.send).map(({ type }) => type)).toEqual([ACK]);
    handshake.secured();
    expect(ask(handshake, OPT.starttls)).toEqual([ERROR.invalid]);
    expect(handshake.receive(option(OPT.go, infoData('disk'))).next).toBe('transmission');
  });

  test('EXPORT_NAME before TLS, or plaintext after STARTTLS, ends the connection', () => {
    expect(begin({ tls: 'required' }).receive(option(OPT.exportName, 'disk'))).toMatchObject({
      next: 'close',
      send: new Uint8Array(0),
    });
    const injected = begin({ tls: 'required' }).receive(bytesOf(option(OPT.starttls), option(OPT.structured)));
    expect(injected).toMatchObject({ next: 'close', send: new Uint8Array(0) });
  });
});

describe('a client that violates the protocol', () => {
  test.each([
    ['another magic number', bytesOf('IHAVEOPS', [4, 3], [4, 0])],
    ['an option of 4 GiB', bytesOf('IHAVEOPT', [4, 7], [4, 0xffffffff])],
    ['an option of one byte too many', bytesOf('IHAVEOPT', [4, 7], [4, 65_537])],
    ['endless options', bytesOf(...Array.from({ length: 1025 }, () => option(99)))],
  ])('is disconnected: %s', (_, bytes) => {
    expect(begin().receive(bytes).next).toBe('close');
  });

  test('may send single bytes', () => {
    const handshake = new Handshake({ exports: [info('disk')], tls: 'absent' });
    const sent = bytesOf(CLIENT_FLAGS, option(OPT.structured), option(OPT.go, infoData('disk', [3])));
    const actions = [...sent].map((byte) => handshake.receive(new Uint8Array([byte])));
    expect(actions.slice(0, -1).every(({ next }) => next === 'receive')).toBe(true);
    expect(actions.at(-1)!.next).toBe('transmission');
  });
});
