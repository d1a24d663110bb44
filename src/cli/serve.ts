/**
 * `copyondemand serve`: serves a source over NBD while it is copied, and after the copy is complete. It resumes after
 * crashes and restarts. A copy that exists is served before its source is there, and without it.
 */

import { readFile } from 'node:fs/promises';
import { withSignal } from '../async/with-signal.ts';
import type { Device, InlineDevice } from '../device/types.ts';
import { CodError, isCodError } from '../errors.ts';
import { wrongName } from '../nbd/server/export.ts';
import { Listener, type NbdAddress } from '../nbd/server/listener.ts';
import { type NbdServer, serveAt } from '../nbd/server/server.ts';
import { tlsServer } from '../nbd/server/tls.ts';
import { ioError } from '../platform/errno.ts';
import { emitError, failureLine, failureOf, Interrupted, UsageError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { type Emit, jsonLines } from './json-lines.ts';
import { type OrderRecording, recordOrder } from './order-file.ts';
import { progressFor } from './progress.ts';
import { RateControl, type RateFlags, rateHooks } from './rate-control.ts';
import { parseSourceUri } from './source-uri.ts';
import { syncedBytes } from './synced-bytes.ts';
import { checkTarget, followCopy, openTarget, type TargetCopy, type TargetFlags, tellStart } from './target-device.ts';
import { Troubles } from './troubles.ts';
import { formatBytes } from './units.ts';

const TICK_MS = 500;
/** Clients wait so long for bytes that only an absent source has, without `--timeout`. */
const PATIENCE_S = 30;
/** Time between two reports of refused clients, since a client may always try again. */
const REFUSAL_REPORT_MS = 60_000;

/** Writes of clients change the digest. */
const VERIFICATION =
  'verify a complete copy without writes of clients by `copyondemand copy --sha256` with the same SOURCE and TARGET';

/** Parsed options of the command. */
export interface ServeFlags extends TargetFlags, RateFlags {
  readonly socket?: string;
  readonly host?: string;
  readonly port?: number;
  readonly export?: string;
  readonly readOnly?: boolean;
  /** False with `--no-hydrate`. */
  readonly hydrate: boolean;
  /** Path of an order file to write. */
  readonly recordOrder?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
}

/**
 * Serves until a signal arrives.
 * @param sourceText undefined: serves a copy that exists without its source
 * @throws the error of the options, the listener, the source or the device.
 */
export async function serve(sourceText: string | undefined, target: string, flags: ServeFlags): Promise<void> {
  const uri = sourceText === undefined ? undefined : parseSourceUri(sourceText);
  checkTarget(target);
  checkFlags(flags);
  const emit = jsonLines(process.stdout, { enabled: flags.json === true });
  const progress = progressFor(process.stderr, { quiet: flags.quiet === true || flags.json === true });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  let listener: Listener | undefined;
  let device: InlineDevice | undefined;
  let server: NbdServer | undefined;
  let rate: RateControl | undefined;
  let recording: OrderRecording | undefined;
  try {
    if (flags.hydrate && !flags.readOnly) rate = new RateControl(flags, rateHooks(emit));
    const secure = await openTls(flags);
    // Listens before the device is opened: an address that cannot be used must not begin a copy. Early clients wait.
    listener = await openListener(flags);
    const { recordOrder: recordPath } = flags;
    const opening = openTarget({
      troubles: new Troubles({ target, emit, progress }, { isOpening: true }),
      uri,
      target,
      flags,
      signal,
      rate,
      patienceMs: (flags.timeout ?? PATIENCE_S) * 1000,
      ...(recordPath !== undefined && {
        onSize: async (size) => {
          recording ??= await recordOrder(recordPath, size, tellRecordingEnded);
        },
        onRead: (offset: number, length: number) => recording?.onRead(offset, length),
      }),
    });
    device = await opening.catch(withRemedy);
    const exports = new Map([[flags.export ?? '', { device, readOnly: flags.readOnly ?? false }]]);
    server = serveAt(listener, exports, secure, refusalReports(emit, flags));
    rate?.govern(device);
    await run({ uri, target, device, server, flags, signal, emit, progress });
  } catch (error) {
    progress.end();
    const reported = await shutDown(server, listener, device, error);
    if (reported !== undefined) {
      emitError(emit, reported);
      throw reported;
    }
    emit('done', device === undefined ? {} : { bytes: syncedBytes(device.status()) });
  } finally {
    rate?.stop();
    await recording?.close();
    interruption.stop();
  }
}

function tellRecordingEnded(error: unknown): void {
  process.stderr.write(`copyondemand: --record-order has stopped: ${failureOf(error).message}\n`);
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

/** Returns a function that counts refused clients, and reports their number at most once a minute. */
function refusalReports(emit: Emit, { json }: ServeFlags): () => void {
  let clients = 0;
  let reportedAt = Number.NEGATIVE_INFINITY;
  return () => {
    clients++;
    const now = performance.now();
    if (now - reportedAt < REFUSAL_REPORT_MS) return;
    reportedAt = now;
    emit('refused', { clients });
    if (!json) process.stderr.write(`copyondemand: all 64 places are taken; clients refused so far: ${clients}\n`);
  };
}

/** @throws {@link UsageError} if options exclude or require each other. */
function checkFlags(flags: ServeFlags): void {
  const {
    socket,
    host,
    port,
    tlsCert,
    tlsKey,
    tlsCa,
    export: name = '',
    hydrate,
    readOnly = false,
    rate,
    rateFile,
    rateGroup,
    order,
  } = flags;
  if (socket !== undefined && (host !== undefined || port !== undefined))
    throw new UsageError('use either --socket, or --host and --port');
  if ((tlsCert === undefined) !== (tlsKey === undefined))
    throw new UsageError('--tls-cert and --tls-key must be used together');
  if (tlsCa !== undefined && tlsCert === undefined) throw new UsageError('--tls-ca needs --tls-cert and --tls-key');
  if ((!hydrate || readOnly) && [rate, rateFile, rateGroup, order].some((flag) => flag !== undefined)) {
    throw new UsageError(
      '--rate, --rate-file, --rate-group and --order need the background copy, ' +
        `which ${hydrate ? '--read-only' : '--no-hydrate'} turns off`,
    );
  }
  const wrong = wrongName(name);
  if (wrong !== undefined) throw new UsageError(`--export: ${wrong}`);
}

async function openTls({ tlsCert, tlsKey, tlsCa }: ServeFlags): Promise<ReturnType<typeof tlsServer> | undefined> {
  if (tlsCert === undefined || tlsKey === undefined) return undefined;
  const [cert, key, ca] = await Promise.all([
    readPem(tlsCert),
    readPem(tlsKey),
    tlsCa === undefined ? undefined : readPem(tlsCa),
  ]);
  return asUsage(() => tlsServer({ cert, key, ...(ca === undefined ? {} : { ca }) }));
}

/** @throws {@link CodError} COD_NOT_FOUND, COD_TARGET_IO */
async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw ioError(`read ${path}`, cause, { path });
  }
}

async function openListener({ socket, host, port }: ServeFlags): Promise<Listener> {
  const address: NbdAddress = {
    ...(socket === undefined ? {} : { socket }),
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port }),
  };
  return asUsage(() => Listener.open(address));
}

/** Reports the library's errors for wrong arguments as wrong options. */
async function asUsage<T>(task: () => T | Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

interface Serving extends TargetCopy {
  readonly flags: ServeFlags;
  readonly device: InlineDevice;
  readonly server: NbdServer;
}

/** Announces the export, reports progress until the copy ends, and serves until the signal arrives. */
async function run(serving: Serving): Promise<never> {
  const { device, server, target, flags, signal, emit, progress } = serving;
  tellStart(device, serving, VERIFICATION);
  emit('listening', { uri: server.uris[0] });
  if (!flags.json) process.stdout.write(`listening on ${server.uris[0]}\n`);
  try {
    await followCopy(device, serving, { tickMs: TICK_MS });
    if (!flags.quiet && !flags.json)
      process.stderr.write(`${target}: complete, ${formatBytes(device.size)}; still serving\n`);
  } catch (error) {
    if (error instanceof Interrupted) throw error;
    // The device is poisoned. The same command recovers its durable state.
    progress.end();
    const { exitCode: _, ...fields } = failureOf(error);
    emit('failed', fields);
    if (!flags.json)
      process.stderr.write(
        failureLine(failureOf(error)).replace(/\n$/, '; still serving, without the background copy\n'),
      );
  }
  // Only a signal ends the server.
  return withSignal(new Promise<never>(() => undefined), signal);
}

/** Closes everything, clients first. Returns the error to report; undefined if a signal ended a running server. */
async function shutDown(
  server: NbdServer | undefined,
  listener: Listener | undefined,
  device: Device | undefined,
  error: unknown,
): Promise<unknown> {
  const stopped = error instanceof Interrupted && server !== undefined;
  try {
    if (server === undefined) listener?.close();
    else await server.close();
    await device?.close();
  } catch (closing) {
    if (stopped) return closing;
  }
  return stopped ? undefined : error;
}
