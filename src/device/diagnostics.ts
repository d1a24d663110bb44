/**
 * What devices publish on the channels of `node:diagnostics_channel`. docs/METRICS.md describes it.
 *
 * Without subscribers, no message is made.
 */

import { type Done, reporting } from '../async/done.ts';
import type { Clock } from '../platform/clock.ts';
import { type Channel, channel } from '../platform/diagnostics.ts';
import type { Device, DeviceEvent } from './types.ts';

/** A message of `copyondemand:device`: a device was opened, or an event of {@link Device.events} occurred. */
export type DeviceMessage = {
  /** `target` of `openDevice`. */
  readonly target: string;
} & (DeviceEvent | { readonly type: 'opened'; readonly device: Device });

type Told = DeviceEvent | { readonly type: 'opened'; readonly device: Device };

/** A message of `copyondemand:source`: a request of a device to its source has ended. A source may divide it. */
export interface SourceMessage {
  /** `target` of `openDevice`. */
  readonly target: string;
  /** `demand`: a read of a user waited for it. `background`: it was part of the background copy. */
  readonly kind: 'demand' | 'background';
  /** Bytes from the beginning of the device. */
  readonly offset: number;
  /** Bytes that were requested. */
  readonly length: number;
  /** Bytes that came. A request of the background copy that the rate cuts short succeeds with fewer bytes. */
  readonly bytes: number;
  /** Milliseconds until the first piece of a background request came; 0 if none did. Demand requests: `durationMs`. */
  readonly responseMs: number;
  /** Milliseconds. In the background, it includes the time in which the rate or the target held the request back. */
  readonly durationMs: number;
  /** Why the request failed. Undefined: it succeeded. */
  readonly error: unknown;
}

/**
 * A message of `copyondemand:flush` and `copyondemand:checkpoint`: the copy's changes are durable, or that failed. A
 * device flushes and takes checkpoints by itself too.
 */
export interface DurabilityMessage {
  /** `target` of `openDevice`. */
  readonly target: string;
  /** Milliseconds, without the time in which it waited for the one before. */
  readonly durationMs: number;
  /** Why it failed. Undefined: it succeeded. */
  readonly error: unknown;
}

const DEVICE = channel('device');
const SOURCE = channel('source');
const FLUSH = channel('flush');
const CHECKPOINT = channel('checkpoint');

/** A request of the background copy that is watched. */
export interface WatchedRequest {
  /** The first bytes have come. */
  answered(responseMs: number): void;
  ended(bytes: number, error?: unknown): void;
}

function publish<Message>(to: Channel | undefined, message: Message): void {
  if (to?.hasSubscribers) to.publish(message);
}

/** Publishes what one device does. */
export class Diagnostics {
  readonly #target: string;
  readonly #clock: Clock;

  constructor(target: string, clock: Clock) {
    this.#target = target;
    this.#clock = clock;
  }

  /** Publishes an event. */
  tell(event: Told): void {
    publish<DeviceMessage>(DEVICE, { target: this.#target, ...event });
  }

  /** Whether anything subscribes to requests to the source. */
  get isWatched(): boolean {
    return SOURCE?.hasSubscribers === true;
  }

  /** Watches a request to the source. Returns undefined if nothing subscribes. */
  request(kind: SourceMessage['kind'], offset: number, length: number): WatchedRequest | undefined {
    if (!this.isWatched) return undefined;
    const target = this.#target;
    const clock = this.#clock;
    const startMs = clock.now();
    let firstMs: number | undefined;
    return {
      answered: (responseMs) => {
        firstMs = responseMs;
      },
      ended: (bytes, error) => {
        const durationMs = clock.now() - startMs;
        const responseMs = firstMs ?? (kind === 'demand' ? durationMs : 0);
        const message = { target, kind, offset, length, bytes, responseMs, durationMs, error };
        publish<SourceMessage>(SOURCE, message);
      },
    };
  }

  /** Runs a read of the source for a user, and publishes its end. */
  demand(offset: number, length: number, read: () => Done): Done {
    const request = this.request('demand', offset, length);
    if (request === undefined) return read();
    let reading: Done;
    let failure: unknown;
    reporting(
      () => (reading = read()),
      (error) => {
        failure = error;
        request.ended(error === undefined ? length : 0, error);
      },
    );
    if (reading === undefined && failure !== undefined) throw failure;
    return reading;
  }

  /** Publishes the end of a flush or a checkpoint. */
  durable(kind: 'flush' | 'checkpoint', durationMs: number, error: unknown): void {
    publish<DurabilityMessage>(kind === 'flush' ? FLUSH : CHECKPOINT, { target: this.#target, durationMs, error });
  }
}
