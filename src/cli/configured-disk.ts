/**
 * One disk of `serve --config`, for as long as it stands in the file: it is opened, and opened again until that
 * succeeds; then it is exported until it is closed. Its faults are no other disk's.
 *
 * Invariant: clients find the export exactly while the device is open.
 */

import { withSignal } from '../async/with-signal.ts';
import type { ExportServer } from '../nbd/server/server.ts';
import { systemEnvironment } from '../platform/environment.ts';
import type { DiskConfig } from './config-file.ts';
import { failureOf, Interrupted } from './failure.ts';
import type { Emit } from './json-lines.ts';
import type { Progress } from './progress.ts';
import { ServedDisk } from './served-disk.ts';
import { tellOnSignal } from './status-signal.ts';
import { Troubles } from './troubles.ts';

/** The first delay before a disk is opened again. It doubles, and is random within its half and itself. */
const RETRY_MS = 1000;
const MAX_RETRY_MS = 60_000;

/** What the process gives to each of its disks. */
export interface DiskHost {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly emit: Emit;
  /** Prints lines of text. */
  readonly progress: Progress;
  /** Resolves when exports may be added. */
  readonly server: Promise<ExportServer>;
}

export class ConfiguredDisk {
  /** Resolves when the disk has been opened, or could not be at the first attempt. */
  readonly tried: Promise<void>;
  readonly #host: DiskHost;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #config: DiskConfig;
  #disk: ServedDisk | undefined;
  #isServed = false;
  #problem: string | undefined = 'it is being opened';
  #wake = new AbortController();
  #onTried: () => void = () => undefined;

  constructor(config: DiskConfig, host: DiskHost) {
    this.#config = config;
    const { name } = config;
    this.#host = { ...host, emit: (event, fields) => host.emit(event, { export: name, ...fields }) };
    this.tried = new Promise((resolve) => (this.#onTried = resolve));
    this.#running = this.#run();
  }

  get config(): DiskConfig {
    return this.#config;
  }

  /** Whether clients find the export. */
  get isServed(): boolean {
    return this.#isServed;
  }

  /** Why it is not open. Undefined: it is. */
  get problem(): string | undefined {
    return this.#isServed ? undefined : this.#problem;
  }

  /** Tries to open the disk now, if the last attempt has failed. */
  retry(): void {
    this.#wake.abort();
  }

  /**
   * Takes another configuration, if only its rates differ and the disk is open. Returns false if the disk has to be
   * closed for it.
   * @throws the errors of `RateControl`; then nothing has changed
   */
  change(config: DiskConfig): boolean {
    if (config.identity !== this.#config.identity) return false;
    if (config.rates === this.#config.rates) return true;
    if (!this.#isServed) return false;
    this.#disk!.changeRate(config.flags);
    this.#config = config;
    return true;
  }

  /**
   * Ends its clients, takes a checkpoint and closes the device.
   * @throws the error of the device
   */
  async close(): Promise<void> {
    this.#stop.abort(new Interrupted(`${this.#config.target} is closed`));
    this.#wake.abort();
    await this.#running;
    this.#isServed = false;
    const bytes = this.#disk?.bytes;
    await this.#disk?.close();
    this.#host.emit('closed', { bytes });
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const disk = await this.#open();
    this.#onTried();
    const server = await withSignal(this.#host.server, signal).catch(() => undefined);
    if (disk === undefined || server === undefined || signal.aborted) return;
    server.add(disk.name, disk.export);
    this.#isServed = true;
    disk.announce(server);
    // It ends with the copy, or is interrupted.
    await disk.follow().catch(() => undefined);
  }

  /** Returns undefined if the disk is closed before. */
  async #open(): Promise<ServedDisk | undefined> {
    const { signal } = this.#stop;
    const { emit, progress } = this.#host;
    const troubles = new Troubles({ target: this.#config.target, emit, progress });
    for (let attempt = 1; !signal.aborted; attempt++) {
      try {
        await this.#attempt();
        if (attempt > 1) troubles.recovered();
        return this.#disk;
      } catch (error) {
        await this.#disk?.close().catch(() => undefined);
        this.#disk = undefined;
        if (signal.aborted) break;
        const delayMs = delayOf(attempt);
        const { code, message } = failureOf(error);
        troubles.retry({ type: 'retry', code, message, attempt, delayMs });
        this.#problem = `${code}: ${message}`;
        this.#onTried();
        const forget = tellOnSignal(() => `${this.#config.target}: not open, ${code}: ${message}\n`);
        await this.#pause(delayMs);
        forget();
      }
    }
    return undefined;
  }

  async #attempt(): Promise<void> {
    const { uri, target, flags } = this.#config;
    const { json, quiet, emit, progress } = this.#host;
    this.#disk = new ServedDisk({
      ...{ uri, target, emit, progress },
      flags: { ...flags, json, quiet },
      signal: this.#stop.signal,
      showsProgress: json,
    });
    await this.#disk.open();
  }

  async #pause(delayMs: number): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#wake = new AbortController();
    await systemEnvironment.clock.sleep(delayMs, this.#wake.signal).catch(() => undefined);
  }
}

function delayOf(attempt: number): number {
  const longest = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** (attempt - 1));
  return Math.round(longest * (0.5 + Math.random() / 2));
}
