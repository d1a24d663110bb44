/**
 * `copyondemand serve`: serves a source over NBD while it is copied, and after the copy is complete. It resumes after
 * crashes and restarts. A copy that exists is served before its source is there, and without it.
 */

import { withSignal } from '../async/with-signal.ts';
import type { Listener } from '../nbd/server/listener.ts';
import { type ExportServer, type NbdServer, serveAt } from '../nbd/server/server.ts';
import { emitError, Interrupted } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';
import { checkListenerFlags, type ListenerFlags, openListener, openTls, refusalReports } from './listening.ts';
import { tell } from './log/told.ts';
import { progressFor } from './progress.ts';
import { checkDiskFlags, type DiskFlags, ServedDisk } from './served-disk.ts';
import { serviceManager } from './service-manager.ts';
import { parseSourceUri } from './source-uri.ts';
import { statusLines } from './status-signal.ts';
import { checkTarget } from './target-device.ts';

/** Parsed options of the command. */
export interface ServeFlags extends DiskFlags, ListenerFlags {}

/**
 * Serves until a signal arrives.
 * @param sourceText undefined: serves a copy that exists without its source
 * @throws the error of the options, the listener, the source or the device.
 */
export async function serve(sourceText: string | undefined, target: string, flags: ServeFlags): Promise<void> {
  const uri = sourceText === undefined ? undefined : parseSourceUri(sourceText);
  checkTarget(target);
  checkListenerFlags(flags);
  checkDiskFlags(flags);
  const manager = serviceManager((message) => tell('warning', `copyondemand: ${message}`));
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
    listener = await openListener(flags);
    await disk.open();
    server = serveAt(listener, new Map([[disk.name, disk.export]]), secure, {
      onRefused: refusalReports(emit, flags),
    });
    disk.announce(server);
    manager.ready(() => statusLines().join('').trimEnd());
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
