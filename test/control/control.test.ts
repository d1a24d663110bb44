/** The control of a running copy, over a real socket, in one process. */

import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Answers, controlServer } from '../../src/control/server.ts';
import { encodeHead, encodeTail, type Owner, parseOwner, RELEASED } from '../../src/fs/lock-owner.ts';
import { listenAt } from '../../src/fs/lock-socket.ts';
import { thisMachine, thisProcess } from '../../src/fs/node-process.ts';
import { bytesSource, type Device, type OpenDeviceOptions, openDevice, type Source } from '../../src/index.ts';
import { type CopyStatus, controlOf, type DeviceEvent, nodeFileSystem } from '../../src/node.ts';
import { temporaryDirectory } from '../cli/temporary.ts';

const BYTES = 2 ** 20;

interface Copy {
  readonly device: Device;
  readonly target: string;
}

/** Opens a copy that cannot get complete by itself, unless options say otherwise. */
async function copyOf(options: Partial<OpenDeviceOptions> = {}): Promise<Copy> {
  const directory = temporaryDirectory();
  const device = await openDevice({
    source: bytesSource(new Uint8Array(BYTES).fill(1)),
    fileSystem: nodeFileSystem(directory),
    target: 'disk',
    hydrate: { rateBytesPerSecond: 1 },
    ...options,
  });
  onTestFinished(() => device.close());
  return { device, target: join(directory, 'disk') };
}

/** Connects as a client that knows the token. */
function clientOf(target: string): Socket {
  const { socket, token } = parseOwner(readFileSync(`${target}.lock`, 'utf8'))!;
  const client = connect({ path: `${target}.lock.${socket}`, allowHalfOpen: true });
  onTestFinished(() => void client.destroy());
  client.on('error', () => undefined);
  client.write(`${JSON.stringify({ token })}\n`);
  return client;
}

describe('a device in a program', () => {
  test('tells its status', async () => {
    const { device, target } = await copyOf();
    await device.write(new Uint8Array(100), 8192);
    await device.flush();
    const status: CopyStatus = await controlOf(target).status();
    expect(status).toMatchObject({
      target,
      pid: process.pid,
      state: 'hydrating',
      size: BYTES,
      blockSize: 4096,
      totalBlocks: 256,
      dirtyBlocks: 1,
      rateBytesPerSecond: 1,
      metadata: target,
      lastError: null,
      nextAttemptAt: null,
      retries: 0,
      writes: { count: 1 },
      flushes: { count: 1 },
      errors: {},
      map: null,
    });
  });

  test('tells a map of the blocks', async () => {
    const { device, target } = await copyOf({ hydrate: false });
    await device.write(new Uint8Array(3 * 8192), 0);
    await device.write(new Uint8Array(100), 255 * 4096);
    await device.write(new Uint8Array(4096), 200 * 4096);
    const { map } = await controlOf(target).status({ cells: 128 });
    expect(map).toBe(`###${'.'.repeat(97)}+${'.'.repeat(26)}!`);
    expect((await controlOf(target).status({ cells: 1e9 })).map).toHaveLength(256);
  });

  test('is steered, and its complete copy tells that nothing is left', async () => {
    const { device, target } = await copyOf();
    const control = controlOf(target);
    expect(await control.pause()).toMatchObject({ state: 'paused', paused: true, secondsLeft: null });
    expect(device.status().state).toBe('paused');
    expect(await control.setRate(5000)).toMatchObject({ rateBytesPerSecond: 5000, paused: true });
    expect(await control.setRate(undefined)).toMatchObject({ rateBytesPerSecond: null });
    expect(await control.resume()).toMatchObject({ paused: false });
    await device.hydrated;
    expect(await control.pause()).toMatchObject({ state: 'hydrated', secondsLeft: 0, paused: false });
    await expect(control.setRate(0)).rejects.toThrow(RangeError);
  });

  test('takes a snapshot in its directory only', async () => {
    const { target } = await copyOf();
    const to = `${target}.copy`;
    expect(await controlOf(target).snapshot(to)).toEqual({ pid: process.pid });
    expect(readFileSync(to)).toHaveLength(BYTES);
    await expect(controlOf(target).snapshot(to)).rejects.toMatchObject({ code: 'COD_EXISTS' });
    await expect(controlOf(target).snapshot(join(temporaryDirectory(), 'disk'))).rejects.toThrow(RangeError);
  });

  test('without a background copy has nothing to steer', async () => {
    const { target } = await copyOf({ hydrate: false });
    await expect(controlOf(target).pause()).rejects.toMatchObject({ code: 'COD_UNSUPPORTED' });
  });

  test('with metadata elsewhere is found by its prefix', async () => {
    const { target } = await copyOf({ metadata: 'elsewhere' });
    const metadata = join(target, '..', 'elsewhere');
    expect(await controlOf(target, { metadata }).status()).toMatchObject({ target, metadata });
    await expect(controlOf(target).status()).rejects.toMatchObject({ code: 'COD_NOT_RUNNING' });
  });

  test('that is closed has no owner', async () => {
    const { device, target } = await copyOf();
    await device.close();
    const error = { code: 'COD_NOT_RUNNING', details: { target, hasOwner: false } };
    await expect(controlOf(target).status()).rejects.toMatchObject(error);
    await expect(controlOf(join(target, 'nothing', 'here')).status()).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
    const missing = join(target, '..', 'no', 'disk');
    await expect(controlOf(missing).status()).rejects.toMatchObject({ details: { hasOwner: false } });
    expect(() => controlOf('')).toThrow(TypeError);
  });

  test('that is poisoned says so', async () => {
    const directory = temporaryDirectory();
    const files = nodeFileSystem(directory);
    let isBroken = false;
    const { target, device } = await copyOf({
      fileSystem: {
        ...files,
        open: async (name, how) => {
          const file = await files.open(name, how);
          const sync = async (): Promise<void> => {
            if (isBroken) throw new Error('the disk is gone');
            await file.sync();
          };
          return {
            size: () => file.size(),
            read: (into, at) => file.read(into, at),
            write: (from, at) => file.write(from, at),
            truncate: (size) => file.truncate(size),
            sync,
            close: () => file.close(),
          };
        },
      },
      hydrate: false,
    });
    expect(target).toBeDefined();
    isBroken = true;
    await device.write(new Uint8Array(4096), 0);
    await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    const status = await controlOf(join(directory, 'disk')).status({ cells: 10 });
    expect(status).toMatchObject({
      state: 'poisoned',
      lastError: { message: expect.stringContaining('the disk is gone') },
    });
    await device.close().catch(() => undefined);
  });

  test('answers while it is opened', async () => {
    const directory = temporaryDirectory();
    const target = join(directory, 'disk');
    const opening = new AbortController();
    let asked: () => void;
    const isAsked = new Promise<void>((resolve) => (asked = resolve));
    const source = (): Promise<Source> => {
      asked();
      return new Promise(() => undefined);
    };
    const opened = openDevice({
      source,
      fileSystem: nodeFileSystem(directory),
      target: 'disk',
      signal: opening.signal,
    });
    await isAsked;
    expect(await controlOf(target).status()).toMatchObject({ state: 'opening', pid: process.pid, size: null });
    const error = { code: 'COD_NOT_RUNNING', message: expect.stringContaining('is being opened') };
    await expect(controlOf(target).pause()).rejects.toMatchObject(error);
    opening.abort();
    await expect(opened).rejects.toThrow();
  });

  test('keeps its last error after the recovery', async () => {
    let isAway = true;
    const image = bytesSource(new Uint8Array(BYTES).fill(1));
    const source: Source = {
      size: BYTES,
      read: async (into, offset) => {
        if (isAway) throw Object.assign(new Error('the cable is cut'), { name: 'CableError' });
        await image.read(into, offset);
      },
      close: async () => undefined,
    };
    const { device, target } = await copyOf({ source, hydrate: {} });
    for await (const event of device.events()) if (event.type === 'retry') break;
    const before = await controlOf(target).status();
    const lastError = { code: 'CableError', message: 'the cable is cut', recoveredAt: null };
    expect(before).toMatchObject({ state: 'waiting', lastError, secondsLeft: null });
    expect(Date.parse(before.nextAttemptAt!)).toBeGreaterThan(Date.parse(before.lastError!.time));
    isAway = false;
    await device.hydrated;
    const after = await controlOf(target).status();
    expect(after).toMatchObject({ state: 'hydrated', nextAttemptAt: null, secondsLeft: 0 });
    expect(after.lastError).toEqual({ ...before.lastError, recoveredAt: expect.any(String), time: expect.any(String) });
  });
});

describe('events', () => {
  test('come until the device is closed', async () => {
    const { device, target } = await copyOf();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const event of controlOf(target).events()) {
        seen.push(event.type === 'state' ? event.state : event.type);
        if (seen.length === 1) device.resume();
        if (seen.length === 2) await device.close();
      }
    })();
    while (seen.length === 0) {
      device.pause();
      await controlOf(target).status();
      if (seen.length === 0) device.resume();
    }
    await reading;
    expect(seen.at(-1)).toBe('closed');
    expect(seen.every((type) => ['paused', 'hydrating', 'checkpoint', 'closed'].includes(type))).toBe(true);
  });

  test('that a slow client misses are counted', async () => {
    const { device, target } = await copyOf();
    const client = clientOf(target);
    client.write('{"command":"events"}\n');
    await once(client, 'data');
    const changes = 10_000;
    for (let count = 0; count < changes; count += 2) {
      device.pause();
      device.resume();
    }
    const closed = device.close();
    const lines = (await text(client)).trim().split('\n');
    await closed;
    const events = lines.map((line) => (JSON.parse(line) as { event?: DeviceEvent }).event);
    expect(events.at(-1)).toBe(undefined);
    const lost = events.find((event) => event?.type === 'lost') as DeviceEvent & { type: 'lost' };
    const states = events.filter((event) => event?.type === 'state').length;
    // Paused and resumed, and then closed.
    expect(states + lost.count).toBeGreaterThanOrEqual(changes + 1);
    expect(states).toBeLessThan(1000);
  });

  test('have a bounded number of followers, and a place is free when one leaves', async () => {
    const { target } = await copyOf();
    const followers = Array.from({ length: 8 }, () => clientOf(target));
    for (const follower of followers) {
      follower.write('{"command":"events"}\n');
      await once(follower, 'data');
    }
    const follow = (): Promise<unknown> =>
      controlOf(target, { signal: AbortSignal.abort('left') })
        .events()
        .next();
    await expect(follow()).rejects.toBe('left');
    await expect(controlOf(target).events().next()).rejects.toMatchObject({ code: 'COD_UNSUPPORTED' });
    followers[0]!.destroy();
    for (;;) {
      const next = clientOf(target);
      next.write('{"command":"events"}\n');
      if (String((await once(next, 'data'))[0]) === '{}\n') break;
    }
  });

  test('are no more when the caller has enough', async () => {
    const { device, target } = await copyOf();
    const enough = new AbortController();
    const events = controlOf(target, { signal: enough.signal }).events();
    const first = events.next();
    // The first event may come before the owner knows of the follower.
    while ((await Promise.race([first, controlOf(target).status()])) && device.status().state !== 'paused')
      device.pause();
    const next = events.next();
    enough.abort(new Error('enough'));
    await expect(Promise.all([first, next])).rejects.toThrow('enough');
    expect(await events.next()).toEqual({ done: true, value: undefined });
  });

  test('of an owner that dies end with an error', async () => {
    const { target } = await fakeOwner((socket) => {
      socket.end('{}\n{"event":{"type":"recovered"}}\n');
    });
    const events = controlOf(target).events();
    expect(await events.next()).toEqual({ done: false, value: { type: 'recovered' } });
    await expect(events.next()).rejects.toMatchObject({
      code: 'COD_NOT_RUNNING',
      message: expect.stringContaining('the connection ended'),
    });
  });
});

/** Makes a lock whose owner is `serve`. */
async function fakeOwner(
  serve: (socket: Socket) => void,
  changes: Partial<Owner> = {},
): Promise<{ target: string; server: Server }> {
  const target = join(temporaryDirectory(), 'disk');
  const { host, machineId } = thisMachine();
  const hex = '0123456789abcdef';
  const owner: Owner = { token: hex, ...thisProcess(), machineId, host, socket: hex, ...changes };
  writeFileSync(`${target}.lock`, encodeHead(owner) + encodeTail({ unproved: false, beat: 0, ...changes }));
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    serve(socket);
  });
  server.listen(`${target}.lock.${hex}`);
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return { target, server };
}

describe('what is no owner of ours', () => {
  const answers: Readonly<Record<string, string>> = {
    'no JSON': 'HTTP/1.1 400 Bad Request\r\n\r\n',
    'no object': '7\n',
    'an empty object': '{}\n',
    'wrong fields': '{"state":"idle","pid":"1"}\n',
    'a wrong error': '{"error":{"code":"\\u001b[2J","message":7}}\n',
  };
  test.each(Object.keys(answers))('%s', async (name) => {
    const { target } = await fakeOwner((socket) => socket.end(answers[name]!));
    await expect(controlOf(target).status()).rejects.toMatchObject({
      code: 'COD_NOT_RUNNING',
      details: { hasOwner: true },
    });
  });

  test('nothing, endless bytes and a dripping line', async () => {
    const silent = await fakeOwner(() => undefined);
    let taken = 0;
    const endless = await fakeOwner((socket) => {
      const more = (): void => {
        while (!socket.destroyed && socket.write('x'.repeat(65_536), () => (taken += 65_536)));
      };
      socket.on('drain', more);
      more();
    });
    const dripping = await fakeOwner((socket) => {
      const timer = setInterval(() => socket.write(' '), 100);
      socket.on('close', () => clearInterval(timer));
    });
    const late = { code: 'COD_NOT_RUNNING', message: expect.stringContaining('within 5 s') };
    await Promise.all([
      expect(controlOf(silent.target).status()).rejects.toMatchObject(late),
      expect(controlOf(dripping.target).status()).rejects.toMatchObject(late),
      expect(controlOf(endless.target).status()).rejects.toMatchObject({ code: 'COD_NOT_RUNNING' }),
    ]);
    expect(taken).toBeLessThan(2 ** 24);
  }, 30_000);

  test('an owner that ends while it is asked', async () => {
    const { target, server } = await fakeOwner((socket) => {
      server.close();
      socket.destroy();
    });
    await expect(controlOf(target).status()).rejects.toMatchObject({ details: { hasOwner: false } });
    const stranger = await fakeOwner((socket) => socket.destroy());
    await expect(controlOf(stranger.target).status()).rejects.toMatchObject({ details: { hasOwner: true } });
  }, 30_000);

  test('texts have no escape sequences', async () => {
    const lastError = { code: 'X', message: '\u001b[2Jhello\n', time: '', recoveredAt: null };
    const { target } = await fakeOwner((socket) =>
      socket.end(`${JSON.stringify({ state: 'idle', pid: 1, lastError, source: '\u009b1m' })}\n`),
    );
    expect(await controlOf(target).status()).toMatchObject({ lastError: { message: ' [2Jhello ' }, source: ' 1m' });
    const failing = await fakeOwner((socket) => socket.end('{"error":{"code":"COD_CLOSED","message":"\\u001b[2J"}}\n'));
    await expect(controlOf(failing.target).pause()).rejects.toMatchObject({ code: 'COD_CLOSED', message: ' [2J' });
  });

  test('a lock of another machine, one without a socket, a foreign file, and one that was released', async () => {
    const other = { bootId: 'other', machineId: 'other', host: 'far' };
    const far = await fakeOwner((socket) => socket.end('{}\n'), other);
    await expect(controlOf(far.target).status()).rejects.toMatchObject({
      message: expect.stringMatching(/on far .*another machine/),
      details: { hasOwner: true, host: 'far' },
    });
    const mute = await fakeOwner(() => undefined, { socket: undefined });
    await expect(controlOf(mute.target).status()).rejects.toMatchObject({ details: { hasOwner: true } });
    const dead = await fakeOwner(() => undefined, { socket: undefined, startTime: 1 });
    await expect(controlOf(dead.target).status()).rejects.toMatchObject({ details: { hasOwner: false } });
    const released = await fakeOwner(() => undefined, { beat: RELEASED });
    await expect(controlOf(released.target).status()).rejects.toMatchObject({ details: { hasOwner: false } });
    writeFileSync(`${released.target}.lock`, 'a diary');
    await expect(controlOf(released.target).status()).rejects.toMatchObject({
      message: expect.stringContaining('names no owner'),
    });
  });
});

describe('hostile clients', () => {
  test('a client that has ended its side gets its answer, also a late one', async () => {
    const { target } = await copyOf();
    const client = clientOf(target);
    client.end(`{"command":"snapshot","directory":${JSON.stringify(join(target, '..'))},"name":"copy"}\n`);
    expect((await text(client)).split('\n')).toEqual(['{}', JSON.stringify({ target: 'disk', pid: process.pid }), '']);
  });

  test('a client that takes no answers has few of them made', async () => {
    let asked = 0;
    const answers: Answers = {
      answer: () => ({ count: ++asked }),
      events: async function* () {},
    };
    const path = join(temporaryDirectory(), 'socket');
    const serve = controlServer(answers);
    const listening = (await listenAt(path, (socket) => serve(socket, 'token')))!;
    onTestFinished(() => listening.close());
    const client = connect(path);
    const requests = 100_000;
    client.write(`{"token":"token"}\n${'{"command":"status"}\n'.repeat(requests)}`);
    // The owner ends the connection, since the client is silent.
    await once(client, 'close').catch(() => undefined);
    expect(asked).toBeGreaterThan(100);
    expect(asked).toBeLessThan(requests / 2);
  });

  test('a thousand connections and endless lines do not keep others out', async () => {
    const { target } = await copyOf();
    const { socket } = parseOwner(readFileSync(`${target}.lock`, 'utf8'))!;
    const many = Array.from({ length: 1000 }, (_, index) => {
      const client = connect(`${target}.lock.${socket}`);
      client.on('error', () => undefined);
      if (index % 2 === 0) client.write('x'.repeat(2 ** 20));
      onTestFinished(() => void client.destroy());
      return client;
    });
    await Promise.all(
      many.map((client) => Promise.race([once(client, 'connect'), once(client, 'close')]).catch(() => undefined)),
    );
    expect(await controlOf(target).status()).toMatchObject({ pid: process.pid });
  }, 30_000);
});
