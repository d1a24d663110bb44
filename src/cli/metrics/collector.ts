/**
 * Counts what the channels of the library tell, and writes it as metrics. docs/METRICS.md lists them.
 *
 * What a device counts itself is read from its status when the metrics are read. Durations come from channels. Series
 * of a device end when it is closed.
 */

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { DeviceMessage, DurabilityMessage, SourceMessage } from '../../device/diagnostics.ts';
import type { CallCount, Device, DeviceState, DeviceStatus } from '../../device/types.ts';
import type { HeartbeatMessage } from '../../fs/node-lock.ts';
import type { NbdClientMessage, NbdCommandMessage } from '../../nbd/server/diagnostics.ts';
import { SERVED, type ServedMessage } from '../served.ts';
import { Exposition, Histogram, type Labels } from './exposition.ts';
import { TARGET_CALLS, type TargetMessage } from './timed-target.ts';

const STATES: readonly DeviceState[] = ['hydrating', 'paused', 'waiting', 'idle', 'hydrated', 'poisoned', 'closed'];
const KINDS = ['demand', 'background'] as const;
const TARGET_CALL = ['read', 'write', 'sync'] as const;
const CALLS = [
  ['reads', 'read'],
  ['writes', 'write'],
  ['flushes', 'flush'],
] as const;
/** The event loop's delay is sampled once in this time. */
const SAMPLE_MS = 20;

interface Copy {
  readonly device: Device;
  readonly requests: Readonly<Record<SourceMessage['kind'], Requests>>;
  readonly calls: Readonly<Record<TargetMessage['call'], TargetCalls>>;
  readonly flush: Durability;
  readonly checkpoint: Durability;
  /** Bytes of the last checkpoint; undefined before the first one. */
  checkpointBytes?: number;
}

class Requests {
  readonly durations = new Histogram();
  readonly responses = new Histogram();
  failures = 0;
}

class TargetCalls {
  readonly durations = new Histogram();
  bytes = 0;
}

class Durability {
  readonly durations = new Histogram();
  failures = 0;
}

class Export {
  clients = 0;
  connections = 0;
  readonly commands = new Map<string, { readonly durations: Histogram; bytes: number }>();
  readonly errors = new Map<string, { readonly labels: Labels; count: number }>();
}

/** The element of a key; `make` makes one that is missing. */
function ensure<Value>(map: Map<string, Value>, key: string, make: () => Value): Value {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}

export class Collector {
  readonly #version: string;
  readonly #copies = new Map<string, Copy>();
  readonly #exports = new Map<string, Export>();
  readonly #served = new Map<string, ServedMessage>();
  #refused = 0;
  readonly #owners = new Map<string, { isOwner: boolean; atMs: number }>();
  readonly #delay: IntervalHistogram = monitorEventLoopDelay({ resolution: SAMPLE_MS });
  readonly #handlers: ReadonlyMap<string, (message: unknown) => void>;

  /** Counts from now on, until {@link stop}. Devices that are open already are not counted. */
  constructor(version: string) {
    this.#version = version;
    this.#handlers = new Map<string, (message: unknown) => void>([
      ['copyondemand:device', (message) => this.#device(message as DeviceMessage)],
      ['copyondemand:source', (message) => this.#source(message as SourceMessage)],
      ['copyondemand:flush', (message) => this.#durable('flush', message as DurabilityMessage)],
      ['copyondemand:checkpoint', (message) => this.#durable('checkpoint', message as DurabilityMessage)],
      ['copyondemand:heartbeat', (message) => this.#heartbeat(message as HeartbeatMessage)],
      ['copyondemand:nbd:connected', (message) => this.#connected(message as NbdClientMessage)],
      ['copyondemand:nbd:disconnected', (message) => void this.#export(message as NbdClientMessage).clients--],
      ['copyondemand:nbd:refused', () => void this.#refused++],
      ['copyondemand:nbd:command', (message) => this.#command(message as NbdCommandMessage)],
      [TARGET_CALLS.name as string, (message) => this.#target(message as TargetMessage)],
      [SERVED.name as string, (message) => this.#serves(message as ServedMessage)],
    ]);
    for (const [name, handler] of this.#handlers) subscribe(name, handler);
    this.#delay.enable();
  }

  stop(): void {
    for (const [name, handler] of this.#handlers) unsubscribe(name, handler);
    this.#delay.disable();
  }

  #device(message: DeviceMessage): void {
    const { target } = message;
    if (message.type === 'opened') {
      this.#copies.set(target, {
        device: message.device,
        requests: { demand: new Requests(), background: new Requests() },
        calls: { read: new TargetCalls(), write: new TargetCalls(), sync: new TargetCalls() },
        flush: new Durability(),
        checkpoint: new Durability(),
      });
    } else if (message.type === 'state' && message.state === 'closed') {
      this.#copies.delete(target);
      for (const [name, served] of this.#served) if (served.target === target) this.#served.delete(name);
    } else if (message.type === 'checkpoint') {
      const copy = this.#copies.get(target);
      if (copy !== undefined) copy.checkpointBytes = message.bytes;
    }
  }

  #source({ target, kind, bytes, responseMs, durationMs, error }: SourceMessage): void {
    const requests = this.#copies.get(target)?.requests[kind];
    if (requests === undefined) return;
    requests.durations.observe(durationMs);
    if (bytes > 0) requests.responses.observe(responseMs);
    if (error !== undefined) requests.failures++;
  }

  #target({ target, call, bytes, durationMs }: TargetMessage): void {
    const calls = this.#copies.get(target)?.calls[call];
    if (calls === undefined) return;
    calls.durations.observe(durationMs);
    calls.bytes += bytes;
  }

  #durable(kind: 'flush' | 'checkpoint', { target, durationMs, error }: DurabilityMessage): void {
    const durability = this.#copies.get(target)?.[kind];
    if (durability === undefined) return;
    durability.durations.observe(durationMs);
    if (error !== undefined) durability.failures++;
  }

  #heartbeat({ path, state }: HeartbeatMessage): void {
    if (state === 'released') this.#owners.delete(path);
    else this.#owners.set(path, { isOwner: state === 'owned', atMs: performance.now() });
  }

  #serves(message: ServedMessage): void {
    this.#served.set(message.export, message);
    this.#export(message);
  }

  #export({ export: name }: { readonly export: string }): Export {
    return ensure(this.#exports, name, () => new Export());
  }

  #connected(message: NbdClientMessage): void {
    const served = this.#export(message);
    served.clients++;
    served.connections++;
  }

  #command(message: NbdCommandMessage): void {
    const { command, length, durationMs, error } = message;
    const served = this.#export(message);
    const commands = ensure(served.commands, command, () => ({ durations: new Histogram(), bytes: 0 }));
    commands.durations.observe(durationMs);
    if (error === undefined) commands.bytes += length;
    else ensure(served.errors, `${command} ${error}`, () => ({ labels: { command, error }, count: 0 })).count++;
  }

  /** Returns the metrics as text. */
  text(): string {
    const text = new Exposition();
    text.add('copyondemand_build_info', 'gauge', 'The version of copyondemand and of Node.', [
      [{ version: this.#version, node: process.version }, 1],
    ]);
    this.#addCopies(text);
    this.#addDurations(text);
    this.#addExports(text);
    this.#addProcess(text);
    return text.toString();
  }

  #addCopies(text: Exposition): void {
    const copies = [...this.#copies].map(([target, { device }]) => ({ target, status: device.status() }));
    const each = (value: (status: DeviceStatus) => number | undefined): [Labels, number][] =>
      copies.flatMap(({ target, status }) => {
        const found = value(status);
        return found === undefined ? [] : [[{ target }, found] as [Labels, number]];
      });
    const byKind = (value: (status: DeviceStatus, kind: (typeof KINDS)[number]) => number): [Labels, number][] =>
      copies.flatMap(({ target, status }) =>
        KINDS.map((kind): [Labels, number] => [{ target, kind }, value(status, kind)]),
      );
    const gauge = (name: string, help: string, samples: [Labels, number][]): void =>
      text.add(`copyondemand_${name}`, 'gauge', help, samples);
    const counter = (name: string, help: string, samples: [Labels, number][]): void =>
      text.add(`copyondemand_${name}_total`, 'counter', help, samples);

    gauge(
      'state',
      'Whether the copy is in this state.',
      copies.flatMap(({ target, status }) =>
        STATES.map((state): [Labels, number] => [{ target, state }, status.state === state ? 1 : 0]),
      ),
    );
    gauge(
      'size_bytes',
      'Size of the image.',
      each(({ size }) => size),
    );
    gauge(
      'block_size_bytes',
      'Size of a block.',
      each(({ blockSize }) => blockSize),
    );
    gauge(
      'blocks',
      'Blocks of the image.',
      each(({ totalBlocks }) => totalBlocks),
    );
    gauge(
      'synced_blocks',
      'Blocks that the target holds completely.',
      each(({ syncedBlocks }) => syncedBlocks),
    );
    gauge(
      'dirty_blocks',
      'Blocks that were written in part and that only the source holds completely.',
      each(({ dirtyBlocks }) => dirtyBlocks),
    );
    gauge(
      'background_bytes_per_second',
      'Current speed of the background copy.',
      each(({ hydrateBytesPerSecond }) => hydrateBytesPerSecond),
    );
    gauge(
      'rate_limit_bytes_per_second',
      'Rate limit of the background copy. Absent: none.',
      each(({ rateBytesPerSecond }) => rateBytesPerSecond),
    );
    counter(
      'source_bytes',
      'Bytes taken from the source, for readers (demand) and by the background copy.',
      byKind((status, kind) => status[kind].bytes),
    );
    counter(
      'source_requests',
      'Requests begun to the source.',
      byKind((status, kind) => status[kind].requests),
    );
    counter(
      'metadata_written_bytes',
      'Bytes written to logs and checkpoints.',
      each((status) => status.metadataBytes),
    );
    const calls = (value: (count: CallCount) => number): [Labels, number][] =>
      copies.flatMap(({ target, status }) =>
        CALLS.map(([calls, call]): [Labels, number] => [{ target, call }, value(status[calls])]),
      );
    counter(
      'device_calls',
      'Reads, writes and flushes of the device by its users.',
      calls(({ count }) => count),
    );
    counter(
      'device_call_seconds',
      'Time of these calls together. One that completes synchronously counts as 0.',
      calls(({ totalMs }) => totalMs / 1000),
    );
    counter(
      'retries',
      'Attempts that failed and were repeated.',
      each(({ retries }) => retries),
    );
    counter(
      'errors',
      'Calls that were rejected, and attempts that were repeated, by the code of the error.',
      copies.flatMap(({ target, status }) =>
        Object.entries(status.errors).map(([code, count]): [Labels, number] => [{ target, code }, count]),
      ),
    );
    gauge(
      'owner',
      'Whether this process owns the copy. 0: another owner has taken over.',
      [...this.#owners].map(([metadata, { isOwner }]) => [{ metadata }, isOwner ? 1 : 0]),
    );
    gauge(
      'owner_heartbeat_age_seconds',
      'Time since the ownership was last written and checked. Another machine may take over after 30 s.',
      [...this.#owners].map(([metadata, { atMs }]) => [{ metadata }, (performance.now() - atMs) / 1000]),
    );
  }

  #addDurations(text: Exposition): void {
    const copies = [...this.#copies];
    const requests = <Value>(value: (requests: Requests) => Value): [Labels, Value][] =>
      copies.flatMap(([target, copy]) =>
        KINDS.map((kind): [Labels, Value] => [{ target, kind }, value(copy.requests[kind])]),
      );
    text.add(
      'copyondemand_source_request_duration_seconds',
      'histogram',
      'Time of requests to the source. In the background, it includes waiting for the rate.',
      requests(({ durations }) => durations),
    );
    text.add(
      'copyondemand_source_response_seconds',
      'histogram',
      'Time until the first bytes of a request to the source came; of demand requests, until all bytes came.',
      requests(({ responses }) => responses),
    );
    text.add(
      'copyondemand_source_request_failures_total',
      'counter',
      'Requests to the source that failed.',
      requests(({ failures }) => failures),
    );
    const calls = <Value>(value: (calls: TargetCalls) => Value): [Labels, Value][] =>
      copies.flatMap(([target, copy]) =>
        TARGET_CALL.map((call): [Labels, Value] => [{ target, call }, value(copy.calls[call])]),
      );
    text.add(
      'copyondemand_target_call_duration_seconds',
      'histogram',
      'Time of reads, writes and syncs of the file of the target.',
      calls(({ durations }) => durations),
    );
    text.add(
      'copyondemand_target_bytes_total',
      'counter',
      'Bytes read from the file of the target, and written to it.',
      calls(({ bytes }) => bytes).filter(([{ call }]) => call !== 'sync'),
    );
    for (const kind of ['flush', 'checkpoint'] as const) {
      text.add(
        `copyondemand_${kind}_duration_seconds`,
        'histogram',
        kind === 'flush' ? 'Time in which changes were made durable on the target.' : 'Time of checkpoints.',
        copies.map(([target, copy]) => [{ target }, copy[kind].durations]),
      );
      text.add(
        `copyondemand_${kind}_failures_total`,
        'counter',
        kind === 'flush' ? 'Flushes that failed.' : 'Checkpoints that failed.',
        copies.map(([target, copy]) => [{ target }, copy[kind].failures]),
      );
    }
    text.add(
      'copyondemand_checkpoint_size_bytes',
      'gauge',
      'Size of the last checkpoint.',
      copies.flatMap(([target, { checkpointBytes }]) =>
        checkpointBytes === undefined ? [] : [[{ target }, checkpointBytes] as const],
      ),
    );
  }

  #addExports(text: Exposition): void {
    const exports = [...this.#exports];
    text.add(
      'copyondemand_export_info',
      'gauge',
      'The copy that an export serves, and its source.',
      [...this.#served.values()].map((served) => [
        { export: served.export, target: served.target, source: served.source ?? '' },
        1,
      ]),
    );
    text.add(
      'copyondemand_nbd_clients',
      'gauge',
      'NBD clients that are connected to the export.',
      exports.map(([name, { clients }]) => [{ export: name }, clients]),
    );
    text.add(
      'copyondemand_nbd_connections_total',
      'counter',
      'NBD clients that have connected to the export.',
      exports.map(([name, { connections }]) => [{ export: name }, connections]),
    );
    text.add('copyondemand_nbd_refused_clients_total', 'counter', 'Clients refused since all places were taken.', [
      [{}, this.#refused],
    ]);
    const commands = exports.flatMap(([name, served]) =>
      [...served.commands].map(([command, counted]) => ({ labels: { export: name, command }, ...counted })),
    );
    text.add(
      'copyondemand_nbd_command_duration_seconds',
      'histogram',
      'Time from the arrival of a command of a client until its reply.',
      commands.map(({ labels, durations }) => [labels, durations]),
    );
    text.add(
      'copyondemand_nbd_bytes_total',
      'counter',
      'Bytes that clients have read and written.',
      commands
        .filter(({ labels: { command } }) => command === 'read' || command === 'write')
        .map(({ labels, bytes }) => [labels, bytes]),
    );
    text.add(
      'copyondemand_nbd_errors_total',
      'counter',
      'Commands that failed, by the error that the client got.',
      exports.flatMap(([name, { errors }]) =>
        [...errors.values()].map(({ labels, count }) => [{ export: name, ...labels }, count] as const),
      ),
    );
  }

  /** The names are those that exporters of Node use. Delays are those since the last call. */
  #addProcess(text: Exposition): void {
    const one = (name: string, type: 'counter' | 'gauge', help: string, value: number): void =>
      text.add(name, type, help, [[{}, value]]);
    const { user, system } = process.cpuUsage();
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
    one('process_cpu_user_seconds_total', 'counter', 'User CPU time.', user / 1e6);
    one('process_cpu_system_seconds_total', 'counter', 'System CPU time.', system / 1e6);
    one('process_start_time_seconds', 'gauge', 'Start of the process, in Unix time.', performance.timeOrigin / 1000);
    one('process_resident_memory_bytes', 'gauge', 'Resident memory.', rss);
    one('nodejs_heap_size_total_bytes', 'gauge', 'Size of the JavaScript heap.', heapTotal);
    one('nodejs_heap_size_used_bytes', 'gauge', 'Used part of the JavaScript heap.', heapUsed);
    one('nodejs_external_memory_bytes', 'gauge', 'Memory of buffers outside of the heap.', external);
    const delays: readonly (readonly [name: string, nanoseconds: number])[] = [
      ['p50', this.#delay.percentile(50)],
      ['p99', this.#delay.percentile(99)],
      ['max', this.#delay.count === 0 ? 0 : this.#delay.max],
    ];
    this.#delay.reset();
    for (const [name, nanoseconds] of delays) {
      // A sample holds the time between two samples, too.
      const seconds = Math.max(0, nanoseconds / 1e9 - SAMPLE_MS / 1000);
      one(
        `nodejs_eventloop_lag_${name}_seconds`,
        'gauge',
        `Delay of the event loop (${name}) since the last scrape.`,
        seconds,
      );
    }
  }
}
