/** The NBD server: serves exports at one address to many clients. */

import { Connection } from './connection.ts';
import { refused } from './diagnostics.ts';
import { Exports, type NbdDevice, type NbdExport, wrongName } from './export.ts';
import { LIMITS } from './limits.ts';
import { Listener, type NbdAddress } from './listener.ts';
import { ServerMemory } from './memory.ts';
import { receivingSocket } from './receiving-socket.ts';
import { type NbdTlsOptions, tlsServer } from './tls.ts';

/** How exports are served, at any address. */
export interface NbdServiceOptions {
  /** TLS certificates. If given, a client without TLS gets no answer beyond the handshake. Default: no TLS. */
  readonly tls?: NbdTlsOptions;
}

/** Options of {@link serveNbd}: where the server listens, and how it serves. */
export interface NbdServerOptions extends NbdAddress, NbdServiceOptions {
  /** Export name of a single device, at most 4096 bytes of UTF-8. Default: the empty name, the default export. */
  readonly exportName?: string;
  /** Whether a single device refuses every change. Default: whether it was opened with `readOnly`. */
  readonly readOnly?: boolean;
  /** Description of a single device, for clients that list the exports. Default: none. */
  readonly description?: string;
}

/** A running NBD server. */
export interface NbdServer extends AsyncDisposable {
  /** The URI of each export, in the order of the exports, as NBD clients accept it. */
  readonly uris: readonly string[];
  /** The number of connected clients. */
  readonly connectionCount: number;
  /** Clients that were disconnected at once, since others, past their handshake, had all places. */
  readonly refusedCount: number;
  /**
   * Stops listening, answers the requests in flight and ends the connections; after 10 s it disconnects the rest.
   * Resolves when no request uses the devices. Makes nothing durable. The devices stay open: they belong to the caller.
   * Idempotent.
   */
  close(): Promise<void>;
}

/** A server whose exports come and go while it runs. */
export interface ExportServer extends NbdServer {
  /** Adds an export. Clients find it at once. @throws `RangeError` if there is one of this name */
  add(name: string, added: NbdExport): void;
  /**
   * Removes an export, and ends the connections of its clients as {@link NbdServer.close} does. Other clients are not
   * disturbed. Resolves when no request uses the device.
   */
  remove(name: string): Promise<void>;
  /** Returns the URI of an export, as NBD clients accept it. */
  uri(name: string): string;
  /** Returns the number of clients of an export. */
  clientsOf(name: string): number;
}

/**
 * Serves a device, or several under their names, to NBD clients: at most `max(64, 4 × exports)` at a time. Resolves
 * when clients can connect.
 *
 * When all places are taken, a new client replaces the oldest connection that is still in its handshake. If there is
 * none, the new client is disconnected at once.
 *
 * @param device one device, or exports by name
 * @throws {@link CodError} COD_LOCKED when another process listens at the address; COD_EXISTS when the path is not a
 *   socket; COD_NOT_FOUND when the folder or the host does not exist; COD_TARGET_IO when listening fails otherwise.
 * @throws `TypeError` or `RangeError` when an option is wrong, certificates included.
 * @example
 * ```ts
 * import { bytesSource, openDevice } from 'copyondemand';
 * import { memfsFileSystem } from 'copyondemand/memfs';
 * import { serveNbd } from 'copyondemand/nbd';
 *
 * const source = bytesSource(new Uint8Array(2 ** 20));
 * const device = await openDevice({ source, fileSystem: memfsFileSystem(), target: 'disk.raw' });
 * const server = await serveNbd(device, { socket: 'disk.sock' });
 * console.log(server.uris[0]); // nbd+unix:///?socket=disk.sock
 * await server.close();
 * await device.close();
 * ```
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

/** Checks the names of the exports. @throws `TypeError`, `RangeError` */
function checkExports(exports: ReadonlyMap<string, NbdExport>): void {
  if (exports.size === 0) throw new TypeError('there are no exports to serve');
  for (const name of exports.keys()) {
    const wrong = wrongName(name);
    if (wrong !== undefined) throw new RangeError(`export name: ${wrong}`);
  }
}

interface ServeAtOptions {
  /** Called when a client was disconnected because all places are taken. */
  readonly onRefused?: () => void;
  /** Whether the empty name means the only export, if there is one. Default: true. */
  readonly onlyIsDefault?: boolean;
}

/** Serves at an address that a listener holds. The server owns the listener from now on. */
export function serveAt(
  listener: Listener,
  initial: ReadonlyMap<string, NbdExport>,
  secure: ReturnType<typeof tlsServer> | undefined,
  { onRefused = () => undefined, onlyIsDefault = true }: ServeAtOptions = {},
): ExportServer {
  const exports = new Exports(initial);
  /** In the order of their arrival. */
  const connections = new Set<Connection>();
  const memory = new ServerMemory();
  let refusedCount = 0;
  let closing: Promise<void> | undefined;
  listener.take((socket) => {
    const places = Math.max(LIMITS.connections, LIMITS.connectionsPerExport * exports.infos.length);
    if (connections.size >= places && !makePlace(connections)) {
      socket.destroy();
      refusedCount++;
      refused({ refusedCount });
      onRefused();
      return;
    }
    const connection = new Connection(receivingSocket(socket), { exports, memory, secure, onlyIsDefault });
    connections.add(connection);
    connection.closed.then(() => connections.delete(connection)).catch(() => undefined);
  });
  const clientsOf = (name: string): readonly Connection[] =>
    [...connections].filter(({ exportName }) => exportName === name);
  const close = (): Promise<void> => {
    listener.close();
    return drain([...connections]);
  };
  const uri = (name: string): string => listener.uri(name, secure !== undefined);
  return {
    get uris() {
      return exports.infos.map(({ name }) => uri(name));
    },
    uri,
    add: (name, added) => exports.add(name, added),
    remove: (name) => {
      exports.remove(name);
      return drain(clientsOf(name));
    },
    clientsOf: (name) => clientsOf(name).length,
    get connectionCount() {
      return connections.size;
    },
    get refusedCount() {
      return refusedCount;
    },
    close: () => (closing ??= close()),
    [Symbol.asyncDispose]: () => (closing ??= close()),
  };
}

/** Ends connections: answers the requests in flight, and after a time disconnects the rest. */
async function drain(connections: readonly Connection[]): Promise<void> {
  const timer = setTimeout(() => {
    for (const connection of connections) connection.destroy();
  }, LIMITS.drainMs);
  for (const connection of connections) connection.drain();
  await Promise.all(connections.map((connection) => connection.closed));
  clearTimeout(timer);
}

/**
 * Closes the oldest connection that is still in its handshake, so that silent connections keep no client out. A
 * handshake takes milliseconds. Returns false if there is none.
 */
function makePlace(connections: Set<Connection>): boolean {
  for (const connection of connections) {
    if (!connection.isInHandshake) continue;
    // Its place is free at once. It uses no device, so `close` need not wait for it.
    connections.delete(connection);
    connection.destroy();
    return true;
  }
  return false;
}
