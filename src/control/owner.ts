/** What the owner of a copy answers: its status, and commands that steer its background copy. */

import { basename } from 'node:path';
import type { MaybePromise } from '../async/done.ts';
import type { DeviceEvent, InlineDevice } from '../device/types.ts';
import { CodError, isCodError } from '../errors.ts';
import type { LeaseOwner } from '../fs/file-system.ts';
import type { CopyPaths } from '../fs/node.ts';
import { directoryOf } from './paths.ts';
import type { Answers, Request } from './server.ts';
import { type CopyFailure, type CopyStatus, MAX_CELLS, UNKNOWN } from './status.ts';

/** What a program knows of a copy beside its device. */
export interface OwnerFacts {
  /** The source, without query and credentials. */
  readonly source?: string | null;
  /** Returns the number of clients that use the copy. */
  readonly clients?: (() => number) | undefined;
  /** Sets the rate in the place of the device. */
  readonly rate?: { readonly path: string | undefined; set(rate: number | undefined): void } | undefined;
}

/** A failure, and when the next attempt begins. */
type Trouble = Pick<CopyFailure, 'code' | 'message'> & { readonly delayMs?: number };

export class OwnedCopy implements Answers {
  readonly #owner: LeaseOwner;
  readonly #paths: CopyPaths;
  readonly #facts: OwnerFacts;
  readonly #since: string = new Date().toISOString();
  #failure: CopyFailure | undefined;
  /** Milliseconds since 1970. */
  #nextAttempt: number | undefined;

  /**
   * Follows the events of the copy.
   * @param paths of the target and of its metadata
   */
  constructor(owner: LeaseOwner, paths: CopyPaths, facts: OwnerFacts = {}) {
    this.#owner = owner;
    this.#paths = paths;
    this.#facts = facts;
    void this.#follow();
  }

  async #follow(): Promise<void> {
    for await (const event of this.events(new AbortController().signal)) {
      if (event.type === 'retry' || event.type === 'error' || event.type === 'source-changed') this.failed(event);
      else if (event.type === 'recovered') this.recovered();
    }
  }

  /** Remembers a failure. */
  failed({ code, message, delayMs }: Trouble): void {
    const now = Date.now();
    this.#failure = { code, message, time: new Date(now).toISOString(), recoveredAt: null };
    this.#nextAttempt = delayMs === undefined ? undefined : now + delayMs;
  }

  /** What failed is over. */
  recovered(): void {
    this.#nextAttempt = undefined;
    if (this.#failure?.recoveredAt === null)
      this.#failure = { ...this.#failure, recoveredAt: new Date().toISOString() };
  }

  get #device(): InlineDevice | undefined {
    return this.#owner.device as InlineDevice | undefined;
  }

  /** @param cells the most cells of the map; 0: none */
  status(cells = 0): CopyStatus {
    const { source = null, clients, rate } = this.#facts;
    const known = {
      ...UNKNOWN,
      target: this.#owner.target,
      pid: process.pid,
      source,
      metadata: this.#paths.metadata,
      rateFile: rate?.path ?? null,
      lastError: this.#failure ?? null,
      nextAttemptAt: this.#nextAttempt === undefined ? null : new Date(this.#nextAttempt).toISOString(),
      clients: clients?.() ?? null,
      since: this.#since,
    };
    const device = this.#device;
    if (device === undefined) return { ...known, state: 'opening' };
    const { hydrateBytesPerSecond, rateBytesPerSecond = null, sourceBytes: _, ...status } = device.status();
    const bytesPerSecond = Math.round(hydrateBytesPerSecond);
    const missing = Math.max(0, status.totalBlocks - status.syncedBlocks) * status.blockSize;
    return {
      ...known,
      ...status,
      bytesPerSecond,
      rateBytesPerSecond,
      secondsLeft: missing === 0 ? 0 : bytesPerSecond > 0 ? Math.ceil(missing / bytesPerSecond) : null,
      paused: status.state === 'paused',
      map: cells > 0 ? mapOf(device, Math.min(cells, MAX_CELLS)) : null,
    };
  }

  answer(command: string, request: Request): MaybePromise<object> | undefined {
    if (command === 'status') return this.status(cellsOf(request['cells']));
    if (command === 'snapshot') return this.#snapshot(this.#open(), request);
    if (command !== 'pause' && command !== 'resume' && command !== 'set-rate') return undefined;
    const device = this.#open();
    const { state } = device.status();
    if (state === 'poisoned') throw new CodError('COD_POISONED', 'the copy has failed: start its process again');
    if (state === 'idle') throw new CodError('COD_UNSUPPORTED', 'this process serves without a background copy');
    if (command === 'pause') device.pause();
    else if (command === 'resume') device.resume();
    else {
      const rate = rateOf(request['rate']);
      if (this.#facts.rate === undefined) device.setRate(rate);
      else this.#facts.rate.set(rate);
    }
    return this.status();
  }

  events(signal: AbortSignal): AsyncIterable<DeviceEvent> {
    return this.#owner.events({ signal }) as AsyncIterable<DeviceEvent>;
  }

  #open(): InlineDevice {
    const device = this.#device;
    if (device !== undefined) return device;
    throw new CodError('COD_NOT_RUNNING', `${this.#owner.target} is being opened; try again`);
  }

  async #snapshot(device: InlineDevice, { directory, name }: Request): Promise<object> {
    const { target } = this.#owner;
    // Only in this directory: another one may be closed to the client.
    if (typeof name !== 'string' || name !== basename(name) || directory !== directoryOf(this.#paths.target)) {
      const message = `a snapshot of ${target} must be in ${directoryOf(this.#paths.target)}`;
      throw new CodError('COD_UNSUPPORTED', message, { details: { target } });
    }
    await device.snapshot(target.slice(0, target.length - basename(target).length) + name);
    return { target, pid: process.pid };
  }
}

function cellsOf(cells: unknown): number {
  return Number.isInteger(cells) ? (cells as number) : 0;
}

function rateOf(rate: unknown): number | undefined {
  if (rate === null) return undefined;
  if (typeof rate === 'number' && rate > 0 && rate < Number.POSITIVE_INFINITY) return rate;
  throw new CodError('COD_UNSUPPORTED', `${JSON.stringify(rate)} is not a rate in bytes per second`);
}

function mapOf(device: InlineDevice, cells: number): string | null {
  const { totalBlocks } = device.status();
  const count = Math.min(cells, totalBlocks);
  const startOf = (cell: number): number => Math.floor((totalBlocks * cell) / count);
  try {
    const { synced, dirty } = device.countBlocks(0, totalBlocks, count);
    return Array.from(synced, (blocks, cell) => {
      if (dirty[cell]! > 0) return '!';
      if (blocks === 0) return '.';
      return blocks === startOf(cell + 1) - startOf(cell) ? '#' : '+';
    }).join('');
  } catch (error) {
    // The device is closed, or its maps are lost.
    if (isCodError(error)) return null;
    throw error;
  }
}
