/**
 * One disk that a process serves: its device, its rate and its recording, from opening to closing. What belongs to the
 * process is in `serve.ts`: signals, the listener and the output.
 *
 *   prepared → open (the device) → served (the export) → closed
 */

import type { InlineDevice } from '../device/types.ts';
import { CodError, isCodError } from '../errors.ts';
import { type NbdExport, wrongName } from '../nbd/server/export.ts';
import type { ExportServer } from '../nbd/server/server.ts';
import { failureLine, failureOf, Interrupted, UsageError } from './failure.ts';
import { tell, tellEvent } from './log/told.ts';
import { type OrderRecording, recordOrder } from './order-file.ts';
import { RateControl, type RateFlags, rateHooks } from './rate-control.ts';
import { SERVED, type ServedMessage } from './served.ts';
import { syncedBytes } from './synced-bytes.ts';
import { followCopy, openTarget, shownSource, type TargetCopy, type TargetFlags, tellStart } from './target-device.ts';
import { Troubles } from './troubles.ts';
import { formatBytes } from './units.ts';

/** Clients wait so long for bytes that only an absent source has, without `--timeout`. */
const PATIENCE_S = 30;
/** Time between two reports of progress. */
const TICK_MS = 500;

/** Writes of clients change the digest. */
const VERIFICATION =
  'verify a complete copy without writes of clients by `copyondemand copy --sha256` with the same SOURCE and TARGET';

/** Options of one disk. */
export interface DiskFlags extends TargetFlags, RateFlags {
  /** Name of the export. Default: the empty name. */
  readonly export?: string;
  readonly readOnly?: boolean;
  /** False with `--no-hydrate`. */
  readonly hydrate: boolean;
  /** Path of an order file to write. */
  readonly recordOrder?: string;
}

/** A disk as it is to be served, and where its events go. */
export interface DiskCopy extends TargetCopy {
  readonly flags: DiskFlags;
  /** Whether something shows the progress. Default: as the options say. */
  readonly showsProgress?: boolean;
}

/** @throws {@link UsageError} if options exclude each other, or the name of the export is impossible. */
export function checkDiskFlags(flags: DiskFlags): void {
  const { export: name = '', hydrate, readOnly = false, rate, rateFile, rateGroup, order } = flags;
  if ((!hydrate || readOnly) && [rate, rateFile, rateGroup, order].some((flag) => flag !== undefined)) {
    throw new UsageError(
      '--rate, --rate-file, --rate-group and --order need the background copy, ' +
        `which ${hydrate ? '--read-only' : '--no-hydrate'} turns off`,
    );
  }
  const wrong = wrongName(name);
  if (wrong !== undefined) throw new UsageError(`--export: ${wrong}`);
}

export class ServedDisk {
  readonly #copy: DiskCopy;
  readonly #rate: RateControl | undefined;
  #recording: OrderRecording | undefined;
  #device: InlineDevice | undefined;
  #server: ExportServer | undefined;
  #closing: Promise<void> | undefined;

  /**
   * Reads the rate file and joins the group, and opens nothing.
   * @throws the errors of {@link RateControl}
   */
  constructor(copy: DiskCopy) {
    this.#copy = copy;
    const { flags, emit, target } = copy;
    if (flags.hydrate && !flags.readOnly) this.#rate = new RateControl(flags, rateHooks(emit, target));
  }

  get name(): string {
    return this.#copy.flags.export ?? '';
  }

  /** Bytes that the target holds. Undefined before the device was opened. */
  get bytes(): number | undefined {
    return this.#device && syncedBytes(this.#device.status());
  }

  /**
   * Opens the device, and begins or continues the background copy.
   * @throws the error of the source, the target or the options
   */
  async open(): Promise<void> {
    const { target, emit, progress, flags } = this.#copy;
    const { recordOrder: recordPath } = flags;
    const opening = openTarget({
      ...this.#copy,
      troubles: new Troubles({ target, emit, progress }, { isOpening: true }),
      rate: this.#rate,
      patienceMs: (flags.timeout ?? PATIENCE_S) * 1000,
      clients: () => this.#server?.clientsOf(this.name) ?? 0,
      ...(recordPath !== undefined && {
        onSize: async (size) => {
          this.#recording ??= await recordOrder(recordPath, size, tellRecordingEnded);
        },
        onRead: (offset: number, length: number) => this.#recording?.onRead(offset, length),
      }),
    });
    this.#device = await opening.catch(withRemedy);
  }

  /** What the server exports. To be called when the device is open. */
  get export(): NbdExport {
    return { device: this.#device!, readOnly: this.#copy.flags.readOnly ?? false };
  }

  /** Announces the export that `server` has now, and starts to control the rate. */
  announce(server: ExportServer): void {
    const { flags, emit } = this.#copy;
    const device = this.#device!;
    this.#server = server;
    this.#rate?.govern(device);
    tellStart(device, this.#copy, VERIFICATION);
    const uri = server.uri(this.name);
    emit('listening', { uri });
    SERVED.publish({
      export: this.name,
      target: this.#copy.target,
      source: shownSource(this.#copy.uri),
      uri,
    } satisfies ServedMessage);
    if (!flags.json) process.stdout.write(`listening on ${uri}\n`);
  }

  /**
   * Changes the rate of the background copy.
   * @throws the errors of {@link RateControl}; then nothing has changed
   */
  changeRate(flags: RateFlags): void {
    this.#rate?.change(flags);
  }

  /**
   * Reports progress until the copy is complete or cannot continue.
   * @throws {@link Interrupted} after a signal
   */
  async follow(): Promise<void> {
    const { target, flags, emit, progress, showsProgress = flags.json || !flags.quiet } = this.#copy;
    const device = this.#device!;
    try {
      await followCopy(device, this.#copy, { tickMs: showsProgress ? TICK_MS : undefined });
      if (!flags.quiet && !flags.json)
        tellEvent('notice', `${target}: complete, ${formatBytes(device.size)}; still serving`);
    } catch (error) {
      if (error instanceof Interrupted) throw error;
      // The device is poisoned. The same command recovers its durable state.
      progress.end();
      const { exitCode: _, ...fields } = failureOf(error);
      emit('failed', fields);
      if (!flags.json)
        tell('error', failureLine(failureOf(error)).replace(/\n$/, '; still serving, without the background copy'));
    }
  }

  /**
   * Ends the connections of its clients, takes a checkpoint and closes the device. Idempotent.
   * @throws the error of the device
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.#server?.remove(this.name);
      await this.#device?.close();
    } finally {
      this.#rate?.stop();
      await this.#recording?.close();
    }
  }
}

function tellRecordingEnded(error: unknown): void {
  tell('warning', `copyondemand: --record-order has stopped: ${failureOf(error).message}`);
}

/** Errors of a disk that takes no changes, by their errno. */
const NO_CHANGES: ReadonlySet<unknown> = new Set(['EROFS', 'EACCES', 'EPERM']);

/** Names `--read-only` in the error of a disk on which a copy cannot be opened for writing. */
function withRemedy(error: unknown): never {
  if (!isCodError(error)) throw error;
  const { code, message, details, cause } = error;
  if (code !== 'COD_NO_SPACE' && !NO_CHANGES.has(details['errno'])) throw error;
  const remedy = code === 'COD_NO_SPACE' ? 'make room, or serve' : 'serve';
  throw new CodError(code, `${message}; ${remedy} an existing copy with --read-only`, { details, cause });
}
