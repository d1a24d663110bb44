/** Where and how a process serves: the address, TLS, and what it tells of clients that it refuses. */

import { readFile } from 'node:fs/promises';
import { Listener, type NbdAddress } from '../nbd/server/listener.ts';
import { tlsServer } from '../nbd/server/tls.ts';
import { ioError } from '../platform/errno.ts';
import { UsageError } from './failure.ts';
import type { Emit } from './json-lines.ts';
import { tell } from './log/told.ts';
import { handedSockets } from './service-manager.ts';

/** Time between two reports of refused clients, since a client may always try again. */
const REFUSAL_REPORT_MS = 60_000;

/** Parsed options of the address. */
export interface ListenerFlags {
  readonly socket?: string;
  readonly host?: string;
  readonly port?: number;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
}

/** @throws {@link UsageError} if options exclude or require each other. */
export function checkListenerFlags({ socket, host, port, tlsCert, tlsKey, tlsCa }: ListenerFlags): void {
  if (socket !== undefined && (host !== undefined || port !== undefined))
    throw new UsageError('use either --socket, or --host and --port');
  if ((tlsCert === undefined) !== (tlsKey === undefined))
    throw new UsageError('--tls-cert and --tls-key must be used together');
  if (tlsCa !== undefined && tlsCert === undefined) throw new UsageError('--tls-ca needs --tls-cert and --tls-key');
}

/** @throws {@link UsageError}; {@link CodError} COD_NOT_FOUND, COD_TARGET_IO */
export async function openTls({
  tlsCert,
  tlsKey,
  tlsCa,
}: ListenerFlags): Promise<ReturnType<typeof tlsServer> | undefined> {
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

/** @throws the errors of {@link Listener.open}, or {@link UsageError} for wrong options */
export async function openListener({ socket, host, port }: ListenerFlags): Promise<Listener> {
  const handed = handedSockets();
  if (handed.length > 0) {
    if ([socket, host, port].some((flag) => flag !== undefined))
      throw new UsageError('a socket was handed over (LISTEN_FDS): use no --socket, --host or --port');
    return Listener.adopt(handed);
  }
  const address: NbdAddress = {
    ...(socket === undefined ? {} : { socket }),
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port }),
  };
  return asUsage(() => Listener.open(address));
}

/** Reports the library's errors for wrong arguments as wrong options. */
export async function asUsage<T>(task: () => T | Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Returns a function that counts refused clients, and reports their number at most once a minute. */
export function refusalReports(emit: Emit, { json }: { readonly json?: boolean }): () => void {
  let clients = 0;
  let reportedAt = Number.NEGATIVE_INFINITY;
  return () => {
    clients++;
    const now = performance.now();
    if (now - reportedAt < REFUSAL_REPORT_MS) return;
    reportedAt = now;
    emit('refused', { clients });
    if (!json) tell('warning', `copyondemand: all places for clients are taken; clients refused so far: ${clients}`);
  };
}
