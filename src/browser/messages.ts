/**
 * The messages between a page, the worker that owns the device, and the workers of other tabs. They are plain data, so
 * that they can be cloned. In one direction, messages arrive in the order in which they were posted.
 */

import type { DeviceEvent, DeviceExtent, DeviceStatus, HydrateOptions } from '../device/types.ts';
import { CodError, type CodErrorJson, isCodError } from '../errors.ts';
import type { ImageFormat, SourceDescription } from './source-description.ts';
import type { SourceInspection } from './source-inspection.ts';

/** Bytes [offset, offset + length) of the device. */
interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Blocks [start, end) in `parts` equal parts. */
interface Parts {
  readonly start: number;
  readonly end: number;
  readonly parts: number;
}

interface Operation<Request, Answer> {
  readonly request: Request;
  readonly answer: Answer;
}

/** What the owner of the device does on request: the request and the answer of each operation. */
export interface Operations {
  read: Operation<Range, Uint8Array<ArrayBuffer>>;
  write: Operation<{ readonly offset: number; readonly bytes: Uint8Array<ArrayBuffer>; readonly fua: boolean }, void>;
  discard: Operation<Range, void>;
  writeZeroes: Operation<Range, void>;
  hydrateRange: Operation<Range, void>;
  extents: Operation<Range & { readonly limit: number }, readonly DeviceExtent[]>;
  flush: Operation<undefined, void>;
  checkpoint: Operation<undefined, void>;
  snapshot: Operation<{ readonly to: string }, void>;
  finish: Operation<undefined, void>;
  status: Operation<undefined, DeviceStatus>;
  setRate: Operation<{ readonly bytesPerSecond: number | undefined }, void>;
  pause: Operation<undefined, void>;
  resume: Operation<undefined, void>;
  countSynced: Operation<Parts, Float64Array>;
  countDirty: Operation<Parts, Float64Array>;
}

export type OperationName = keyof Operations;
export type RequestOf<Name extends OperationName> = Operations[Name]['request'];
export type AnswerOf<Name extends OperationName> = Operations[Name]['answer'];

/** A request on its way. The caller chooses `id`; only a call that is `abortable` is ever aborted. */
export type Call<Name extends OperationName = OperationName> = {
  [Each in Name]: {
    readonly kind: 'call';
    readonly id: number;
    readonly abortable: boolean;
    readonly op: Each;
    readonly request: RequestOf<Each>;
  };
}[Name];

/** To the owner of the device. */
export type ToDevice = Call | { readonly kind: 'abort'; readonly id: number };

/** The outcome of a call. Without an error, `value` is the answer of the operation with this `id`. */
export interface Answer {
  readonly kind: 'answer';
  readonly id: number;
  readonly value?: AnswerOf<OperationName>;
  readonly error?: WireError;
}

/** From the owner of the device. */
export type FromDevice =
  | Answer
  | { readonly kind: 'status'; readonly status: DeviceStatus }
  /** An event of the device; never the state `closed`, since another worker may become the owner. */
  | { readonly kind: 'event'; readonly event: DeviceEvent }
  | { readonly kind: 'hydrated'; readonly error?: WireError }
  /** The device refuses every call: its worker ends, so that the copy can be opened again. */
  | { readonly kind: 'poisoned'; readonly error: WireError }
  /** The copy is complete and its metadata removed: the device is closed for every page. */
  | { readonly kind: 'finished' };

/** The worker that owns the device. */
export interface DeviceOwner {
  /** The URL of its page. */
  readonly page: string;
  /** When the worker was started, in milliseconds since 1970. */
  readonly since: number;
}

/** What a page has to know of a device before its first call. */
export interface Welcome {
  readonly size: number;
  readonly blockSize: number;
  readonly status: DeviceStatus;
  readonly owner: DeviceOwner;
}

/** How a worker opens a device: plain data that the page sends to it. */
export interface WorkerOptions {
  /** Names the worker among those of the target. */
  readonly workerId: string;
  /** The URL of the worker's page. */
  readonly page: string;
  /** The image. */
  readonly source: SourceDescription | undefined;
  /** How the image is read. Default: as its bytes tell. */
  readonly format?: ImageFormat;
  /** Accepts another identity as the same content. Default: false. */
  readonly sameSource?: boolean;
  /** Name of the copy in `directory`. */
  readonly target: string;
  /** Path of the directory that holds the copy, with `/` between names; `''` is the root. */
  readonly directory: string;
  /** Whether the worker shares the device of another tab, or fails with COD_LOCKED. */
  readonly tabs: 'share' | 'refuse';
  /** Options of the background copy. False: no background copy. Default: `{}`. */
  readonly hydrate?: false | HydrateOptions;
  /** Bytes of a block: a power of two from 4096 to 2^26. A copy that resumes keeps its block size. Default: 4096. */
  readonly blockSize?: number;
  /** Milliseconds until the device makes a change durable by itself, above 0; Infinity: never. Default: 10,000. */
  readonly checkpointIntervalMs?: number;
}

/** From a page to its worker. */
export type ToWorker =
  | ToDevice
  | { readonly kind: 'start'; readonly options: WorkerOptions }
  | { readonly kind: 'inspect'; readonly source: SourceDescription; readonly format: ImageFormat | undefined }
  | { readonly kind: 'close' };

/** From a worker to its page. */
export type FromWorker =
  | FromDevice
  /** The worker runs and holds the lock whose release shows that the worker has ended. */
  | { readonly kind: 'started' }
  /** Calls are answered from now on. The page sends unanswered calls again: the previous owner may have ended. */
  | { readonly kind: 'ready'; readonly role: 'owner' | 'guest'; readonly welcome: Welcome }
  | { readonly kind: 'inspected'; readonly inspection: SourceInspection }
  | { readonly kind: 'failed'; readonly error: WireError }
  | { readonly kind: 'closed'; readonly error?: WireError };

/** What a source was when it was opened. */
export interface KnownSource {
  readonly size: number;
  readonly identity: string | undefined;
}

/** To all workers of one target. A source that cannot be opened now is unknown. */
export type ToWorkers =
  | { readonly kind: 'hello'; readonly workerId: string; readonly source: KnownSource | undefined }
  /** The sender owns the device. */
  | { readonly kind: 'announce' };

/** From the owner's worker to another worker. */
export type ToGuest =
  | FromDevice
  | { readonly kind: 'welcome'; readonly welcome: Welcome }
  /** The device is being opened. */
  | { readonly kind: 'opening'; readonly owner: DeviceOwner }
  | { readonly kind: 'refused'; readonly error: WireError };

/** The buffers of a request or an answer that are transferred instead of copied. */
export function buffersOf(data: RequestOf<OperationName> | AnswerOf<OperationName>): Transferable[] {
  if (data instanceof Uint8Array) return [data.buffer];
  return data !== undefined && 'bytes' in data ? [data.bytes.buffer] : [];
}

/** An error in a message: a `CodError` keeps class, code and details; errors of wrong arguments keep their class. */
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
