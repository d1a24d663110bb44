/** Actions that the tests run inside a page. This file is bundled; the package beside it is loaded as shipped. */

import type * as Browser from '../../src/browser.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { ByteHistory } from '../support/byte-history.ts';

type BrowserDevice = Browser.BrowserDevice;

/** One operation of a user of the device. The seed determines the bytes of a write. */
export interface Step {
  readonly id: number;
  readonly offset: number;
  readonly length: number;
  readonly seed: number;
}

declare global {
  /** Reports to the test outside the page. When the promise resolves, the test has received the report. */
  var tell:
    | ((what: { begin: Step } | { acknowledged: number } | { flushing: number } | { flushed: number }) => Promise<void>)
    | undefined;
}

const shipped = '/dist/browser.js';
const { openDevice } = (await import(shipped)) as typeof Browser;

async function readAll(device: BrowserDevice): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

function inBase64(bytes: Uint8Array): string {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}

/**
 * Runs two users, each with its own device and its own half of the disk. The halves meet in the middle of a block, so
 * the users share one block but never write the same byte.
 */
async function use(
  [left, right]: readonly [BrowserDevice, BrowserDevice],
  seed: number,
  steps: number,
  on: { begin(step: Step): Promise<() => void>; beginFlush(): Promise<() => void> },
): Promise<void> {
  const random = seededRandom(seed);
  let id = 0;
  const user = async (device: BrowserDevice, from: number, to: number): Promise<void> => {
    const mine = random.fork();
    for (let step = 0; step < steps; step++) {
      const offset = from + mine.below(to - from);
      const length = 1 + mine.below(Math.min(to - offset, mine.oneIn(2) ? 12_000 : 900));
      switch (mine.below(6)) {
        case 0: {
          const done = await on.beginFlush();
          await device.flush();
          done();
          break;
        }
        case 1:
          await device.read(new Uint8Array(length), offset);
          break;
        default: {
          const made = { id: id++, offset, length, seed: mine.below(2 ** 31) };
          const done = await on.begin(made);
          await device.write(seededRandom(made.seed).fill(new Uint8Array(length)), offset);
          done();
        }
      }
    }
  };
  const middle = Math.floor(left.size / 2) + 100;
  await Promise.all([user(left, 0, middle), user(right, middle, right.size)]);
}

const actions = {
  /**
   * Terminates workers at random moments of a workload, `rounds` times. After each round, checks every acknowledged
   * write. With `guest`, one of the two users is a guest.
   */
  async terminate({
    url,
    rounds,
    seed,
    guest,
  }: {
    url: string;
    rounds: number;
    seed: number;
    guest: boolean;
  }): Promise<void> {
    const random = seededRandom(seed);
    const source = new Uint8Array(await (await fetch(url)).arrayBuffer());
    for (let round = 0; round < rounds; ) {
      const workers: Worker[] = [];
      const open = (index: number): Promise<BrowserDevice> =>
        openDevice({
          source: url,
          target: `terminate-${guest}-${round}`,
          worker: () => (workers[index] = new Worker('/dist/browser-worker.js', { type: 'module' })),
          hydrate: { rateBytesPerSecond: 40_000 },
          checkpointIntervalMs: 50,
        });
      const first = await open(0);
      const second = guest ? await open(1) : first;
      let base: Uint8Array = source;
      for (const last = round + 10; round < last; round++) {
        const history = new ByteHistory(base);
        const working = use([first, second], seed + round, 12, {
          begin: async ({ offset, length, seed: bytes }) => {
            const write = history.begin(offset, seededRandom(bytes).fill(new Uint8Array(length)));
            return () => {
              history.acknowledge(write);
            };
          },
          beginFlush: async () => history.beginFlush(),
        });
        await new Promise((resolve) => setTimeout(resolve, random.below(30)));
        for (const worker of workers) if (workers.length === 1 || random.oneIn(2)) worker.terminate();
        await working;
        base = await readAll(second);
        const wrong = history.violation(base, 'acknowledged');
        if (wrong !== undefined) throw new Error(`seed ${seed}, round ${round}: ${wrong}`);
      }
      await Promise.all([first.close(), second.close()]);
    }
  },

  /** Opens the device, reads all of it and flushes: the durable state at the start of a round. */
  async begin({ url }: { url: string }): Promise<string> {
    const device = await openDevice({
      source: url,
      target: 'killed',
      hydrate: { rateBytesPerSecond: 20_000 },
      checkpointIntervalMs: 200,
    });
    const found = await readAll(device);
    await device.flush();
    Object.assign(globalThis, { device });
    return inBase64(found);
  },

  /** Opens a device. Nothing happens in the background that makes a write durable. */
  async openQuiet({ url, target }: { url: string; target: string }): Promise<void> {
    const device = await openDevice({ source: url, target, hydrate: false, checkpointIntervalMs: 3_600_000 });
    Object.assign(globalThis, { device });
  },

  /** Reads all of the device of {@link openQuiet} and closes it. */
  async readAndClose(_: object): Promise<string> {
    const { device } = globalThis as unknown as { device: BrowserDevice };
    const found = await readAll(device);
    await device.close();
    return inBase64(found);
  },

  /** Uses the device of {@link begin} until the browser is killed. */
  async work({ seed }: { seed: number }): Promise<void> {
    const { device } = globalThis as unknown as { device: BrowserDevice };
    let flushes = 0;
    await use([device, device], seed, Number.POSITIVE_INFINITY, {
      begin: async (begin) => {
        await tell!({ begin });
        return () => void tell!({ acknowledged: begin.id });
      },
      beginFlush: async () => {
        const flushing = flushes++;
        await tell!({ flushing });
        return () => void tell!({ flushed: flushing });
      },
    });
  },

  /** Writes to the device of {@link openQuiet}, 32 at a time, until the tab or the browser ends. Never flushes. */
  async writeMany({ seed }: { seed: number }): Promise<void> {
    const { device } = globalThis as unknown as { device: BrowserDevice };
    const random = seededRandom(seed);
    const near = random.below(device.size - 8192);
    for (let id = 0; ; ) {
      const steps = Array.from({ length: 32 }, (): Step => {
        // Half of the writes change cells that were written before.
        const isNear = random.oneIn(2);
        const length = 1 + random.below(isNear ? 500 : 12_000);
        const offset = isNear ? near + random.below(7692) : random.below(device.size - length);
        return { id: id++, offset, length, seed: random.below(2 ** 31) };
      });
      await Promise.all(steps.map((begin) => tell!({ begin })));
      await Promise.all(
        steps.map(async ({ id: own, offset, length, seed: bytesSeed }) => {
          await device.write(seededRandom(bytesSeed).fill(new Uint8Array(length)), offset);
          void tell!({ acknowledged: own });
        }),
      );
    }
  },

  /** Opens a copy, applies the requested operations and closes the copy cleanly. */
  async visit(options: {
    url: string;
    target: string;
    hydrate: boolean;
    writes: readonly { offset: number; length: number; seed: number }[];
    untilBlocks?: number;
    finish?: boolean;
  }): Promise<void> {
    const { url, target, hydrate, writes, untilBlocks, finish } = options;
    const slow = untilBlocks === undefined ? {} : { rateBytesPerSecond: 500_000 };
    const device = await openDevice({ source: url, target, hydrate: hydrate && slow });
    for (const { offset, length, seed } of writes)
      await device.write(seededRandom(seed).fill(new Uint8Array(length)), offset);
    while (untilBlocks !== undefined && (await device.refreshStatus()).syncedBlocks < untilBlocks)
      await new Promise((resolve) => setTimeout(resolve, 20));
    if (hydrate && untilBlocks === undefined) await device.hydrated;
    await (finish ? device.finish() : device.close());
  },

  /**
   * Has the data of the site removed while two users have a copy open. `busy`: the owner writes and flushes meanwhile;
   * otherwise nothing is called. Resolves to what each user was told, and to why the copy cannot be opened here again.
   */
  async loseSiteData({ url, target, busy }: { url: string; target: string; busy: boolean }): Promise<{
    told: { states: string[]; codes: (string | undefined)[]; last: string }[];
    refusal: string | undefined;
  }> {
    const open = (): Promise<BrowserDevice> =>
      openDevice({ source: url, target, hydrate: { rateBytesPerSecond: 4096 }, checkpointIntervalMs: 3_600_000 });
    const devices = [await open(), await open()];
    const codeOf = (calling: Promise<unknown>): Promise<string | undefined> =>
      calling.then(
        () => undefined,
        (error: { code?: string }) => error.code,
      );
    const told = devices.map(async (device) => {
      const states: string[] = [];
      for await (const event of device.events()) {
        if (event.type !== 'state') continue;
        states.push(event.state);
        if (event.state === 'poisoned') break;
      }
      const codes = [
        await codeOf(device.hydrated),
        await codeOf(device.read(new Uint8Array(1), 0)),
        await codeOf(device.flush()),
        await codeOf(device.close()),
      ];
      return { states, codes, last: device.status().state };
    });
    await devices[0]!.write(new Uint8Array(9).fill(7), 0);
    await devices[1]!.flush();
    await fetch('/clear-site-data');
    for (let code: string | undefined; busy && code === undefined; ) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      code = await codeOf(devices[0]!.write(new Uint8Array(9).fill(8), 4096).then(() => devices[0]!.flush()));
    }
    const heard = await Promise.all(told);
    const refusal = await open().then(
      (again) => again.close(),
      (error: Error) => error.message,
    );
    return { told: heard, refusal: refusal ?? undefined };
  },

  /** Uploads the files of a target to the server. */
  async upload({ target }: { target: string }): Promise<string[]> {
    const root = await navigator.storage.getDirectory();
    const names: string[] = [];
    for await (const [name, handle] of (
      root as unknown as { entries(): AsyncIterable<[string, FileSystemFileHandle]> }
    ).entries()) {
      if (!name.startsWith(target)) continue;
      names.push(name);
      await fetch(`/upload/${name}`, { method: 'PUT', body: await handle.getFile() });
    }
    return names.sort();
  },

  /** Downloads files from the server into OPFS. */
  async download({ names }: { names: readonly string[] }): Promise<void> {
    const root = await navigator.storage.getDirectory();
    for (const name of names) {
      const file = await (await root.getFileHandle(name, { create: true })).createWritable();
      await (await fetch(`/files/${name}`)).body!.pipeTo(file);
    }
  },
};

export type Actions = typeof actions;
Object.assign(globalThis, { actions });
