/** The worker's side of a device: does what its page and the workers of other tabs ask for, and tells them how it stands. */

import type { Device, LocalDevice } from '../device/device.ts';
import { isCodError } from '../errors.ts';
import { type FromDevice, type Operation, type ToDevice, toWire, type WireError } from './messages.ts';
import type { Port } from './port.ts';

const STATUS_INTERVAL_MS = 200;

/** One who is served. */
export interface Seat {
  take(message: ToDevice): void;
  /** Ends what it asked for. */
  leave(): void;
}

export class DeviceHost {
  readonly #device: LocalDevice;
  readonly #ports = new Set<Port<FromDevice>>();
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #onFinished: () => void;
  #hydrated: { error?: WireError } | undefined;
  #lastStatus = '';
  #closing = false;

  /** `onFinished` is called once the device is no more because somebody has finished it. */
  constructor(device: LocalDevice, onFinished: () => void) {
    this.#device = device;
    this.#onFinished = onFinished;
    this.#timer = setInterval(() => this.#tellStatus(), STATUS_INTERVAL_MS);
    device.hydrated.then(
      () => this.#tellHydrated({}),
      (error: unknown) => {
        if (!this.#closing) this.#tellHydrated({ error: toWire(error) });
      },
    );
  }

  /** Serves whoever is behind `port`. What a guest still waits for when the device is closed is not answered: it asks the next owner. */
  serve(port: Port<FromDevice>, options: { guest: boolean }): Seat {
    const running = new Map<number, AbortController>();
    this.#ports.add(port);
    if (this.#hydrated !== undefined) port.post({ kind: 'hydrated', ...this.#hydrated });

    const call = ({ id, abortable, operation }: ToDevice & { kind: 'call' }): void => {
      const aborter = abortable ? new AbortController() : undefined;
      if (aborter !== undefined) running.set(id, aborter);
      const answer = (value: unknown): void => {
        running.delete(id);
        if (this.#ports.has(port))
          port.post({ kind: 'answer', id, value }, value instanceof Uint8Array ? [value.buffer as ArrayBuffer] : []);
        if (operation.op === 'finish') this.#finished();
      };
      const fail = (error: unknown): void => {
        running.delete(id);
        if (options.guest && this.#closing && isCodError(error, 'COD_CLOSED')) return;
        if (this.#ports.has(port)) port.post({ kind: 'answer', id, error: toWire(error) });
      };
      try {
        const value = this.#run(operation, aborter?.signal);
        if (value instanceof Promise) value.then(answer, fail);
        else answer(value);
      } catch (error) {
        fail(error);
      }
    };
    return {
      take: (message) => {
        if (message.kind === 'abort') running.get(message.id)?.abort();
        else if (!this.#closing) call(message);
      },
      leave: () => {
        this.#ports.delete(port);
        for (const aborter of running.values()) aborter.abort();
      },
    };
  }

  /** Closes the device; what was asked for before is answered. */
  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#timer);
    await this.#device.close();
  }

  /** Returns what is to be answered, or a promise of it: what the target has is read inside the call. */
  #run(operation: Operation, signal: AbortSignal | undefined): unknown {
    const device = this.#device;
    switch (operation.op) {
      case 'read': {
        const bytes = new Uint8Array(operation.length);
        if (device.readNow(bytes, operation.offset)) return bytes;
        return device.read(bytes, operation.offset, signal === undefined ? {} : { signal }).then(() => bytes);
      }
      case 'write':
        return device.write(operation.bytes, operation.offset, { fua: operation.fua });
      case 'discard':
      case 'writeZeroes':
        return device[operation.op](operation.offset, operation.length);
      case 'flush':
      case 'checkpoint':
      case 'finish':
        return device[operation.op]();
      case 'status':
        return device.status();
      case 'countSynced':
        return countSynced(device, operation);
      case 'countDirty':
        return countDirty(device, operation);
      case 'setRate':
        return device.setRate(operation.bytesPerSecond);
    }
  }

  #finished(): void {
    this.#closing = true;
    clearInterval(this.#timer);
    this.#tell({ kind: 'finished' });
    this.#onFinished();
  }

  #tellStatus(): void {
    const status = this.#device.status();
    const text = JSON.stringify(status);
    if (text === this.#lastStatus) return;
    this.#lastStatus = text;
    this.#tell({ kind: 'status', status });
  }

  #tellHydrated(outcome: { error?: WireError }): void {
    this.#hydrated = outcome;
    this.#tellStatus();
    this.#tell({ kind: 'hydrated', ...outcome });
  }

  #tell(message: FromDevice): void {
    for (const port of this.#ports) port.post(message);
  }
}

/** Blocks [start, end) in so many equal parts. */
interface Stretches {
  readonly start: number;
  readonly end: number;
  readonly stretches: number;
}

/** The first block of each part. */
function edgeOf({ start, end, stretches }: Stretches, index: number): number {
  return start + Math.floor(((end - start) * index) / stretches);
}

/** The number of synced blocks in each part. */
function countSynced(device: Device, parts: Stretches): Float64Array {
  const { end, stretches } = parts;
  const counts = new Float64Array(stretches);
  const edge = (index: number): number => edgeOf(parts, index);
  let index = 0;
  for (const [from, to] of device.syncedBlocks().extents()) {
    if (from >= end) break;
    while (index > 0 && edge(index) > from) index--;
    while (index < stretches && edge(index + 1) <= from) index++;
    for (let at = index; at < stretches && edge(at) < to; at++) {
      counts[at]! += Math.max(0, Math.min(to, edge(at + 1)) - Math.max(from, edge(at)));
    }
  }
  return counts;
}

/** The number of dirty blocks in each part. */
function countDirty(device: Device, parts: Stretches): Float64Array {
  const { start, end, stretches } = parts;
  const counts = new Float64Array(stretches);
  let index = 0;
  for (const block of device.dirtyBlocks()) {
    if (block < start) continue;
    if (block >= end) break;
    while (edgeOf(parts, index + 1) <= block) index++;
    counts[index]!++;
  }
  return counts;
}
