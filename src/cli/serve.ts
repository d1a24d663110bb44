/** `copyondemand serve`: a source over NBD while it is copied; through crashes and restarts, and after the copy is complete. */

import { readFile } from 'node:fs/promises';
import { withSignal } from '../async/with-signal.ts';
import type { Device } from '../device/types.ts';
import { wrongName } from '../nbd/server/export.ts';
import { Listener, type NbdAddress } from '../nbd/server/listener.ts';
import { type NbdServer, serveAt } from '../nbd/server/server.ts';
import { tlsServer } from '../nbd/server/tls.ts';
import { ioError } from '../platform/errno.ts';
import type { Source } from '../sources/source.ts';
import { failureLine, failureOf, Interrupted, UsageError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';
import { type OrderRecording, recordOrder } from './order-file.ts';
import { progressFor } from './progress.ts';
import { RateControl, type RateFlags, rateHooks } from './rate-control.ts';
import { type HttpFlags, openSource, parseSourceUri } from './source-uri.ts';
import {
  checkTarget,
  followCopy,
  openTarget,
  preloadDevice,
  syncedBytes,
  type TargetCopy,
  tellStart,
} from './target-device.ts';
import { formatBytes } from './units.ts';

const TICK_MS = 500;

/** Options of the command, parsed. */
export interface ServeFlags extends HttpFlags, RateFlags {
  readonly socket?: string;
  readonly host?: string;
  readonly port?: number;
  readonly export?: string;
  readonly readOnly?: boolean;
  /** False with `--no-hydrate`. */
  readonly hydrate: boolean;
  /** An order file: what to copy first. */
  readonly order?: string;
  /** An order file to be written. */
  readonly recordOrder?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Serves until a signal comes. Errors as they come. */
export async function serve(sourceText: string, target: string, flags: ServeFlags): Promise<void> {
  const uri = parseSourceUri(sourceText);
  checkTarget(target);
  checkFlags(flags);
  const emit = jsonLines(process.stdout, { enabled: flags.json === true });
  const progress = progressFor(process.stderr, { quiet: flags.quiet === true || flags.json === true });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  let listener: Listener | undefined;
  let source: Source | undefined;
  let device: Device | undefined;
  let server: NbdServer | undefined;
  let rate: RateControl | undefined;
  let recording: OrderRecording | undefined;
  try {
    if (flags.hydrate) rate = new RateControl(flags, rateHooks(emit));
    const secure = await openTls(flags);
    // First: an address that cannot be had must not begin a copy. Clients that come before the device is there wait.
    listener = await openListener(flags);
    preloadDevice();
    source = await withSignal(openSource(uri, flags, signal), signal);
    if (flags.recordOrder !== undefined)
      recording = await recordOrder(flags.recordOrder, source.size, tellRecordingEnded);
    device = await openTarget({ uri, source, target, flags, signal, rate: rate?.rate, onRead: recording?.onRead });
    server = serveAt(listener, new Map([[flags.export ?? '', { device, readOnly: flags.readOnly ?? false }]]), secure);
    rate?.govern(device);
    await run({ uri, source, target, device, server, flags, signal, emit, progress });
  } catch (error) {
    progress.end();
    const reported = await shutDown(server, listener, device, error);
    if (reported !== undefined) {
      const { exitCode: _, ...fields } = failureOf(reported);
      emit('error', fields);
      throw reported;
    }
    emit('done', device === undefined ? {} : { bytes: syncedBytes(device.status()) });
  } finally {
    rate?.stop();
    await recording?.close();
    await source?.close();
    interruption.stop();
  }
}

function tellRecordingEnded(error: unknown): void {
  process.stderr.write(`copyondemand: the order is not recorded any more: ${failureOf(error).message}\n`);
}

/** @throws {@link UsageError} */
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
    rate,
    rateFile,
    rateGroup,
    order,
  } = flags;
  if (socket !== undefined && (host !== undefined || port !== undefined))
    throw new UsageError('either --socket, or --host and --port');
  if ((tlsCert === undefined) !== (tlsKey === undefined))
    throw new UsageError('--tls-cert and --tls-key belong together');
  if (tlsCa !== undefined && tlsCert === undefined)
    throw new UsageError('--tls-ca is of use only with --tls-cert and --tls-key');
  if (!hydrate && [rate, rateFile, rateGroup, order].some((flag) => flag !== undefined)) {
    throw new UsageError(
      '--rate, --rate-file, --rate-group and --order are for the background copy, which --no-hydrate leaves out',
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

/** What the library calls a wrong argument is here a wrong option. */
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
  readonly device: Device;
  readonly server: NbdServer;
}

/** Says that the export is there; shows how far the copy is until it is complete, or cannot go on; serves on until the signal. */
async function run(serving: Serving): Promise<never> {
  const { device, server, target, flags, signal, emit, progress } = serving;
  tellStart(device, serving);
  emit('listening', { uri: server.uris[0] });
  if (!flags.json) process.stdout.write(`listening on ${server.uris[0]}\n`);
  try {
    await followCopy(device, serving, TICK_MS);
    if (!flags.quiet && !flags.json)
      process.stderr.write(`${target}: complete, ${formatBytes(device.size)}; serving it on\n`);
  } catch (error) {
    if (error instanceof Interrupted) throw error;
    // Clients have what is there, and what the source gives from now on; the same command again tries the rest.
    progress.end();
    const { exitCode: _, ...fields } = failureOf(error);
    emit('failed', fields);
    if (!flags.json)
      process.stderr.write(failureLine(failureOf(error)).replace(/\n$/, '; serving on without copying\n'));
  }
  // Nothing but a signal ends a server.
  return withSignal(new Promise<never>(() => undefined), signal);
}

/** Lets go of everything, clients first; says what is to be reported, which a signal is not. */
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
