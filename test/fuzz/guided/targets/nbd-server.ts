/** What the NBD server reads: options of the handshake, and requests. */

import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { DeviceExtent } from '../../../../src/device/types.ts';
import { Connection } from '../../../../src/nbd/server/connection.ts';
import { Exports, type NbdDevice } from '../../../../src/nbd/server/export.ts';
import { Handshake } from '../../../../src/nbd/server/handshake.ts';
import { ServerMemory } from '../../../../src/nbd/server/memory.ts';
import { bytesOf, CLIENT_FLAGS, infoData, metaData, option, request } from '../../../nbd/client-bytes.ts';
import { Fields, joined, type Target, u8 } from '../target.ts';

const SIZE = 2 ** 20 - 100;

/** A device in memory with every command. */
class MemoryDevice implements NbdDevice {
  readonly size = SIZE;
  readonly blockSize = 4096;
  readonly #bytes = new Uint8Array(SIZE);

  async read(into: Uint8Array, offset: number): Promise<void> {
    if (offset + into.length > SIZE) throw new Error('a read beyond the device');
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    if (offset + from.length > SIZE) throw new Error('a write beyond the device');
    this.#bytes.set(from, offset);
  }

  async flush(): Promise<void> {}

  async discard(offset: number, length: number): Promise<void> {
    if (offset + length > SIZE) throw new Error('a discard beyond the device');
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    if (offset + length > SIZE) throw new Error('zeros beyond the device');
    this.#bytes.fill(0, offset, offset + length);
  }

  async hydrateRange(offset: number, length: number): Promise<void> {
    if (offset + length > SIZE) throw new Error('a fetch beyond the device');
  }

  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    if (offset + length > SIZE) throw new Error('extents beyond the device');
    const first = Math.ceil(length / 2);
    const all: DeviceExtent[] = [
      { length: first, state: 'synced', zero: false },
      { length: length - first, state: 'unsynced', zero: true },
    ];
    return all.filter((extent) => extent.length > 0);
  }
}

const device = new MemoryDevice();
const exports = new Exports(
  new Map([
    ['disk', { device, description: 'a disk' }],
    ['fixed', { device, readOnly: true }],
  ]),
);

/** Divides `bytes` as a socket may: by a length from the input, 0 for all at once. */
function* pieces(bytes: Uint8Array, length: number): Iterable<Uint8Array> {
  const step = length === 0 ? Math.max(1, bytes.length) : length;
  for (let at = 0; at < bytes.length; at += step) yield bytes.slice(at, at + step);
}

/** The other side sends its bytes at once, and reads everything. */
class ClientSocket extends Duplex {
  sentBytes = 0;

  override _read(): void {}

  override _write(chunk: Uint8Array, _: string, done: () => void): void {
    this.sentBytes += chunk.length;
    done();
  }
}

const NEGOTIATIONS: readonly Uint8Array[] = [
  bytesOf(CLIENT_FLAGS, option(1, 'disk')),
  bytesOf(CLIENT_FLAGS, option(8), option(7, infoData('disk', [3]))),
  bytesOf(
    CLIENT_FLAGS,
    option(8),
    option(10, metaData('disk', ['base:allocation', 'copyondemand:state'])),
    option(7, infoData('disk', [1, 2, 3])),
  ),
  bytesOf(CLIENT_FLAGS, option(8), option(10, metaData('fixed', ['base:allocation'])), option(7, infoData('fixed'))),
];

/** The input: how it is divided, the negotiation, and the bytes after it. */
async function runRequests(input: Uint8Array): Promise<void> {
  const fields = new Fields(input);
  const step = fields.u8();
  const negotiation = NEGOTIATIONS[fields.u8() % NEGOTIATIONS.length]!;
  const bytes = fields.rest();
  const socket = new ClientSocket();
  const connection = new Connection(socket as Duplex as Socket, { exports, memory: new ServerMemory() });
  socket.push(negotiation);
  for (const piece of pieces(bytes, step)) socket.push(piece);
  socket.push(null);
  await connection.closed;
}

const REQUESTS: readonly Uint8Array[] = [
  request({ type: 0, cookie: 1n, offset: 5, length: 5000 }),
  request({ type: 1, cookie: 2n, offset: 4000, length: 300, payload: new Uint8Array(300).fill(7) }),
  request({ type: 1, flags: 1, cookie: 3n, offset: 70_000, length: 70, payload: new Uint8Array(70).fill(8) }),
  request({ type: 7, cookie: 4n, length: SIZE }),
  request({ type: 7, flags: 8, cookie: 5n, length: SIZE }),
  request({ type: 5, cookie: 6n, offset: 400_000, length: 100_000 }),
  request({ type: 6, flags: 2, cookie: 7n, offset: 200_000, length: 50_000 }),
  request({ type: 4, cookie: 8n, offset: 300_000, length: 50_000 }),
  request({ type: 3, cookie: 9n }),
  request({ type: 0, flags: 4, cookie: 10n, offset: SIZE - 200_000, length: 200_000 }),
  request({ type: 2, cookie: 11n }),
];

function* requestSeeds(): Iterable<Uint8Array> {
  for (const index of NEGOTIATIONS.keys()) for (const step of [0, 100]) yield joined(u8(step), u8(index), ...REQUESTS);
  for (const one of REQUESTS) yield joined(u8(0), u8(2), one);
}

const infos = [
  {
    name: 'disk',
    description: 'a disk',
    size: SIZE,
    flags: 0xfff,
    minimumBlockBytes: 1,
    preferredBlockBytes: 4096,
    maximumPayloadBytes: 2 ** 25,
    contexts: ['base:allocation', 'copyondemand:state'],
  },
];

/** The input: whether TLS is required, how the bytes are divided, and the bytes of the client. */
async function runHandshake(input: Uint8Array): Promise<void> {
  const fields = new Fields(input);
  const handshake = new Handshake({ exports: infos, tls: fields.u8() % 2 === 0 ? 'absent' : 'required' });
  const step = fields.u8();
  let [sent, replied] = [0, 0];
  for (const piece of pieces(fields.rest(), step)) {
    const action = handshake.receive(piece);
    sent += piece.length;
    replied += action.send.length;
    if (replied > 20 * sent + 200) throw new Error(`${replied} bytes of replies to ${sent} bytes`);
    if (action.next === 'starttls') handshake.secured();
    else if (action.next !== 'receive') return;
  }
}

const OPTIONS: readonly Uint8Array[] = [
  CLIENT_FLAGS,
  option(8),
  option(3),
  option(5),
  option(9, metaData('disk', [])),
  option(9, metaData('disk', ['base:'])),
  option(10, metaData('disk', ['base:allocation', 'copyondemand:state'])),
  option(6, infoData('disk', [1, 2, 3])),
  option(6, infoData('')),
  option(2),
  option(99),
  option(7, infoData('disk', [3])),
];

function* handshakeSeeds(): Iterable<Uint8Array> {
  for (const tls of [0, 1]) {
    for (const step of [0, 7]) yield joined(u8(tls), u8(step), ...OPTIONS.filter((_, index) => index !== 9));
    for (const one of OPTIONS) yield joined(u8(tls), u8(0), CLIENT_FLAGS, one);
    yield joined(u8(tls), u8(0), CLIENT_FLAGS, option(5), CLIENT_FLAGS, option(8));
    yield joined(u8(tls), u8(0), bytesOf([4, 0]), option(1, 'disk'));
  }
}

export const nbdHandshake: Target = { run: runHandshake, seeds: handshakeSeeds };
export const nbdRequests: Target = { run: runRequests, seeds: requestSeeds };
