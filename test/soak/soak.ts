/**
 * Copies one image after another from a source with faults, while users work. Devices are closed and opened again at
 * any time. Independent of the clock.
 *
 * Checked are: each byte that is read; that what is here is never refused; that a copy completes by itself; that each
 * fault is reported, and its end too; that `close` ends promptly.
 */

import { openDeviceIn } from '../../src/device/open.ts';
import { patienceOf } from '../../src/device/patience.ts';
import { type Clock, CodError, type Device, type DeviceEvent, type FileSystem, type Source } from '../../src/index.ts';
import { type Random, SECTOR_BYTES } from '../../src/testing/index.ts';
import { ByteHistory } from '../support/byte-history.ts';
import type { Phase, Weather } from './weather.ts';

export interface SoakOptions<Kind extends string> {
  readonly clock: Clock;
  readonly random: Random;
  readonly fileSystem: FileSystem;
  readonly weather: Weather<Kind>;
  readonly imageBytes: number;
  /** The weather ends after this time. The copy that is being made then must complete. */
  readonly lengthMs: number;
  /** The longest life of a device, and the longest wait of a user between two calls. */
  readonly lifeMs: number;
  readonly pauseMs: number;
  /** A failed request is reported within this time. */
  readonly noticeMs: number;
  /** The end of a device takes at most this long. Default: any time. */
  readonly endMs?: number;
  /** Whether a fault of this kind must be reported. */
  isTold(kind: Kind): boolean;
  /** Makes the server hold an image. Returns its identity, and what opens it. */
  publish(bytes: Uint8Array, copy: number): Published;
}

/** An image on the server. */
interface Published {
  readonly identity: string;
  /** @param onRetry is called for each request that the source tries again by itself */
  open(onRetry: () => void): Promise<Source>;
}

/** What a run did. */
export interface SoakFigures {
  copies: number;
  lives: number;
  reads: number;
  rejectedReads: number;
  writes: number;
  events: Record<string, number>;
}

const BLOCK = 4096;
const USERS = 3;
/** Errors of a source, which a call for missing bytes may report. */
const SOURCE_ERRORS: readonly string[] = ['COD_SOURCE_IO', 'COD_NOT_FOUND', 'COD_SHORT_READ', 'COD_SOURCE_CHANGED'];
interface Told {
  readonly atMs: number;
  readonly type: DeviceEvent['type'] | 'rejected';
  readonly code?: string;
}

/** Runs until the time is over and the last copy is complete. @throws what is wrong. */
export async function soak<Kind extends string>(options: SoakOptions<Kind>): Promise<SoakFigures> {
  const figures: SoakFigures = { copies: 0, lives: 0, reads: 0, rejectedReads: 0, writes: 0, events: {} };
  const over = new AbortController();
  const { clock, lengthMs, weather } = options;
  const end = clock.now() + lengthMs;
  const ending = clock.sleep(lengthMs, over.signal).then(
    () => weather.end(),
    () => undefined,
  );
  try {
    while (clock.now() < end) await new Copy(options, figures).make();
  } finally {
    over.abort();
    await ending;
  }
  return figures;
}

class Copy<Kind extends string> {
  readonly #options: SoakOptions<Kind>;
  readonly #figures: SoakFigures;
  readonly #image: Published;
  readonly #size: number;
  readonly #history: ByteHistory;
  readonly #target: string;
  #isNew = true;
  /** What sources reported while they were being opened: the device has no source then that it could hear. */
  readonly #openingTold: Told[] = [];

  constructor(options: SoakOptions<Kind>, figures: SoakFigures) {
    const { random, imageBytes, publish } = options;
    this.#options = options;
    this.#figures = figures;
    figures.copies++;
    const bytes = random.fill(new Uint8Array(imageBytes - random.below(BLOCK)));
    this.#size = bytes.length;
    this.#image = publish(bytes, figures.copies);
    this.#history = new ByteHistory(bytes);
    this.#target = `disk${figures.copies}`;
  }

  /** Makes the copy, in any number of lives of a device. */
  async make(): Promise<void> {
    const { fileSystem } = this.#options;
    while (!(await this.#live()));
    const file = await fileSystem.open(this.#target);
    const bytes = new Uint8Array(await file.size());
    await file.read(bytes, 0);
    await file.close();
    this.#check(this.#history.violation(bytes, 'acknowledged'), 'the finished target');
    await fileSystem.remove(this.#target);
  }

  /** Opens a device, and closes it. Returns whether the copy is complete and finished. */
  async #live(): Promise<boolean> {
    const { clock, random, lifeMs, weather, endMs = Number.POSITIVE_INFINITY } = this.#options;
    const device = await this.#opened();
    this.#figures.lives++;
    const openedMs = clock.now();
    const told: Told[] = [];
    const following = this.#follow(device, told);
    const stop = new AbortController();
    const users = Array.from({ length: USERS }, () => this.#use(device, told, random.fork(), stop.signal));
    // A user that finds a fault ends the life.
    const failed = Promise.race(users).then(() => new Promise<never>(() => undefined));
    const isLast = weather.now.endMs === Number.POSITIVE_INFINITY;
    const life = random.oneIn(4) || isLast ? Number.POSITIVE_INFINITY : 1 + random.below(lifeMs);
    const ended = clock.sleep(life, stop.signal).then(
      () => 'closed' as const,
      () => 'closed' as const,
    );
    const how = await Promise.race([device.hydrated.then(() => 'hydrated' as const), ended, failed]);
    if (how === 'hydrated') {
      const last = told.findLast(({ type }) => type === 'retry' || type === 'recovered');
      if (last !== undefined && last.type !== 'recovered')
        throw new Error(`the copy is complete, but its last report is ${JSON.stringify(last)}`);
      // A complete copy needs no source.
      await Promise.race([clock.sleep(random.below(lifeMs / 5)), failed]);
      stop.abort();
      await Promise.all(users);
    }
    const closedMs = clock.now();
    await (how === 'hydrated' ? device.finish() : device.close());
    stop.abort();
    await Promise.all(users);
    await following;
    const tookMs = clock.now() - closedMs;
    if (tookMs > endMs) throw new Error(`the end of the device took ${tookMs} ms`);
    if (how === 'closed') await device.hydrated.catch((error: unknown) => this.#expect(error, ['COD_CLOSED']));
    this.#checkReports(told, openedMs, closedMs);
    return how === 'hydrated';
  }

  /** A new copy needs its source once, and takes any image for the right one. */
  async #opened(): Promise<Device> {
    const { clock, random, fileSystem, pauseMs } = this.#options;
    const source = async (): Promise<Source> => {
      let isOpen = false;
      const source = await this.#image.open(() => {
        if (!isOpen) this.#openingTold.push({ atMs: clock.now(), type: 'retry' });
      });
      isOpen = true;
      const isRight = source.identity === this.#image.identity && source.size === this.#size;
      if (!this.#isNew || isRight) return source;
      await source.close();
      throw new CodError('COD_SOURCE_IO', 'not the image that was published');
    };
    for (;;) {
      try {
        const device = await openDeviceIn(
          { clock, randomBytes: (into) => random.fill(into) },
          { source, fileSystem, target: this.#target },
          random.oneIn(2) ? { patience: patienceOf(random.below(20) * pauseMs) } : {},
        );
        this.#isNew = false;
        return device;
      } catch (error) {
        this.#expect(error, SOURCE_ERRORS);
        await clock.sleep(random.below(pauseMs));
      }
    }
  }

  async #follow(device: Device, told: Told[]): Promise<void> {
    const { clock } = this.#options;
    let retries = 0;
    for await (const event of device.events()) {
      this.#figures.events[event.type] = (this.#figures.events[event.type] ?? 0) + 1;
      told.push({ atMs: clock.now(), type: event.type, ...('code' in event ? { code: event.code } : {}) });
      if (event.type === 'lost' || event.type === 'error') throw new Error(`event ${JSON.stringify(event)}`);
      if (event.type !== 'retry') continue;
      retries++;
      if (event.message === '' || !/^COD_/.test(event.code)) throw new Error(`event ${JSON.stringify(event)}`);
    }
    if (device.status().retries !== retries) throw new Error(`${device.status().retries} retries, ${retries} told`);
  }

  /** Reads, writes and flushes at random, until the signal is aborted or the device closed. */
  async #use(device: Device, told: Told[], random: Random, signal: AbortSignal): Promise<void> {
    const { clock, pauseMs } = this.#options;
    while (!signal.aborted) {
      try {
        await this.#step(device, told, random);
      } catch (error) {
        if (error instanceof CodError && error.code === 'COD_CLOSED') return;
        throw error;
      }
      await clock.sleep(random.below(pauseMs), signal).catch(() => undefined);
    }
  }

  async #step(device: Device, told: Told[], random: Random): Promise<void> {
    const unit = random.oneIn(2) ? BLOCK : SECTOR_BYTES;
    const offset = random.below(Math.ceil(device.size / unit)) * unit;
    const length = Math.min(device.size - offset, unit * (1 + random.below(8)));
    switch (random.below(8)) {
      case 0:
        return device.flush();
      case 1:
        return device.checkpoint();
      case 2:
      case 3:
        return this.#write(device, offset, random.fill(new Uint8Array(length)), random.oneIn(4));
      default:
        return this.#read(device, offset, length, told);
    }
  }

  async #write(device: Device, offset: number, bytes: Uint8Array, fua: boolean): Promise<void> {
    this.#figures.writes++;
    const write = this.#history.begin(offset, bytes);
    try {
      await device.write(bytes, offset, { fua });
    } catch (error) {
      this.#history.fail(write);
      throw error;
    }
    this.#history.acknowledge(write);
  }

  async #read(device: Device, offset: number, length: number, told: Told[]): Promise<void> {
    this.#figures.reads++;
    const isHere = (await device.extents(offset, length, length)).every(({ state }) => state === 'synced');
    const bytes = new Uint8Array(length);
    const check = this.#history.beginRead(offset);
    try {
      await device.read(bytes, offset);
    } catch (error) {
      if (error instanceof CodError && error.code === 'COD_CLOSED') throw error;
      if (isHere) throw new Error(`a read of what is here was refused: ${error}`, { cause: error });
      this.#expect(error, SOURCE_ERRORS);
      this.#figures.rejectedReads++;
      told.push({ atMs: this.#options.clock.now(), type: 'rejected' });
      return;
    }
    this.#check(check(bytes), `a read of ${length} bytes at ${offset}`);
  }

  /** Checks that each fault which a request met for long enough was reported. */
  #checkReports(told: readonly Told[], openedMs: number, closedMs: number): void {
    const { weather, noticeMs, isTold } = this.#options;
    for (const phase of weather.phases) {
      const isWhole = phase.endMs <= closedMs - noticeMs;
      if (phase.kind === 'fair' || phase.isCut || !isTold(phase.kind) || !isWhole) continue;
      const hits = phase.hits.filter((atMs) => atMs >= openedMs);
      // A request that is sent twice, or that its reader gives up, may meet a fault silently.
      if (hits.length < 3) continue;
      const isReport = ({ type, atMs }: Told): boolean =>
        ['retry', 'rejected', 'source-changed'].includes(type) && atMs >= hits[0]! && atMs <= phase.endMs + noticeMs;
      if (![...told, ...this.#openingTold].some(isReport)) throw new Error(`not reported: ${describe(phase)}`);
    }
  }

  #expect(error: unknown, codes: readonly string[]): void {
    if (!(error instanceof CodError && codes.includes(error.code))) throw error;
  }

  #check(wrong: string | undefined, what: string): void {
    if (wrong !== undefined) throw new Error(`${what}: ${wrong}`);
  }
}

function describe({ kind, startMs, endMs, hits }: Phase<string>): string {
  return `${kind} from ${startMs} to ${endMs}, met at ${hits.slice(0, 5).join(', ')} …`;
}
