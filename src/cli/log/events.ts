/** What the log says of the events of devices, exports and clients. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { DeviceMessage, DurabilityMessage } from '../../device/diagnostics.ts';
import type { HeartbeatMessage } from '../../fs/node-lock.ts';
import type { NbdClientMessage, NbdCommandMessage } from '../../nbd/server/diagnostics.ts';
import type { RetryReport } from '../../sources/retry.ts';
import { failureOf } from '../failure.ts';
import { SERVED, type ServedMessage } from '../served.ts';
import { syncedBytes } from '../synced-bytes.ts';
import { formatBytes, formatPercent } from '../units.ts';
import { Repeats } from './repeats.ts';
import type { Level } from './told.ts';

/** A flush or a checkpoint that takes longer gets a line. */
const SLOW_FLUSH_MS = 1000;
const SLOW_CHECKPOINT_MS = 5000;

const STATE_LEVELS: Readonly<Record<string, Level>> = { waiting: 'warning', poisoned: 'error', hydrated: 'notice' };

type Retried = Pick<RetryReport, 'message' | 'attempt' | 'delayMs'> & { readonly code: string };

/** Turns messages of the channels into lines. */
export class EventLines {
  readonly #repeats: Repeats;
  readonly #handlers: ReadonlyMap<string, (message: unknown) => void>;
  readonly #connectedAtMs = new WeakMap<NbdClientMessage, number>();
  readonly #lost = new Set<string>();

  /** @param add takes the lines, from now on */
  constructor(add: (level: Level, text: string) => void) {
    this.#repeats = new Repeats(add);
    this.#handlers = new Map<string, (message: unknown) => void>([
      ['copyondemand:device', (message) => this.#device(message as DeviceMessage)],
      ['copyondemand:flush', (message) => this.#durable('flush', SLOW_FLUSH_MS, message as DurabilityMessage)],
      ['copyondemand:checkpoint', (each) => this.#durable('checkpoint', SLOW_CHECKPOINT_MS, each as DurabilityMessage)],
      ['copyondemand:heartbeat', (message) => this.#heartbeat(message as HeartbeatMessage)],
      ['copyondemand:nbd:connected', (message) => this.#connected(message as NbdClientMessage)],
      ['copyondemand:nbd:disconnected', (message) => this.#disconnected(message as NbdClientMessage)],
      ['copyondemand:nbd:command', (message) => this.#command(message as NbdCommandMessage)],
      [SERVED.name as string, (message) => this.#served(message as ServedMessage)],
    ]);
    for (const [name, handler] of this.#handlers) subscribe(name, handler);
  }

  /** Adds an event that no channel tells. */
  add(level: Level, kind: string, subject: string, text: string): void {
    this.#repeats.add(level, kind, subject, text);
  }

  /** Tells what was suppressed, and takes no more messages. */
  close(): void {
    for (const [name, handler] of this.#handlers) unsubscribe(name, handler);
    this.#repeats.close();
  }

  #device(message: DeviceMessage): void {
    const { target, type } = message;
    const add = (level: Level, text: string, kind: string = type): void => this.#repeats.add(level, kind, target, text);
    switch (type) {
      case 'opened': {
        const status = message.device.status();
        const { size, state, syncedBlocks, totalBlocks, dirtyBlocks } = status;
        const synced = `${formatBytes(syncedBytes(status))} (${formatPercent(syncedBlocks, totalBlocks)})`;
        add('info', `opened, ${formatBytes(size)}, ${synced} synced, ${dirtyBlocks} dirty blocks, ${state}`);
        break;
      }
      case 'state':
        add(STATE_LEVELS[message.state] ?? 'info', message.state, message.state);
        break;
      case 'retry':
        add('warning', describeRetry(message));
        break;
      case 'recovered':
        add('notice', 'recovered: the copy continues');
        break;
      case 'source-changed':
      case 'error':
        add('error', `${message.code}: ${message.message}`);
        break;
    }
  }

  #durable(kind: 'flush' | 'checkpoint', slowMs: number, { target, durationMs, error }: DurabilityMessage): void {
    if (error !== undefined) {
      const { code, message } = failureOf(error);
      this.#repeats.add('error', kind, target, `${kind} failed after ${seconds(durationMs)}: ${code}: ${message}`);
    } else if (durationMs > slowMs)
      this.#repeats.add('warning', `slow-${kind}`, target, `a ${kind} took ${seconds(durationMs)}`);
  }

  #heartbeat({ path, state }: HeartbeatMessage): void {
    if (state !== 'lost') this.#lost.delete(path);
    else if (!this.#lost.has(path)) {
      this.#lost.add(path);
      this.#repeats.add('error', 'owner', path, 'another owner has taken over');
    }
  }

  #served({ export: name, target, source, uri }: ServedMessage): void {
    this.#repeats.add('info', 'listening', target, `listening on ${uri}, export "${name}", source ${source ?? 'none'}`);
  }

  #connected(client: NbdClientMessage): void {
    this.#connectedAtMs.set(client, performance.now());
    this.#repeats.add('info', 'connected', exportOf(client), `${clientOf(client)} has connected`);
  }

  #disconnected(client: NbdClientMessage): void {
    const { reads, readBytes, writes, writtenBytes } = client;
    const since = this.#connectedAtMs.get(client);
    const after = since === undefined ? '' : ` after ${seconds(performance.now() - since)}`;
    const counts = `${reads} reads (${formatBytes(readBytes)}), ${writes} writes (${formatBytes(writtenBytes)})`;
    this.#repeats.add(
      'info',
      'disconnected',
      exportOf(client),
      `${clientOf(client)} has disconnected${after}: ${counts}`,
    );
  }

  #command(message: NbdCommandMessage): void {
    const { command, offset, length, durationMs, error } = message;
    if (error === undefined) return;
    const what = `${command} of ${length} bytes at ${offset} failed after ${seconds(durationMs)}: ${error}`;
    this.#repeats.add('warning', `failed-${command}`, exportOf(message), what);
  }
}

/** What the log says of an attempt that failed. */
function describeRetry({ code, message, attempt, delayMs }: Retried): string {
  return `${code}: ${message}; attempt ${attempt} failed, the next one in ${seconds(delayMs)}`;
}

function exportOf({ export: name }: { readonly export: string }): string {
  return `export "${name}"`;
}

function clientOf({ address, tls }: NbdClientMessage): string {
  return `client ${address ?? 'on the unix socket'}${tls ? ' (TLS)' : ''}`;
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 3 : 1)} s`;
}
