/**
 * What a page, the worker that has the device, and the workers of other tabs say to each other. Plain data, so that it can be cloned; in one direction messages
 * arrive in the order in which they were posted.
 */

import type { DeviceStatus } from '../device/device.ts';
import type { HydrateOptions } from '../device/types.ts';
import { CodError, type CodErrorJson, isCodError } from '../errors.ts';
import type { SourceDescription } from './source-description.ts';

/** What a device is asked to do. */
export type Operation =
  | { readonly op: 'read'; readonly offset: number; readonly length: number }
  | { readonly op: 'write'; readonly offset: number; readonly bytes: Uint8Array<ArrayBuffer>; readonly fua: boolean }
  | { readonly op: 'discard' | 'writeZeroes'; readonly offset: number; readonly length: number }
  | { readonly op: 'flush' | 'checkpoint' | 'finish' | 'status' }
  | {
      readonly op: 'countSynced' | 'countDirty';
      readonly start: number;
      readonly end: number;
      readonly stretches: number;
    }
  | { readonly op: 'setRate'; readonly bytesPerSecond: number | undefined };

/** To whoever has the device. `id` is the caller's own; only what is `abortable` is ever aborted. */
export type ToDevice =
  | { readonly kind: 'call'; readonly id: number; readonly abortable: boolean; readonly operation: Operation }
  | { readonly kind: 'abort'; readonly id: number };

/** From whoever has the device. */
export type FromDevice =
  | { readonly kind: 'answer'; readonly id: number; readonly value?: unknown; readonly error?: WireError }
  | { readonly kind: 'status'; readonly status: DeviceStatus }
  | { readonly kind: 'hydrated'; readonly error?: WireError }
  /** The copy is complete and its metadata removed: the device is no more. */
  | { readonly kind: 'finished' };

/** Who has the device. */
export interface DeviceOwner {
  /** The address of its page. */
  readonly page: string;
  /** When its worker was started, in ms since 1970. */
  readonly since: number;
}

/** The device as whoever is served with it needs to know it. */
export interface Welcome {
  readonly size: number;
  readonly blockSize: number;
  readonly status: DeviceStatus;
  /** Names the boot; see lock-names.ts. */
  readonly bootId: string;
  readonly owner: DeviceOwner;
}

/** How a worker is told to open a device. */
export interface WorkerOptions {
  readonly workerId: string;
  readonly page: string;
  readonly source: SourceDescription;
  readonly target: string;
  readonly directory: string;
  readonly tabs: 'share' | 'refuse';
  readonly hydrate?: false | HydrateOptions;
  readonly blockSize?: number;
  readonly checkpointIntervalMs?: number;
}

/** From a page to its worker. */
export type ToWorker =
  | ToDevice
  | { readonly kind: 'start'; readonly options: WorkerOptions }
  | { readonly kind: 'close' };

/** From a worker to its page. */
export type FromWorker =
  | FromDevice
  /** It runs, and holds the lock by which its end is noticed. */
  | { readonly kind: 'started' }
  /** Calls are answered from now on. Those that are unanswered must be sent again: whoever was to answer them may be gone. */
  | { readonly kind: 'ready'; readonly role: 'owner' | 'guest'; readonly welcome: Welcome }
  | { readonly kind: 'failed'; readonly error: WireError }
  | { readonly kind: 'closed'; readonly error?: WireError };

/** To all workers of one target. */
export type ToWorkers =
  | { readonly kind: 'hello'; readonly workerId: string; readonly size: number; readonly identity: string | undefined }
  /** The sender has the device open. */
  | { readonly kind: 'announce' };

/** From the worker that has the device to another. */
export type ToGuest =
  | FromDevice
  | { readonly kind: 'welcome'; readonly welcome: Welcome }
  /** The device is being opened. */
  | { readonly kind: 'opening'; readonly owner: DeviceOwner }
  | { readonly kind: 'refused'; readonly error: WireError };

/** An error on its way: a `CodError` keeps class and code, the errors of wrong arguments their class. */
export type WireError = CodErrorJson | { readonly name: string; readonly message: string };

export function toWire(error: unknown): WireError {
  if (isCodError(error)) return error.toJSON();
  return error instanceof Error
    ? { name: error.name, message: error.message }
    : { name: 'Error', message: String(error) };
}

export function fromWire(error: WireError): Error {
  if ('code' in error) return CodError.fromJSON(error);
  if (error.name === 'RangeError') return new RangeError(error.message);
  if (error.name === 'TypeError') return new TypeError(error.message);
  return Object.assign(new Error(error.message), { name: error.name });
}
