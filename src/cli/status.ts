/** `copyondemand status`: what the process that owns a copy does now, or what the metadata says. */

import { setTimeout as sleep } from 'node:timers/promises';
import { askOwner } from '../control/client.ts';
import type { Device } from '../device/types.ts';
import { isCodError } from '../errors.ts';
import { UsageError } from './failure.ts';
import { inspectTarget } from './inspect.ts';
import { syncedBytes } from './synced-bytes.ts';
import { formatBytes, formatDuration, formatPercent, formatRate } from './units.ts';

const WATCH_MS = 1000;

export interface StatusFlags {
  readonly json?: boolean;
  readonly watch?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
}

/** What the command prints with `--json`. Null: not known. */
export interface CopyStatus {
  readonly target: string;
  /** Process id of the owner; null: no process owns the copy, and all else comes from the metadata. */
  readonly pid: number | null;
  readonly state: string;
  readonly size: number;
  readonly blockSize: number;
  readonly syncedBlocks: number;
  readonly totalBlocks: number;
  readonly bytesPerSecond: number;
  readonly rateBytesPerSecond: number | null;
  readonly secondsLeft: number | null;
  readonly source: string | null;
  readonly lastError: { readonly code: string; readonly message: string } | null;
  readonly retries: number | null;
  readonly clients: number | null;
  readonly paused: boolean;
}

/** What the status says beside what its device does. */
interface Described {
  readonly target: string;
  readonly source: string | null;
  /** Undefined: nothing serves it. */
  readonly clients: (() => number) | undefined;
  /** Called when the device is closed. */
  readonly onClosed: () => void;
}

/** Returns a function that says what a device does, and remembers its last error. */
export function statusOf(device: Device, { target, source, clients, onClosed }: Described): () => CopyStatus {
  let lastError: CopyStatus['lastError'] = null;
  const follow = async (): Promise<void> => {
    for await (const event of device.events())
      if (event.type === 'error' || event.type === 'retry') lastError = { code: event.code, message: event.message };
    onClosed();
  };
  void follow();
  return () => {
    const status = device.status();
    const bytesPerSecond = Math.round(status.hydrateBytesPerSecond);
    return {
      target,
      pid: process.pid,
      state: status.state,
      size: status.size,
      blockSize: status.blockSize,
      syncedBlocks: status.syncedBlocks,
      totalBlocks: status.totalBlocks,
      bytesPerSecond,
      rateBytesPerSecond: status.rateBytesPerSecond ?? null,
      secondsLeft: bytesPerSecond > 0 ? Math.ceil((status.size - syncedBytes(status)) / bytesPerSecond) : null,
      source,
      lastError,
      retries: status.retries,
      clients: clients?.() ?? null,
      paused: status.state === 'paused',
    };
  };
}

/**
 * Prints the status of the copy at TARGET; with `--watch` each second, until no process owns it.
 * @throws {@link UsageError} if TARGET is empty; COD_NOT_FOUND if it is not a copy; COD_NOT_RUNNING if the owner does
 * not answer.
 */
export async function status(target: string, flags: StatusFlags): Promise<void> {
  if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
  const place = flags.metadata ?? target;
  for (;;) {
    const found = ((await askOwner(place, 'status')) as CopyStatus | undefined) ?? (await fromMetadata(target, flags));
    process.stdout.write(flags.json ? `${JSON.stringify(found)}\n` : describeStatus(found));
    if (!flags.watch || found.pid === null) return;
    await sleep(WATCH_MS);
  }
}

async function fromMetadata(target: string, { metadata }: StatusFlags): Promise<CopyStatus> {
  try {
    const { size, blockSize, syncedBlocks, totalBlocks } = await inspectTarget(
      target,
      metadata === undefined ? {} : { metadata },
    );
    const counts = { size, blockSize, syncedBlocks, totalBlocks };
    const unknown = { rateBytesPerSecond: null, secondsLeft: null, source: null, lastError: null, retries: null };
    return {
      target,
      pid: null,
      state: 'closed',
      ...counts,
      bytesPerSecond: 0,
      ...unknown,
      clients: null,
      paused: false,
    };
  } catch (error) {
    // The owner may have begun since it was looked for: its files change, or its copy is complete now.
    const found = isCodError(error) ? await askOwner(metadata ?? target, 'status') : undefined;
    if (found === undefined) throw error;
    return found as unknown as CopyStatus;
  }
}

/** Returns the status as one line. */
export function describeStatus(found: CopyStatus): string {
  const { size, totalBlocks, syncedBlocks, secondsLeft, bytesPerSecond, lastError } = found;
  const done = syncedBytes(found);
  const owner = found.pid === null ? 'no process owns it' : `process ${found.pid}`;
  const parts = [
    `${found.target}: ${found.state}, ${owner}`,
    `${formatBytes(done)} of ${formatBytes(size)} (${formatPercent(syncedBlocks, totalBlocks)})`,
    ...(bytesPerSecond > 0 ? [formatRate(bytesPerSecond)] : []),
    ...(secondsLeft === null ? [] : [`${formatDuration(secondsLeft)} left`]),
    ...(lastError === null ? [] : [`last error: ${lastError.code}: ${lastError.message}`]),
  ];
  return `${parts.join(', ')}\n`;
}
