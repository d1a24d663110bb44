/** `copyondemand status`: what the process that owns a copy does now, or what the metadata says. */

import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { controlOfDisk, disksAt, isUnowned } from '../control/client.ts';
import { type CopyFailure, type CopyStatus, UNKNOWN } from '../control/status.ts';
import { isCodError } from '../errors.ts';
import { type ControlFlags, checkControlFlags, controlFor } from './control-flags.ts';
import { UsageError } from './failure.ts';
import { extentsOf, inspectTarget } from './inspect.ts';
import { mapCells } from './map-picture.ts';
import { mapOfCells } from './status-screen.ts';
import { syncedBytes } from './synced-bytes.ts';
import { formatBytes, formatDuration, formatPercent, formatRate } from './units.ts';

const WATCH_MS = 1000;

export interface StatusFlags extends ControlFlags {
  readonly json?: boolean;
  readonly watch?: boolean;
}

/**
 * Prints the status of the copy at TARGET, or of all disks at a control socket. With `--watch`, prints it each second
 * until no process owns the copy; on a terminal, draws it in its place until the user leaves.
 * @throws {@link UsageError} for wrong arguments; COD_NOT_FOUND if it is not a copy; COD_NOT_RUNNING if the owner does
 * not answer.
 */
export async function status(target: string | undefined, flags: StatusFlags): Promise<void> {
  checkControlFlags(flags);
  const { control } = flags;
  if (target === undefined) {
    if (control === undefined) throw new UsageError("missing required argument 'target', or --control");
    return statusOfAll(control, flags);
  }
  if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
  const { stdin, stdout } = process;
  if (flags.watch && !flags.json && stdout.isTTY && process.env['TERM'] !== 'dumb') {
    const { watchOnTerminal } = await import('./status-watch.ts');
    return watchOnTerminal({ input: stdin, output: stdout, ask: (cells) => statusOf(target, flags, cells) });
  }
  await eachSecond(async () => {
    const found = await statusOf(target, flags);
    stdout.write(flags.json ? `${JSON.stringify(found)}\n` : describeStatus(found));
    return flags.watch === true && found.pid !== null;
  });
}

/** Repeats `print` for as long as it resolves to true, and another program reads the output: `… | head -n 1`. */
async function eachSecond(print: () => Promise<boolean>): Promise<void> {
  let isRead = true;
  process.stdout.once('error', () => {
    isRead = false;
  });
  while ((await print()) && isRead) await sleep(WATCH_MS);
}

/** Prints a line for each disk, also for those that are not open. */
async function statusOfAll(socket: string, { json, watch = false }: StatusFlags): Promise<void> {
  await eachSecond(async () => {
    const found: CopyStatus[] = [];
    for (const name of await disksAt(socket)) found.push(await statusOfDisk(socket, name));
    process.stdout.write(found.map((each) => (json ? `${JSON.stringify(each)}\n` : describeStatus(each))).join(''));
    return watch;
  });
}

async function statusOfDisk(socket: string, name: string): Promise<CopyStatus> {
  try {
    return await controlOfDisk(socket, name).status();
  } catch (error) {
    if (!isCodError(error, 'COD_NOT_RUNNING')) throw error;
    const { code, message } = error;
    const lastError = { code, message, time: new Date().toISOString(), recoveredAt: null };
    return { ...UNKNOWN, target: name, pid: null, state: 'closed', lastError };
  }
}

async function statusOf(target: string, flags: StatusFlags, cells = 0): Promise<CopyStatus> {
  const { metadata } = flags;
  const control = controlFor(target, flags);
  if (flags.control !== undefined) return control.status({ cells });
  try {
    return await control.status({ cells });
  } catch (error) {
    if (!isUnowned(error)) throw error;
  }
  try {
    return await fromMetadata(target, metadata, cells);
  } catch (error) {
    // An owner may have begun since it was looked for: its files change, or its copy is complete now.
    return control.status({ cells }).catch(() => Promise.reject(error));
  }
}

async function fromMetadata(target: string, metadata: string | undefined, cells: number): Promise<CopyStatus> {
  const found = await inspectTarget(target, metadata === undefined ? {} : { metadata });
  const { size, blockSize, syncedBlocks, totalBlocks, dirty } = found;
  const secondsLeft = syncedBlocks === totalBlocks ? 0 : null;
  const counts = { size, blockSize, syncedBlocks, totalBlocks, dirtyBlocks: dirty.length, secondsLeft };
  const map = cells > 0 ? mapOfCells(mapCells(extentsOf(found), cells)) : null;
  return { ...UNKNOWN, target, pid: null, state: 'closed', ...counts, metadata: resolve(metadata ?? target), map };
}

/** Returns the status as one line. */
export function describeStatus(found: CopyStatus): string {
  const { size, blockSize, totalBlocks, syncedBlocks, secondsLeft, bytesPerSecond, lastError } = found;
  const parts = [`${found.target}: ${found.state}`, found.pid === null ? 'no process owns it' : `process ${found.pid}`];
  if (size !== null && blockSize !== null && totalBlocks !== null && syncedBlocks !== null) {
    const done = syncedBytes({ size, blockSize, totalBlocks, syncedBlocks });
    parts.push(`${formatBytes(done)} of ${formatBytes(size)} (${formatPercent(syncedBlocks, totalBlocks)})`);
  }
  if (bytesPerSecond > 0) parts.push(formatRate(bytesPerSecond));
  if (secondsLeft !== null && secondsLeft > 0) parts.push(`${formatDuration(secondsLeft)} left`);
  if (lastError !== null) parts.push(describeFailure(lastError));
  return `${parts.join(', ')}\n`;
}

function describeFailure({ code, message, time, recoveredAt }: CopyFailure): string {
  return `last error${recoveredAt === null ? '' : ', recovered'}: ${time} ${code}: ${message}`;
}
