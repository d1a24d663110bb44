/** The process in the demo that uses an image while it is copied, and is killed. Talks to the demo over the channel of `fork`. */

import type { Device } from '../../device/device.ts';
import { isCodError } from '../../errors.ts';
import type { FileSystem } from '../../fs/file-system.ts';
import { nodeFileSystem } from '../../fs/node.ts';
import { inspectMetadata, openDevice } from '../../index.ts';
import { httpSource } from '../../sources/http/source.ts';
import { mapCells } from '../map-picture.ts';
import { MAP_CELLS, type Message, type Request, type State } from './messages.ts';

const STATE_MS = 100;

/** Copies `url` to `target` to the end and removes the metadata, answering requests meanwhile. Resolves when done, or when that was said to have failed. */
export async function runWorker(url: string, target: string): Promise<void> {
  // The demo decides when this process ends; without it there is nothing to do.
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => {});
  process.on('disconnect', () => process.exit(1));
  try {
    const source = await httpSource(url);
    const fileSystem = nodeFileSystem();
    const dirty = await dirtyBlocks(fileSystem, target);
    const device = await openDevice({ source, fileSystem, target });
    const worker = new Worker(device, dirty);
    worker.send({ event: 'open', state: worker.state() });
    process.on('message', (request: Request) => void worker.answer(request));
    const timer = setInterval(() => worker.send({ event: 'state', state: worker.state() }), STATE_MS);
    await device.hydrated;
    clearInterval(timer);
    worker.send({ event: 'state', state: worker.state() });
    await device.finish();
    await source.close();
    send({ event: 'finished' });
    process.disconnect();
  } catch (error) {
    send({ event: 'failed', error: plain(error) });
  }
}

/** What an earlier life wrote in part. */
async function dirtyBlocks(fileSystem: FileSystem, target: string): Promise<number[]> {
  try {
    return (await inspectMetadata(fileSystem, target)).dirty.map(({ block }) => block);
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND')) return [];
    throw error;
  }
}

class Worker {
  readonly send: (message: Message) => void = send;
  readonly #device: Device;
  readonly #written: Set<number>;

  constructor(device: Device, dirty: Iterable<number>) {
    this.#device = device;
    this.#written = new Set(dirty);
  }

  state(): State {
    const { size, blockSize, totalBlocks } = this.#device.status();
    const synced = this.#device.syncedBlocks();
    const dirtyBlocks = [...this.#written].filter((block) => !synced.has(block));
    const cells = mapCells({ totalBlocks, synced: synced.extents(), dirtyBlocks }, MAP_CELLS);
    const copiedBytes = Math.min(size, synced.size * blockSize);
    synced.dispose();
    return { copiedBytes, size, cells };
  }

  async answer(request: Request): Promise<void> {
    const started = performance.now();
    try {
      const bytes = await this.#call(request);
      const ms = performance.now() - started;
      this.send({ event: 'answer', id: request.id, ms, ...(bytes === undefined ? {} : { bytes }) });
    } catch (error) {
      this.send({ event: 'failed', id: request.id, error: plain(error) });
    }
  }

  async #call(request: Request): Promise<Uint8Array | undefined> {
    if (request.call === 'read') {
      const bytes = new Uint8Array(request.length);
      await this.#device.read(bytes, request.offset);
      return bytes;
    }
    if (request.call === 'write') {
      await this.#device.write(request.bytes, request.offset);
      this.#written.add(Math.floor(request.offset / this.#device.blockSize));
    } else await this.#device.flush();
    return undefined;
  }
}

function send(message: Message): void {
  process.send?.(message);
}

function plain(error: unknown): Extract<Message, { event: 'failed' }>['error'] {
  if (isCodError(error)) return error.toJSON();
  return error instanceof Error
    ? { name: error.name, message: error.message }
    : { name: 'Error', message: String(error) };
}
