/**
 * `copyondemand serve --config FILE`: many disks from one process. SIGHUP reads the file again: disks that did not
 * change are not touched.
 */

import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { withSignal } from '../async/with-signal.ts';
import { type ControlledDisk, manyServer } from '../control/many.ts';
import { Listener } from '../nbd/server/listener.ts';
import { type ExportServer, serveAt } from '../nbd/server/server.ts';
import { systemClock } from '../platform/system-clock.ts';
import { type Config, type DiskConfig, readConfig } from './config-file.ts';
import { ConfiguredDisk, type DiskHost } from './configured-disk.ts';
import { emitError, failureLine, failureOf, Interrupted, UsageError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { type Emit, jsonLines } from './json-lines.ts';
import { asUsage, openListener, openTls, refusalReports } from './listening.ts';
import { tell, tellEvent } from './log/told.ts';
import type { Progress } from './progress.ts';
import { type ServiceManager, serviceManager } from './service-manager.ts';

/** Clients wait so long at the start for disks that are still being opened. Then those are served that are open. */
const START_MS = 5000;
/** Disks that are closed at the same time: each one writes and syncs its checkpoint. */
const CLOSING = 16;

/** Parsed options of the command with a file. */
export interface ConfigFlags {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Options of the command that the file does not replace. */
const ALLOWED: ReadonlySet<string> = new Set([
  'config',
  'json',
  'log',
  'metrics',
  'quiet',
  'verbose',
  'hydrate',
  'signRequest',
]);

/** @throws {@link UsageError} for options and arguments that belong into the file. */
export function refuseBeside(flags: Readonly<Record<string, unknown>>, args: readonly (string | undefined)[]): void {
  if (args.some((arg) => arg !== undefined)) throw new UsageError('--config names SOURCE and TARGET in its file');
  const other = Object.keys(flags).find((key) => !ALLOWED.has(key) || flags[key] === false);
  if (other !== undefined) throw new UsageError(`${JSON.stringify(other)} stands in the file of --config, as a key`);
}

/**
 * Serves the disks of a file until a signal arrives.
 * @throws the error of the file or the listener; the first error of a disk that could not be closed
 */
export async function serveConfig(path: string, flags: ConfigFlags): Promise<void> {
  const { json = false, quiet = false } = flags;
  const emit = jsonLines(process.stdout, { enabled: json });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  let listener: Listener | undefined;
  let control: Listener | undefined;
  let many: ManyDisks | undefined;
  const manager = serviceManager((message) => tell('warning', `copyondemand: ${message}`));
  try {
    const config = await readConfig(path);
    const secure = await openTls(config.listener);
    listener = await openListener(config.listener);
    if (config.control !== undefined) control = await asUsage(() => Listener.open({ socket: config.control! }));
    many = new ManyDisks(path, config, { json, quiet, emit, manager });
    const { controlled } = many;
    control?.take(manyServer(controlled));
    await many.serve(listener, secure, signal);
  } catch (error) {
    const told = manager.stopping();
    let reported: unknown = error;
    if (many === undefined) listener?.close();
    else reported = (await many.close()) ?? (error instanceof Interrupted ? undefined : error);
    await told;
    if (reported !== undefined) {
      emitError(emit, reported);
      throw reported;
    }
    emit('done', {});
  } finally {
    control?.close();
    interruption.stop();
  }
}

type Secure = (socket: Duplex) => Promise<Duplex>;

/** Where the events of the process go. */
interface Told {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly emit: Emit;
  readonly manager: ServiceManager;
}

/** The disks of the process, and the server of their exports. */
class ManyDisks {
  readonly #path: string;
  readonly #told: Told;
  readonly #host: DiskHost;
  readonly #disks = new Map<string, ConfiguredDisk>();
  #onServer!: (server: ExportServer) => void;
  #config: Config;
  #listener: Listener | undefined;
  #server: ExportServer | undefined;
  #secure: Secure | undefined;
  /** The reload that runs, or has run last. */
  #reloading: Promise<void> = Promise.resolve();
  #isReloadDue = false;
  #isClosing = false;

  constructor(path: string, config: Config, told: Told) {
    this.#path = path;
    this.#config = config;
    this.#told = told;
    const server = new Promise<ExportServer>((resolve) => (this.#onServer = resolve));
    this.#host = { ...told, progress: linesOnly(told), server };
  }

  /** Serves until the signal is aborted. The listener belongs to this object from now on. */
  async serve(listener: Listener, secure: Secure | undefined, signal: AbortSignal): Promise<never> {
    this.#listener = listener;
    this.#secure = secure;
    process.on('SIGHUP', this.#onHangup);
    this.#add(this.#config.disks);
    const tried = Promise.all([...this.#disks.values()].map((disk) => disk.tried));
    const started = new AbortController();
    const late = sleep(START_MS, undefined, { signal: started.signal }).catch(() => undefined);
    await withSignal(Promise.race([tried, late]), signal).finally(() => started.abort());
    this.#server = serveAt(listener, new Map(), secure && ((socket) => this.#secure!(socket)), {
      onRefused: refusalReports(this.#told.emit, this.#told),
      // While only one disk is open, a client without a name must not get this one.
      onlyIsDefault: false,
    });
    this.#onServer(this.#server);
    await systemClock.turn!();
    // The disks that are open have added their exports by now.
    this.#tellReady();
    return withSignal(new Promise<never>(() => undefined), signal);
  }

  /** Ends all clients, and closes all disks. Returns the first error. */
  async close(): Promise<unknown> {
    this.#isClosing = true;
    process.off('SIGHUP', this.#onHangup);
    if (this.#server === undefined) this.#listener?.close();
    else await this.#server.close();
    await this.#reloading;
    return this.#remove([...this.#disks.keys()]);
  }

  /** Returns what the control socket needs to know of the disks. */
  readonly controlled = (): ControlledDisk[] =>
    [...this.#disks.values()].map(({ config, problem }) => {
      const { name, target, flags } = config;
      return { name, target, metadata: flags.metadata ?? target, problem };
    });

  readonly #onHangup = (): void => {
    if (this.#isReloadDue || this.#isClosing) return;
    this.#isReloadDue = true;
    this.#reloading = this.#reloading.then(() => this.#reload());
  };

  async #reload(): Promise<void> {
    // A signal from now on may tell of a later change of the file.
    this.#isReloadDue = false;
    if (this.#isClosing) return;
    this.#told.manager.reloading();
    try {
      const config = await readConfig(this.#path);
      const secure = await openTls(config.listener);
      this.#checkListener(config);
      this.#secure = secure;
      await this.#apply(config);
    } catch (error) {
      const { exitCode: _, ...fields } = failureOf(error);
      this.#told.emit('reload-failed', fields);
      this.#say(failureLine(failureOf(error)).replace(/\n$/, '; nothing was changed'));
    }
    this.#told.manager.ready(() => this.#counts());
  }

  /** @throws {@link UsageError} for changes that need another listener */
  #checkListener({ listener: next, control }: Config): void {
    const { listener } = this.#config;
    if (control !== this.#config.control)
      throw new UsageError(`${this.#path}: restart the process to change "control"`);
    for (const key of ['socket', 'host', 'port'] as const) {
      if (next[key] !== listener[key]) throw new UsageError(`${this.#path}: restart the process to change "${key}"`);
    }
    if ((next.tlsCert === undefined) !== (listener.tlsCert === undefined))
      throw new UsageError(`${this.#path}: restart the process to switch TLS on or off`);
  }

  async #apply(config: Config): Promise<void> {
    const next = new Map(config.disks.map((disk) => [disk.name, disk]));
    const removed = [...this.#disks.keys()].filter((name) => !next.has(name));
    const changed = [...this.#disks.values()]
      .filter((disk) => next.has(disk.config.name) && !this.#change(disk, next.get(disk.config.name)!))
      .map((disk) => disk.config.name);
    this.#config = config;
    // The names and targets of these may be those of others in the file.
    await this.#remove([...removed, ...changed]);
    if (this.#isClosing) return;
    const added = config.disks.filter(({ name }) => !this.#disks.has(name));
    for (const disk of this.#disks.values()) disk.retry();
    this.#add(added);
    const counts = {
      added: added.length - changed.length,
      removed: removed.length,
      reopened: changed.length,
      kept: config.disks.length - added.length,
    };
    this.#told.emit('reloaded', counts);
    const { added: plus, reopened, kept } = counts;
    this.#say(
      `copyondemand: ${this.#path}: ${plus} disks added, ${removed.length} removed, ${reopened} reopened, ${kept} kept`,
    );
  }

  /** Returns whether the disk has its new configuration without being closed. */
  #change(disk: ConfiguredDisk, next: DiskConfig): boolean {
    try {
      return disk.change(next);
    } catch (error) {
      // A rate file or group that cannot be used. The disk keeps its rate.
      this.#report(error);
      return true;
    }
  }

  #add(disks: readonly DiskConfig[]): void {
    for (const disk of disks) this.#disks.set(disk.name, new ConfiguredDisk(disk, this.#host));
  }

  /** Closes disks, some at a time. Returns the first error; a disk that could not be closed is gone too. */
  async #remove(names: readonly string[]): Promise<unknown> {
    const left = [...names];
    const errors: unknown[] = [];
    const work = async (): Promise<void> => {
      for (let name = left.shift(); name !== undefined; name = left.shift()) {
        try {
          await this.#disks.get(name)!.close();
        } catch (error) {
          errors.push(error);
          this.#report(error);
        }
        this.#disks.delete(name);
      }
    };
    await Promise.all(Array.from({ length: CLOSING }, work));
    return errors[0];
  }

  #tellReady(): void {
    this.#told.emit('ready', { disks: this.#disks.size, serving: this.#serving() });
    this.#say(`copyondemand: ${this.#counts()}`);
    this.#told.manager.ready(() => this.#counts());
  }

  #serving(): number {
    return [...this.#disks.values()].filter(({ isServed }) => isServed).length;
  }

  #counts(): string {
    return `serving ${this.#serving()} of ${this.#disks.size} disks of ${this.#path}`;
  }

  #report(error: unknown): void {
    const { exitCode: _, ...fields } = failureOf(error);
    this.#told.emit('failed', fields);
    if (!this.#told.json) tell('error', failureLine(failureOf(error)));
  }

  #say(line: string): void {
    const { json, quiet } = this.#told;
    if (!json && !quiet) tell('info', line);
  }
}

/** Prints the lines of many disks, and no progress. */
function linesOnly({ json, quiet }: { json: boolean; quiet: boolean }): Progress {
  return {
    begin: async () => {},
    update: () => {},
    note: (text) => void (json || quiet || tellEvent('warning', text)),
    end: () => {},
  };
}
