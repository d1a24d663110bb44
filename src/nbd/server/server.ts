/** The NBD server: exports at one address, for many clients. */

import { Connection } from './connection.ts';
import { type NbdDevice, type NbdExport, wrongName } from './export.ts';
import { LIMITS } from './limits.ts';
import { Listener, type NbdAddress } from './listener.ts';
import { type NbdTlsOptions, tlsServer } from './tls.ts';

/** What a server serves, and how. */
export interface NbdServiceOptions {
  /** Certificates; given, nothing but the handshake is answered to a client without TLS. */
  readonly tls?: NbdTlsOptions;
}

/** Where a server listens, what it serves, and how. */
export interface NbdServerOptions extends NbdAddress, NbdServiceOptions {
  /** The name of a single device. Default: the empty one. */
  readonly exportName?: string;
  /** Whether a single device refuses every change. Default: false. */
  readonly readOnly?: boolean;
  /** What a single device is, for people who list exports. */
  readonly description?: string;
}

/** A server that runs. */
export interface NbdServer extends AsyncDisposable {
  /** For each export, in their order, what clients connect to. */
  readonly uris: readonly string[];
  /** Clients that are connected. */
  readonly connectionCount: number;
  /**
   * Lets nobody in any more, answers the requests that are in work, and ends the connections. Resolves when nothing uses the devices, which stay open: they are the caller's.
   * Idempotent.
   */
  close(): Promise<void>;
}

/**
 * Serves a device, or several under their names, to NBD clients. Resolves when they can connect.
 *
 * @throws {@link CodError} COD_LOCKED if somebody listens there already; COD_EXISTS if a file is in the way; COD_NOT_FOUND, COD_TARGET_IO if one cannot listen there.
 *   `TypeError`, `RangeError` for wrong options, certificates among them.
 */
export async function serveNbd(
  device: NbdDevice | ReadonlyMap<string, NbdExport>,
  options: NbdServerOptions = {},
): Promise<NbdServer> {
  const { exportName = '', readOnly = false, description, tls, socket, host, port } = options;
  const exports = isMap(device)
    ? device
    : new Map([[exportName, { device, readOnly, ...(description === undefined ? {} : { description }) }]]);
  checkExports(exports);
  const secure = tls === undefined ? undefined : tlsServer(tls);
  const listener = await Listener.open({
    ...(socket === undefined ? {} : { socket }),
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port }),
  });
  return serveAt(listener, exports, secure);
}

function isMap(device: NbdDevice | ReadonlyMap<string, NbdExport>): device is ReadonlyMap<string, NbdExport> {
  return device instanceof Map;
}

/** @throws `TypeError`, `RangeError` */
function checkExports(exports: ReadonlyMap<string, NbdExport>): void {
  if (exports.size === 0) throw new TypeError('there is nothing to serve');
  for (const name of exports.keys()) {
    const wrong = wrongName(name);
    if (wrong !== undefined) throw new RangeError(`the export's name: ${wrong}`);
  }
}

/** Serves at an address that has been taken; the server owns it from then on. */
export function serveAt(
  listener: Listener,
  exports: ReadonlyMap<string, NbdExport>,
  secure: ReturnType<typeof tlsServer> | undefined,
): NbdServer {
  const connections = new Set<Connection>();
  let closing: Promise<void> | undefined;
  const uris = [...exports.keys()].map((name) => listener.uri(name, secure !== undefined));
  listener.take((socket) => {
    const connection = new Connection(socket, { exports, secure });
    connections.add(connection);
    connection.closed.then(() => connections.delete(connection)).catch(() => undefined);
  });
  const close = async (): Promise<void> => {
    listener.close();
    const timer = setTimeout(() => {
      for (const connection of connections) connection.destroy();
    }, LIMITS.drainMs);
    for (const connection of connections) connection.drain();
    await Promise.all([...connections].map((connection) => connection.closed));
    clearTimeout(timer);
  };
  return {
    uris,
    get connectionCount() {
      return connections.size;
    },
    close: () => (closing ??= close()),
    [Symbol.asyncDispose]: () => (closing ??= close()),
  };
}
