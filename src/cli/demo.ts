/**
 * `copyondemand demo`: uses a sample image while it is copied, kills the process, resumes the copy and verifies the
 * result.
 */

import { mkdir, mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { withSignal } from '../async/with-signal.ts';
import { CodError } from '../errors.ts';
import type { State } from './demo/messages.ts';
import { MAP_CELLS } from './demo/messages.ts';
import { type RangeServer, startRangeServer } from './demo/range-server.ts';
import { makeSampleImage, type SampleImage } from './demo/sample-image.ts';
import { Stage } from './demo/stage.ts';
import { WorkerProcess } from './demo/worker-process.ts';
import { sha256OfFile } from './hash.ts';
import { inspectTarget } from './inspect.ts';
import { listenForInterruption } from './interruption.ts';
import { mapCells } from './map-picture.ts';
import { counted, formatBytes, formatPercent, formatRate } from './units.ts';

const BYTES_PER_SECOND = 32 * 2 ** 20;
const LATENCY_MS = 10;
/** Length of a write at three quarters of the image, far ahead of the copy and in the middle of blocks. */
const SCRATCH_BYTES = 700;
const DIARY = 'Today: written while the image was being copied, before the crash.';

/** Runs the demo. @throws {@link CodError} COD_CORRUPT if a check fails. */
export async function demo(): Promise<void> {
  const interruption = listenForInterruption();
  const stage = new Stage(process.stdout);
  const directory = await mkdtemp(join(tmpdir(), 'copyondemand-demo-'));
  const play = new Play(stage, directory, interruption.signal);
  const running = play.run();
  try {
    await withSignal(running, interruption.signal);
  } finally {
    stage.end();
    await play.clear();
    // The play ends at its next step. What it has begun until then must be cleared as well.
    await running.catch(() => {});
    await play.clear();
    await rm(directory, { recursive: true, force: true });
    interruption.stop();
  }
}

class Play {
  readonly #stage: Stage;
  readonly #directory: string;
  readonly #signal: AbortSignal;
  readonly #target: string;
  #server: RangeServer | undefined;
  #worker: WorkerProcess | undefined;
  #state: State | undefined;
  #onState: (state: State) => void = () => {};

  constructor(stage: Stage, directory: string, signal: AbortSignal) {
    this.#stage = stage;
    this.#directory = directory;
    this.#signal = signal;
    this.#target = join(directory, 'copy', 'disk.raw');
  }

  async run(): Promise<void> {
    const stage = this.#stage;
    stage.line();
    stage.line('copyondemand: use a remote disk image at once, while it is copied, and lose nothing in a crash');
    const image = await this.#serve();
    const writes = await this.#use(image);
    await this.#killHalfWay(image);
    await this.#goOn(writes);
    await this.#verify(image, writes);
    stage.line();
    stage.line('Next, with your own image (the same command resumes):');
    stage.line('  npm start -- copy SOURCE TARGET            SOURCE is a path or a URL');
    stage.line('  npm start -- inspect TARGET --map          shows the progress');
    stage.line('  npx copyondemand copy SOURCE TARGET        without this checkout');
  }

  /** Ends the worker process and the server, in any state of the play. */
  async clear(): Promise<void> {
    await this.#worker?.kill();
    await this.#server?.close();
  }

  async #serve(): Promise<SampleImage> {
    const image = await makeSampleImage(this.#directory, this.#signal);
    const file = await open(image.path, 'r');
    const server = await startRangeServer({
      size: image.size,
      etag: '"demo"',
      bytesPerSecond: BYTES_PER_SECOND,
      latencyMs: LATENCY_MS,
      read: async (into, offset) => {
        await file.read(into, 0, into.length, offset);
      },
    });
    this.#server = Object.assign(server, {
      close: ((close) => async () => {
        await close();
        await file.close();
      })(server.close),
    });
    this.#signal.throwIfAborted();
    this.#stage.step('A sample image on a slow server');
    this.#stage.line(`${formatBytes(image.size)}: ${image.kind}`);
    this.#stage.line(`${server.url}: ${formatRate(BYTES_PER_SECOND)}, latency ${LATENCY_MS} ms`);
    return image;
  }

  async #start(): Promise<State> {
    this.#signal.throwIfAborted();
    const { worker, state } = await WorkerProcess.start(this.#server!.url, this.#target, (state) => {
      this.#state = state;
      this.#onState(state);
    });
    this.#worker = worker;
    this.#state = state;
    this.#signal.throwIfAborted();
    return state;
  }

  async #use(image: SampleImage): Promise<readonly Write[]> {
    const stage = this.#stage;
    await mkdir(dirname(this.#target));
    await this.#start();
    const worker = this.#worker!;
    stage.step(`Process ${worker.pid} opens the image and uses it at once, while the copy runs`);
    for (const { what, offset, length, show } of image.landmarks) {
      const { bytes, ms } = await worker.read(offset, length);
      stage.line(`reads ${what} at ${formatBytes(offset)} in ${ms.toFixed(0)} ms: ${show(bytes)}`);
    }
    const { diary, size } = image;
    const writes = [
      {
        what: diary.what,
        offset: diary.offset,
        bytes: new TextEncoder().encode(DIARY.padEnd(diary.length).slice(0, diary.length)),
      },
      { what: `${SCRATCH_BYTES} bytes`, offset: size * 0.75 + 4000, bytes: new Uint8Array(SCRATCH_BYTES).fill(0x55) },
    ];
    for (const { what, offset, bytes } of writes) {
      const { ms } = await worker.write(offset, bytes);
      stage.line(`writes ${what} at ${formatBytes(offset)} in ${ms.toFixed(1)} ms`);
    }
    const { ms } = await worker.flush();
    const { copiedBytes } = this.#state!;
    stage.line(
      `flushes in ${ms.toFixed(0)} ms: the writes must survive now; ${formatPercent(copiedBytes, size)} is copied`,
    );
    stage.legend();
    return writes;
  }

  async #killHalfWay(image: SampleImage): Promise<void> {
    const stage = this.#stage;
    const worker = this.#worker!;
    await Promise.race([
      worker.finished,
      new Promise<void>((resolve) => {
        this.#onState = (state) => {
          stage.map(state);
          if (state.copiedBytes >= image.size / 2) resolve();
        };
      }),
    ]);
    this.#onState = () => {};
    stage.step(`kill -9 ${worker.pid}`);
    await worker.kill();
    const { totalBlocks, synced, dirty, files, syncedBlocks, blockSize } = await inspectTarget(this.#target, {});
    const map = {
      totalBlocks,
      synced: synced.map(([first, last]) => [first, last + 1] as const),
      dirtyBlocks: dirty.map(({ block }) => block),
    };
    stage.line(
      `on disk: ${formatBytes(syncedBlocks * blockSize)} copied, ${counted(dirty.length, 'block')} partly written (▚)`,
    );
    stage.line(`metadata beside ${basename(this.#target)}: ${files.map(({ name }) => name).join(', ')}`);
    stage.line(`${stage.cells(mapCells(map, MAP_CELLS))}  ${formatPercent(syncedBlocks, totalBlocks)}`);
  }

  async #goOn(writes: readonly Write[]): Promise<void> {
    const stage = this.#stage;
    const { copiedBytes, size } = await this.#start();
    const worker = this.#worker!;
    stage.step('A new process makes the same call');
    stage.line(`resumes: ${formatBytes(copiedBytes)} of ${formatBytes(size)} need not be fetched again`);
    for (const { what, offset, bytes } of writes) {
      const found = await worker.read(offset, bytes.length);
      if (Buffer.compare(found.bytes, bytes) !== 0) throw new CodError('COD_CORRUPT', `the write to ${what} is lost`);
      stage.line(`${what} at ${formatBytes(offset)}: as written`);
    }
    this.#onState = (state) => stage.map(state);
    await worker.finished;
    this.#onState = () => {};
  }

  async #verify(image: SampleImage, writes: readonly Write[]): Promise<void> {
    const stage = this.#stage;
    stage.step('The copy is complete: compare it with the image');
    const patch = (piece: Uint8Array, at: number) => {
      for (const { offset, bytes } of writes) overlay(piece, at, bytes, offset);
    };
    const signal = this.#signal;
    const [expected, found] = await Promise.all([
      sha256OfFile(image.path, { signal, patch }),
      sha256OfFile(this.#target, { signal }),
    ]);
    stage.line(`SHA-256 of the image with these writes  ${short(expected)}`);
    stage.line(
      `SHA-256 of the copy                     ${short(found)}  ${found === expected ? 'the same' : 'DIFFERENT'}`,
    );
    const left = (await readdir(dirname(this.#target))).filter((name) => name !== basename(this.#target));
    stage.line(`metadata beside the copy: ${left.length === 0 ? 'none, it is an ordinary file now' : left.join(', ')}`);
    const { sentBytes } = this.#server!;
    stage.line(`sent by the server to both processes: ${formatBytes(sentBytes)} for ${formatBytes(image.size)}`);
    if (found !== expected) throw new CodError('COD_CORRUPT', `the SHA-256 of the copy is ${found}, not ${expected}`);
    if (left.length > 0) throw new CodError('COD_CORRUPT', `metadata is left beside the copy: ${left.join(', ')}`);
  }
}

interface Write {
  readonly what: string;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Copies into `piece`, which lies at `at`, the part of `bytes` that overlaps it. `bytes` lies at `offset`. */
function overlay(piece: Uint8Array, at: number, bytes: Uint8Array, offset: number): void {
  const start = Math.max(at, offset);
  const end = Math.min(at + piece.length, offset + bytes.length);
  if (start < end) piece.set(bytes.subarray(start - offset, end - offset), start - at);
}

function short(digest: string): string {
  return `${digest.slice(0, 16)}…`;
}
