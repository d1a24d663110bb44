/**
 * `copyondemand serve`: serves a source over NBD while it is copied, and after the copy is complete. It resumes after
 * crashes and restarts. A copy that exists is served before its source is there, and without it.
 */

import { readFile } from 'node:fs/promises';
import { withSignal } from '../async/with-signal.ts';
import { wrongName } from '../nbd/server/export.ts';
import { Listener, type NbdAddress } from '../nbd/server/listener.ts';
import { type ExportServer, type NbdServer, serveAt } from '../nbd/server/server.ts';
import { tlsServer } from '../nbd/server/tls.ts';
import { ioError } from '../platform/errno.ts';
import { emitError, Interrupted, UsageError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { type Emit, jsonLines } from './json-lines.ts';
import { progressFor } from './progress.ts';
import { type DiskFlags, ServedDisk } from './served-disk.ts';
import { handedSockets, serviceManager } from './service-manager.ts';
import { parseSourceUri } from './source-uri.ts';
import { statusText } from './status-signal.ts';
import { checkTarget } from './target-device.ts';

/** Time between two reports of refused clients, since a client may always try again. */
const REFUSAL_REPORT_MS = 60_000;

/** Parsed options of the command. */
export interface ServeFlags extends DiskFlags {
  readonly socket?: string;
  readonly host?: string;
  readonly port?: number;
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
  const handed = handedSockets();
  checkFlags(flags, handed);
  const manager = serviceManager((message) => process.stderr.write(`copyondemand: ${message}\n`));
  const emit = jsonLines(process.stdout, { enabled: flags.json === true });
  const progress = progressFor(process.stderr, { quiet: flags.quiet === true || flags.json === true });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  let listener: Listener | undefined;
  let server: ExportServer | undefined;
  let disk: ServedDisk | undefined;
  try {
    disk = new ServedDisk({ uri, target, flags, signal, emit, progress });
    const secure = await openTls(flags);
    // Listens before the device is opened: an address that cannot be used must not begin a copy. Early clients wait.
    listener = await openListener(flags, handed);
    await disk.open();
    server = serveAt(listener, new Map([[disk.name, disk.export]]), secure, refusalReports(emit, flags));
    disk.announce(server);
    manager.ready(statusText);
    await disk.follow();
    // Only a signal ends the server.
    await withSignal(new Promise<never>(() => undefined), signal);
  } catch (error) {
    progress.end();
    const told = manager.stopping();
    const reported = await shutDown(server, listener, disk, error);
    await told;
    if (reported !== undefined) {
      emitError(emit, reported);
      throw reported;
    }
    emit('done', { bytes: disk?.bytes });
  } finally {
    interruption.stop();
  }
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
function checkFlags(flags: ServeFlags, handed: readonly number[]): void {
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
  if (handed.length > 0 && [socket, host, port].some((flag) => flag !== undefined))
    throw new UsageError('a socket was handed over (LISTEN_FDS): use no --socket, --host or --port');
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

async function openListener({ socket, host, port }: ServeFlags, handed: readonly number[]): Promise<Listener> {
  if (handed.length > 0) return Listener.adopt(handed);
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

/** Closes everything, clients first. Returns the error to report; undefined if a signal ended a running server. */
async function shutDown(
  server: NbdServer | undefined,
  listener: Listener | undefined,
  disk: ServedDisk | undefined,
  error: unknown,
): Promise<unknown> {
  const stopped = error instanceof Interrupted && server !== undefined;
  try {
    if (server === undefined) listener?.close();
    else await server.close();
    await disk?.close();
  } catch (closing) {
    if (stopped) return closing;
  }
  return stopped ? undefined : error;
}
