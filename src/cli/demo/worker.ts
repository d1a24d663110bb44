/**
 * The demo's worker process: uses an image while it is copied, until the demo kills it. Talks to the demo over the
 * channel of `fork`.
 */

import { nodeFileSystem } from '../../control/node-file-system.ts';
import type { Device } from '../../device/types.ts';
import { isCodError } from '../../errors.ts';
import { openDevice } from '../../index.ts';
import { httpSource } from '../../sources/http/source.ts';
import { mapCells } from '../map-picture.ts';
import { MAP_CELLS, type Message, type Request, type State } from './messages.ts';

const STATE_MS = 100;
const EXTENTS_AT_ONCE = 4096;

/**
 * Copies `url` to `target` completely, removes the metadata, and answers requests meanwhile. Resolves when done, or
 * when a failure was reported.
 */
export async function runWorker(url: string, target: string): Promise<void> {
  // Only the demo ends this process, so signals are ignored. Without the demo the process exits.
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => {});
  process.on('disconnect', () => process.exit(1));
  try {
    const source = await httpSource(url);
    const device = await openDevice({ source, fileSystem: nodeFileSystem(), target });
    const worker = new Worker(device);
    await worker.tellState('open');
    process.on('message', (request: Request) => void worker.answer(request));
    const timer = setInterval(() => void worker.tellState('state').catch(() => undefined), STATE_MS);
    await device.hydrated;
    clearInterval(timer);
    await worker.tellState('state');
    await device.finish();
    await source.close();
    send({ event: 'finished' });
    process.disconnect();
  } catch (error) {
    send({ event: 'failed', error: plain(error) });
  }
}

class Worker {
  readonly send: (message: Message) => void = send;
  readonly #device: Device;

  constructor(device: Device) {
    this.#device = device;
  }

  async state(): Promise<State> {
    const { size, blockSize, totalBlocks, syncedBlocks } = this.#device.status();
    const synced: [start: number, end: number][] = [];
    const dirtyBlocks: number[] = [];
    for (let at = 0; at < size; ) {
      for (const { state, length } of await this.#device.extents(at, size - at, EXTENTS_AT_ONCE)) {
        const [start, end] = [Math.floor(at / blockSize), Math.ceil((at + length) / blockSize)];
        if (state === 'synced') synced.push([start, end]);
        for (let block = start; state === 'dirty' && block < end; block++) dirtyBlocks.push(block);
        at += length;
      }
    }
    const cells = mapCells({ totalBlocks, synced, dirtyBlocks }, MAP_CELLS);
    return { copiedBytes: Math.min(size, syncedBlocks * blockSize), size, cells };
  }

  async tellState(event: 'open' | 'state'): Promise<void> {
    this.send({ event, state: await this.state() });
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
