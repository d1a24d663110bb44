/** What the NBD client reads from a hostile server: the negotiation, replies, and extents. */

import { syncBuiltinESMExports } from 'node:module';
import net from 'node:net';
import { Duplex } from 'node:stream';
import { nbdSourceAt } from '../../../../src/nbd/client/source.ts';
import { SimulatedClock } from '../../../../src/testing/index.ts';
import { bytesOf } from '../../../nbd/client-bytes.ts';
import { checkSize, Fields, joined, onlyCodErrors, type Target, u16 } from '../target.ts';

const immediate = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * The servers of one input. The input is a list of pieces with their lengths. One piece comes in each turn of the event
 * loop. An empty piece closes the connection, and the next connection gets the pieces after it.
 */
class Servers {
  readonly #fields: Fields;
  #socket: ServerSocket | undefined;

  constructor(input: Uint8Array) {
    this.#fields = new Fields(input);
  }

  connect(): Duplex {
    this.#socket?.destroy();
    this.#socket = new ServerSocket();
    return this.#socket;
  }

  /** Delivers what is left for the present connection. */
  readonly settle = async (): Promise<void> => {
    await immediate();
    for (let socket = this.#socket; socket !== undefined && !socket.isOver; socket = this.#socket) {
      const piece = this.#fields.bytes(this.#fields.u16());
      socket.deliver(piece);
      await immediate();
    }
    await immediate();
  };
}

class ServerSocket extends Duplex {
  isOver = false;

  override _read(): void {}

  override _write(_: Uint8Array, __: string, done: () => void): void {
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.isOver = true;
    done(error);
  }

  setNoDelay(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  deliver(piece: Uint8Array): void {
    if (piece.length > 0) this.push(piece);
    else {
      this.isOver = true;
      this.destroy();
    }
  }
}

async function run(input: Uint8Array): Promise<void> {
  const servers = new Servers(input);
  const original = net.connect;
  net.connect = (() => servers.connect()) as unknown as typeof net.connect;
  syncBuiltinESMExports();
  const clock = new SimulatedClock({ settle: servers.settle });
  try {
    await clock.run(onlyCodErrors(() => use(clock)));
  } finally {
    net.connect = original;
    syncBuiltinESMExports();
  }
}

async function use(clock: SimulatedClock): Promise<void> {
  const at = { host: 'localhost', port: 10_809 };
  const source = await nbdSourceAt(
    { at, exportName: 'disk', tls: false },
    { clock, random: () => 0, retry: { attempts: 3, maxDelayMs: 1000 } },
  );
  checkSize(source.size);
  try {
    const into = new Uint8Array(Math.min(5000, source.size));
    const reads = [source.read(into, 0), source.read(into.slice(), source.size - into.length)];
    const extents = source.extents?.(0, source.size);
    for (const settled of await Promise.allSettled([...reads, extents])) {
      if (settled.status === 'rejected') await onlyCodErrors(() => Promise.reject(settled.reason));
    }
    const known = (await extents?.catch(() => undefined)) ?? [];
    const sum = known.reduce((bytes, { length }) => bytes + length, 0);
    if (known.length > 0 && sum !== source.size) throw new Error(`extents of ${sum} bytes, not of ${source.size}`);
    let left = 2 ** 16;
    for await (const piece of source.stream!(0, Math.min(source.size, 2 ** 17))) if ((left -= piece.length) < 0) break;
  } finally {
    await source.close();
  }
}

const REPLY_MAGIC = 0x3e889045565a9n;
const optionReply = (option: number, type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array =>
  bytesOf([8, REPLY_MAGIC], [4, option], [4, type], [4, data.length], data);
const chunk = (cookie: number, type: number, data: Uint8Array, flags = 1): Uint8Array =>
  bytesOf([4, 0x668e33ef], [2, flags], [2, type], [8, cookie], [4, data.length], data);
const simple = (cookie: number, error: number, data: Uint8Array = new Uint8Array(0)): Uint8Array =>
  bytesOf([4, 0x67446698], [4, error], [8, cookie], data);
const GREETING = bytesOf('NBDMAGIC', 'IHAVEOPT', [2, 3]);
const sized = (size: number): Uint8Array => bytesOf([2, 0], [8, size], [2, 0x101]);
const blocks = bytesOf([2, 3], [4, 1], [4, 4096], [4, 2 ** 25]);
const contextReply = bytesOf([4, 7], 'base:allocation');

function listed(...pieces: readonly Uint8Array[]): Uint8Array {
  return joined(...pieces.flatMap((piece) => [u16(piece.length), piece]));
}

function* seeds(): Iterable<Uint8Array> {
  const size = 6000;
  const structured = bytesOf(
    GREETING,
    optionReply(8, 1),
    optionReply(10, 4, contextReply),
    optionReply(10, 1),
    optionReply(7, 3, sized(size)),
    optionReply(7, 3, blocks),
    optionReply(7, 1),
  );
  const old = bytesOf(GREETING, optionReply(8, 2 ** 31 + 1), optionReply(7, 2 ** 31 + 1), [8, size], [2, 1]);
  const data = (offset: number, length: number): Uint8Array => bytesOf([8, offset], new Uint8Array(length).fill(9));
  const hole = (offset: number, length: number): Uint8Array => bytesOf([8, offset], [4, length]);
  const status = bytesOf([4, 7], [4, 4096], [4, 3], [4, size - 4096], [4, 0]);
  yield listed(
    structured,
    bytesOf(chunk(1, 1, data(0, 5000)), chunk(2, 2, hole(1000, 5000))),
    chunk(3, 5, status),
    bytesOf(chunk(4, 1, data(0, 3000), 0), chunk(4, 2, hole(3000, 3000), 0), chunk(4, 0, new Uint8Array(0))),
  );
  yield listed(
    structured,
    bytesOf(
      chunk(1, 0x8001, bytesOf([4, 5], [2, 2], 'no')),
      chunk(2, 0x8002, bytesOf([4, 5], [2, 2], 'no', [8, 1000])),
    ),
  );
  yield listed(structured, new Uint8Array(0), structured, chunk(1, 1, data(0, 5000)));
  yield listed(old, bytesOf(simple(1, 0, new Uint8Array(5000)), simple(2, 5)), simple(3, 0, new Uint8Array(size)));
  yield listed(
    bytesOf(
      GREETING,
      optionReply(8, 1),
      optionReply(10, 2 ** 31 + 3),
      optionReply(7, 2 ** 31 + 6, bytesOf('there is none')),
    ),
  );
}

export const nbdClient: Target = { run, seeds };
