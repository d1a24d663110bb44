/** What the tests have done inside a page; bundled for them, with the package beside it as it is shipped. */

import type * as Browser from '../../src/browser.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { ByteHistory } from '../support/byte-history.ts';

type BrowserDevice = Browser.BrowserDevice;

/** One thing that a user of the device does; the bytes of a write come of its seed. */
interface Step {
  readonly id: number;
  readonly offset: number;
  readonly length: number;
  readonly seed: number;
}

declare global {
  /** Tells the test outside; awaited, it is sure to know. */
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

/** Two users, each with a device for it and half of the disk, whose edge is in the middle of a block: writes of one never meet those of the other, but share a block with them. */
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
  /** Ends workers at random moments of a workload, `rounds` times; what was acknowledged must be there each time. With a guest one user is that. */
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

  /** Opens, reads everything, and makes that durable: where the next round begins. */
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
    return btoa(Array.from(found, (byte) => String.fromCharCode(byte)).join(''));
  },

  /** Uses what {@link begin} has opened until the browser is killed. */
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

  /** Opens a copy, does what is asked, and leaves it in good order. */
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

  /** Puts the files of a target to the server. */
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

  /** Makes files of what the server has. */
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
