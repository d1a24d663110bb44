/** Draws the screen of `status --watch`: lines of text, from statuses and the times at which they came. */

import type { CopyStatus } from '../control/status.ts';
import { type Cell, drawCells, drawLegend } from './map-picture.ts';
import { syncedBytes } from './synced-bytes.ts';
import { counted, formatBytes, formatCount, formatDuration, formatPercent, formatRate } from './units.ts';

/** Rates are averages over this time. */
const WINDOW_MS = 5000;
const MAX_MAP_ROWS = 8;
/** Lines of a long text, such as the message of an error. */
const MAX_TEXT_ROWS = 3;
/** The lines beside the map, mostly. */
const OTHER_ROWS = 16;
const INDENT = 2;

/** How the screen is drawn. */
export interface ScreenOptions {
  readonly columns: number;
  readonly rows: number;
  readonly colour: boolean;
  /** Milliseconds since 1970, by this machine's clock. */
  readonly now: number;
}

/** Returns the cells of a map that fits the screen. */
export function mapSize({ columns, rows }: Pick<ScreenOptions, 'columns' | 'rows'>): number {
  const lines = Math.max(1, Math.min(MAX_MAP_ROWS, rows - OTHER_ROWS));
  return Math.max(1, columns - 2 * INDENT) * lines;
}

/** What users and the copy do per second. */
interface Activity {
  readonly demandBytes: number;
  readonly reads: Calls;
  readonly writes: Calls;
  readonly flushes: Calls;
}

interface Calls {
  readonly perSecond: number;
  /** Milliseconds of a call, on the average. */
  readonly ms: number;
}

/** Remembers the statuses of the last seconds. */
export class Samples {
  #samples: { readonly at: number; readonly status: CopyStatus }[] = [];

  /** @param at milliseconds of a clock that never decreases */
  add(at: number, status: CopyStatus): void {
    const last = this.#samples.at(-1)?.status;
    // Another owner counts from 0.
    if (last?.pid !== status.pid || last?.since !== status.since) this.#samples = [];
    this.#samples.push({ at, status });
    while (this.#samples.length > 2 && at - this.#samples[0]!.at > WINDOW_MS) this.#samples.shift();
  }

  get activity(): Activity | undefined {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const seconds = (last?.at ?? 0) / 1000 - (first?.at ?? 0) / 1000;
    if (first === undefined || last === undefined || seconds <= 0) return undefined;
    const calls = (kind: 'reads' | 'writes' | 'flushes'): Calls => {
      const [before, after] = [first.status[kind], last.status[kind]];
      const count = (after?.count ?? 0) - (before?.count ?? 0);
      const ms = (after?.totalMs ?? 0) - (before?.totalMs ?? 0);
      return { perSecond: count / seconds, ms: count > 0 ? ms / count : 0 };
    };
    const demandBytes = (last.status.demand?.bytes ?? 0) - (first.status.demand?.bytes ?? 0);
    return {
      demandBytes: demandBytes / seconds,
      reads: calls('reads'),
      writes: calls('writes'),
      flushes: calls('flushes'),
    };
  }
}

/** Returns the lines of the screen, none wider or more than fit. */
export function drawScreen(
  status: CopyStatus,
  activity: Activity | undefined,
  options: ScreenOptions & { readonly problem?: string | undefined },
): string[] {
  const { columns, rows, problem, now } = options;
  const row = (name: string, text: string): string => cut(`${name.padEnd(10)}${text}`, columns);
  const lines = [cut(`${status.target}: ${stateInWords(status, now)}`, columns)];
  const rowsOf = (text: string): string[] => wrap(text, Math.max(1, columns - 10)).map((part) => row('', part));
  if (problem !== undefined) lines.push(...rowsOf(problem));
  const { size, blockSize, syncedBlocks, totalBlocks } = status;
  if (size !== null && blockSize !== null && syncedBlocks !== null && totalBlocks !== null) {
    const bytes = syncedBytes({ size, blockSize, syncedBlocks, totalBlocks });
    const text = `${formatPercent(syncedBlocks, totalBlocks)}, ${formatBytes(bytes)} of ${formatBytes(size)}`;
    lines.push(row('copied', `${bar(syncedBlocks / totalBlocks, columns - text.length - 12)}${text}`));
  }
  if (status.pid !== null) {
    lines.push(row('copy', copyInWords(status)));
    if (activity !== undefined) {
      lines.push(row('users', usersInWords(activity)));
      lines.push(row('demand', `${formatRate(activity.demandBytes)} from the source`));
    }
    lines.push(row('clients', status.clients === null ? 'not counted' : formatCount(status.clients)));
    if (status.source !== null) lines.push(row('source', status.source));
    lines.push(row('owner', ownerInWords(status, now)));
  }
  if (status.metadata !== null) lines.push(row('metadata', metadataInWords(status)));
  const failures = failuresInWords(status, now);
  if (failures !== undefined) lines.push(row('errors', failures), ...rowsOf(messageInWords(status)));
  const map = mapLines(status, options);
  // The cursor has a line of its own, and so has the last text. A small screen still has one line of the map.
  const room = rows - 2;
  const isRoomy = lines.length + map.length + 2 <= room;
  const gap = isRoomy ? [''] : [];
  const shown = lines.slice(1, Math.max(0, room - 1 - Math.min(1, map.length)) + 1);
  const mapped = map.slice(0, Math.max(0, room - 1 - shown.length));
  return [lines[0]!, ...gap, ...shown, ...gap, ...mapped, cut('q leaves', columns)];
}

/** Divides a text among at most {@link MAX_TEXT_ROWS} lines. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (let start = 0; start < text.length && lines.length < MAX_TEXT_ROWS; start += width)
    lines.push(text.slice(start, start + width));
  return lines;
}

function cut(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, Math.max(0, columns - 1))}…`;
}

/** A bar of at most 30 characters, and a space; nothing if there is no room. */
function bar(share: number, room: number): string {
  const width = Math.min(30, room);
  if (width < 5) return '';
  const done = Math.floor(share * width);
  return `${'█'.repeat(done)}${'░'.repeat(width - done)} `;
}

/** Says what the owner does, and what it waits for. */
export function stateInWords({ pid, state, lastError, nextAttemptAt }: CopyStatus, now: number): string {
  if (pid === null) return 'no process owns it';
  switch (state) {
    case 'opening':
      return `is being opened${nextAttemptAt === null ? '' : `, ${nextInWords(nextAttemptAt, now)}`}`;
    case 'hydrating':
      if (nextAttemptAt === null || lastError === null) return 'copying';
      return `copying, with failures: ${lastError.code}, ${nextInWords(nextAttemptAt, now)}`;
    case 'paused':
      return 'paused, until `copyondemand resume`';
    case 'waiting': {
      const isTarget = lastError?.code === 'COD_NO_SPACE' || lastError?.code === 'COD_TARGET_IO';
      const what = lastError?.code === 'COD_NO_SPACE' ? 'room on the disk' : isTarget ? 'its disk' : 'the source';
      const next = nextAttemptAt === null ? '' : `, ${nextInWords(nextAttemptAt, now)}`;
      return `waiting for ${what}${lastError === null ? '' : `: ${lastError.code}`}${next}`;
    }
    case 'idle':
      return 'no background copy, only what is read is copied';
    case 'hydrated':
      return 'complete';
    case 'poisoned':
      return 'failed: start the process again, which recovers the copy';
    case 'closed':
      return 'being closed';
    default:
      return state;
  }
}

function nextInWords(time: string, now: number): string {
  const seconds = Math.ceil((Date.parse(time) - now) / 1000);
  return seconds > 0 ? `next attempt in ${seconds} s` : 'trying again';
}

function ago(time: string, now: number): string {
  const seconds = Math.max(0, Math.floor((now - Date.parse(time)) / 1000));
  return `${seconds < 60 ? `${seconds} s` : formatDuration(seconds)} ago`;
}

function copyInWords({ state, bytesPerSecond, rateBytesPerSecond, rateFile, secondsLeft }: CopyStatus): string {
  const limit = rateBytesPerSecond === null ? 'no limit' : `at most ${formatRate(rateBytesPerSecond)}`;
  const parts = [formatRate(bytesPerSecond), rateFile === null ? limit : `${limit} (${rateFile})`];
  if (state === 'hydrating')
    parts.push(secondsLeft === null ? 'time left unknown' : `${formatDuration(secondsLeft)} left`);
  return parts.join(', ');
}

function usersInWords({ reads, writes, flushes }: Activity): string {
  const kind = (name: string, { perSecond, ms }: Calls): string => {
    const rate = perSecond > 0 && perSecond < 10 ? perSecond.toFixed(1) : formatCount(Math.round(perSecond));
    return `${rate} ${name}/s${perSecond > 0 ? ` of ${ms.toFixed(1)} ms` : ''}`;
  };
  return [kind('reads', reads), kind('writes', writes), kind('flushes', flushes)].join(', ');
}

function ownerInWords({ pid, since }: CopyStatus, now: number): string {
  return `process ${pid}${since === null ? '' : `, since ${ago(since, now)}`}`;
}

function metadataInWords({ metadata, metadataBytes, dirtyBlocks }: CopyStatus): string {
  const parts = [`${metadata}.*`];
  if (metadataBytes !== null) parts.push(`${formatBytes(metadataBytes)} written`);
  if (dirtyBlocks !== null && dirtyBlocks > 0) parts.push(`${counted(dirtyBlocks, 'block')} written in part`);
  return parts.join(', ');
}

function failuresInWords({ lastError, retries }: CopyStatus, now: number): string | undefined {
  const failed = retries === null || retries === 0 ? [] : [`${counted(retries, 'attempt')} failed`];
  if (lastError !== null) {
    failed.push(`the last one ${ago(lastError.time, now)}`);
    if (lastError.recoveredAt !== null) failed.push(`recovered ${ago(lastError.recoveredAt, now)}`);
  }
  return failed.length === 0 ? undefined : failed.join(', ');
}

function messageInWords({ lastError }: CopyStatus): string {
  return lastError === null ? '' : `${lastError.code}: ${lastError.message}`;
}

const CELLS: Readonly<Record<string, Cell>> = { '.': 'unsynced', '+': 'partly', '!': 'dirty', '#': 'synced' };
const LETTERS: Readonly<Record<Cell, string>> = { unsynced: '.', partly: '+', dirty: '!', synced: '#' };

/** Returns cells as the map of a status. */
export function mapOfCells(cells: readonly Cell[]): string {
  return cells.map((cell) => LETTERS[cell]).join('');
}

function mapLines({ map, size }: CopyStatus, { columns, colour }: ScreenOptions): string[] {
  if (map === null || map === '') return [];
  const width = Math.max(1, columns - 2 * INDENT);
  const cells = Array.from(map, (letter): Cell => CELLS[letter] ?? 'unsynced');
  const lines: string[] = [];
  for (let start = 0; start < cells.length; start += width)
    lines.push(`${' '.repeat(INDENT)}${drawCells(cells.slice(start, start + width), { colour })}`);
  // Colours take no columns.
  const room = columns - INDENT - drawLegend({ colour: false }).length;
  if (room < 0) return lines;
  const each = size === null ? '' : `   (${formatBytes(Math.round(size / cells.length))} each)`;
  return [...lines, `${' '.repeat(INDENT)}${drawLegend({ colour })}${each.length <= room ? each : ''}`];
}
