/**
 * The client's side of the control channel.
 *
 * Nothing that comes is trusted: an owner may be stopped or busy, and another program may listen at a leftover path.
 * The first answer to a request comes within 5 s, or the call rejects. What is kept of an answer is bounded.
 */

import { lstatSync } from 'node:fs';
import type { Socket } from 'node:net';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DeviceEvent } from '../device/types.ts';
import { CodError, type CodErrorCode, isCodError } from '../errors.ts';
import { nameOf, type Owner, parseOwner, RELEASED, readIfThere } from '../fs/lock-owner.ts';
import { connect } from '../fs/lock-socket.ts';
import { lockFileOf } from '../fs/node-lock.ts';
import { mayBeAlive, thisMachine, thisProcess } from '../fs/node-process.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import { linesOf, parseObject, send } from './lines.ts';
import { directoryOf } from './paths.ts';
import { type CopyStatus, UNKNOWN } from './status.ts';

/** Less than 5 s, with what comes before and after. */
const PATIENCE_MS = 4500;
const RETRY_MS = 100;
const MAX_ANSWER_BYTES = 2 ** 20;

/** Options of {@link controlOf}. */
export interface ControlOptions {
  /** Prefix of the paths of the metadata files, if the copy was opened with one. Default: the target. */
  readonly metadata?: string | undefined;
  /** Aborts calls. The owner completes a snapshot all the same. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Asks and steers the process that owns a copy. Each call makes a connection of its own, so there is nothing to close.
 *
 * Every call rejects with COD_NOT_RUNNING if no process owns the copy; `details.hasOwner` is false then. The same code
 * with `hasOwner: true`: the owner does not answer within 5 s, or is on another machine.
 * COD_TARGET_IO: the lock cannot be read. Only the owner's user and root may ask.
 */
export interface CopyControl {
  /**
   * Returns what the owner does.
   *
   * @param options.cells the most cells of `map`, 0 to 4096. Default: 0, no map.
   */
  status(options?: { readonly cells?: number }): Promise<CopyStatus>;
  /**
   * Stops the background copy until {@link resume}, or until the owner ends. No effect after its end.
   *
   * @throws {@link CodError} COD_UNSUPPORTED when the owner has no background copy; COD_POISONED.
   */
  pause(): Promise<CopyStatus>;
  /** Continues the background copy. @throws {@link CodError} as {@link pause}. */
  resume(): Promise<CopyStatus>;
  /**
   * Limits the background copy until the owner ends. A rate file of the owner counts more.
   *
   * @param bytesPerSecond above 0; undefined: no limit
   * @throws {@link CodError} as {@link pause}. `RangeError` for any other number.
   */
  setRate(bytesPerSecond: number | undefined): Promise<CopyStatus>;
  /**
   * As `snapshot` of `Device`. May take any time. Resolves to the process id of the owner.
   *
   * @param to path in the directory of the target
   * @throws {@link CodError} as `Device.snapshot`. `RangeError` when `to` is in another directory.
   */
  snapshot(to: string): Promise<{ readonly pid: number }>;
  /**
   * Yields the events of the owner's device until it is closed, from the first `next` on. A slow consumer never delays
   * the owner: it misses events, and gets `lost` in their place.
   *
   * @throws {@link CodError} COD_NOT_RUNNING when the owner dies; COD_UNSUPPORTED when 8 others follow its events.
   */
  events(): AsyncIterableIterator<DeviceEvent>;
}

/**
 * Returns the control of the copy at `target`, which a process on this machine owns: `copyondemand serve` or `copy`, or
 * a program that has opened it with `nodeFileSystem`. Does no I/O.
 *
 * @param target path of the copy
 * @example
 * ```ts
 * import { bytesSource, openDevice } from 'copyondemand';
 * import { controlOf, nodeFileSystem } from 'copyondemand/node';
 *
 * const source = bytesSource(new Uint8Array(2 ** 20));
 * await using device = await openDevice({ source, fileSystem: nodeFileSystem('.'), target: 'disk.raw' });
 * await device.hydrated;
 *
 * // In this or in another process of the same user:
 * const { state, secondsLeft } = await controlOf('disk.raw').status();
 * console.log(state, secondsLeft); // hydrated 0
 * ```
 */
export function controlOf(target: string, { metadata = target, signal }: ControlOptions = {}): CopyControl {
  if (typeof target !== 'string' || target === '') throw new TypeError('`target` must be a path, a non-empty string');
  return controlBy({ target, signal, find: () => findOwner(target, metadata) });
}

/** The control of a disk by its name, at the control socket of a process with many disks (control/many.ts). */
export function controlOfDisk(path: string, name: string): CopyControl {
  return controlBy({ target: name, find: () => findProcess(path, { disk: name }) });
}

/** Returns the names of the disks at a control socket. @throws {@link CodError} COD_NOT_RUNNING */
export async function disksAt(path: string): Promise<readonly string[]> {
  const asked: Asked = { target: path, find: () => findProcess(path, {}) };
  for await (const { disks } of conversation(asked, {}))
    if (Array.isArray(disks)) return disks.map((name) => shown(String(name)));
  throw ended();
}

function controlBy(asked: Asked): CopyControl {
  const { target } = asked;
  const talk = (request: object): AsyncGenerator<Answer> => conversation(asked, request);
  const ask = async (command: string, argument?: object): Promise<CopyStatus> => {
    for await (const answer of talk({ ...argument, command })) return statusOf(target, answer);
    throw ended();
  };
  return {
    status: ({ cells = 0 } = {}) => ask('status', { cells }),
    pause: () => ask('pause'),
    resume: () => ask('resume'),
    setRate: async (rate) => {
      if (rate !== undefined && !(rate > 0 && rate < Number.POSITIVE_INFINITY))
        throw new RangeError(`the rate must be above 0 bytes per second, not ${rate}`);
      return ask('set-rate', { rate: rate ?? null });
    },
    snapshot: async (to) => {
      const directory = directoryOf(target);
      if (directoryOf(to) !== directory) throw new RangeError(`${to} must be in the directory of ${target}`);
      let count = 0;
      for await (const { pid } of talk({ command: 'snapshot', directory, name: basename(to) }))
        if (++count === 2) return { pid: Number(pid) };
      throw ended();
    },
    events: async function* () {
      let isFirst = true;
      for await (const { event } of talk({ command: 'events' })) {
        if (!isFirst && event === undefined) return;
        if (!isFirst) yield event as DeviceEvent;
        isFirst = false;
      }
    },
  };
}

/** Whether an error of {@link controlOf} says that no process owns the copy. */
export function isUnowned(error: unknown): boolean {
  return isCodError(error, 'COD_NOT_RUNNING') && error.details['hasOwner'] === false;
}

interface Asked {
  /** The copy as messages name it. */
  readonly target: string;
  readonly signal?: AbortSignal | undefined;
  /** Connects. @throws {@link CodError} COD_NOT_RUNNING */
  find(): Promise<Found>;
}

type Answer = Readonly<Record<string, unknown>>;

/** An owner that can be asked. */
interface Found {
  readonly owner?: Owner;
  readonly socket: Socket;
  /** The first line to send. */
  readonly hello: object;
}

/** Yields the answers to a request, until the caller has enough. The first one comes in time. */
async function* conversation(asked: Asked, request: object): AsyncGenerator<Answer> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error('no answer within 5 s')), PATIENCE_MS);
  const signal = asked.signal === undefined ? late.signal : AbortSignal.any([late.signal, asked.signal]);
  let found: Found | undefined;
  const stop = (): void => void found?.socket.destroy(signal.reason as Error);
  signal.addEventListener('abort', stop);
  try {
    for (;;) {
      signal.throwIfAborted();
      found = await asked.find();
      signal.throwIfAborted();
      const lines = linesOf(found.socket, MAX_ANSWER_BYTES);
      const first = await firstOf(found, lines, request);
      if (first === undefined) {
        // Its places for clients are taken, or it has just ended.
        found.socket.destroy();
        await sleep(RETRY_MS, undefined, { signal });
        continue;
      }
      clearTimeout(timer);
      yield answerOf(first);
      for await (const line of lines) yield answerOf(line);
      throw ended();
    }
  } catch (cause) {
    asked.signal?.throwIfAborted();
    if (cause instanceof CodError) throw cause;
    throw notRunning(
      asked,
      found?.owner,
      `does not answer: ${reasonOf(late.signal.aborted ? late.signal.reason : cause)}`,
    );
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
    found?.socket.destroy();
  }
}

/** Returns the first line of the answer. Undefined: the connection ended. */
async function firstOf(
  { hello, socket }: Found,
  lines: AsyncGenerator<string>,
  request: object,
): Promise<string | undefined> {
  try {
    await send(socket, hello);
    await send(socket, request);
    const { done, value } = await lines.next();
    return done ? undefined : value;
  } catch (error) {
    if (ENDED.has(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

const ENDED: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE']);

function ended(): Error {
  return new Error('the connection ended');
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function answerOf(line: string): Answer {
  const answer = parseObject(line);
  if (answer === undefined) throw new Error('its answer is no JSON object');
  const { error } = answer as { error?: { code?: unknown; message?: unknown } };
  if (error === undefined) return answer;
  const { code, message } = error ?? {};
  if (typeof code !== 'string' || !/^COD_[A-Z_]+$/.test(code) || typeof message !== 'string')
    throw new Error('its answer is no error');
  throw new CodError(code as CodErrorCode, shown(message));
}

/** Escape sequences of a stranger must not reach a terminal. */
function shown(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]+/gu, ' ');
}

// The owner

function notRunning({ target }: Pick<Asked, 'target'>, owner: Owner | undefined, problem?: string): CodError {
  const who = owner === undefined ? 'its owner' : nameOf(owner);
  const message =
    problem === undefined
      ? `no process copies ${target}: start it with \`copyondemand serve\` or \`copy\``
      : `${who} owns ${target}, and ${problem}`;
  const { pid, host } = owner ?? {};
  return new CodError('COD_NOT_RUNNING', message, {
    details: { target, hasOwner: problem !== undefined, ...(pid && { pid }), ...(host && { host }) },
  });
}

/** Connects to the owner of a copy. @throws {@link CodError} COD_NOT_RUNNING */
export async function findOwner(target: string, metadata: string): Promise<Found> {
  const asked = { target };
  const { file, line } = lockOf(metadata);
  if (line === undefined) throw notRunning(asked, undefined);
  const owner = parseOwner(line);
  if (owner === undefined) {
    const message = `${file} names no owner: another program or a newer version may have made it`;
    throw new CodError('COD_NOT_RUNNING', message, { details: { target, file, hasOwner: true } });
  }
  if (owner.beat === RELEASED) throw notRunning(asked, undefined);
  const { bootId, machineId } = thisMachine();
  const isHere = owner.bootId === bootId || (machineId !== undefined && owner.machineId === machineId);
  if (!isHere) throw notRunning(asked, owner, 'is on another machine, or was: ask there');
  if (owner.socket === undefined || owner.token === undefined) {
    if (!mayBeAlive(owner, thisProcess())) throw notRunning(asked, undefined);
    throw notRunning(asked, owner, 'has no socket to ask it');
  }
  const path = `${file}.${owner.socket}`;
  try {
    if (!lstatSync(path).isSocket()) throw notRunning(asked, owner, `${path} is no socket`);
    const socket = await connect(path);
    // What reads or writes next rejects.
    socket.on('error', () => undefined);
    return { owner, socket, hello: { token: owner.token } };
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ECONNREFUSED') throw notRunning(asked, undefined);
    if (cause instanceof CodError) throw cause;
    throw notRunning(asked, owner, `cannot be asked: ${reasonOf(cause)}`);
  }
}

/** Connects to a process with many disks. @throws {@link CodError} COD_NOT_RUNNING */
async function findProcess(path: string, hello: object): Promise<Found> {
  try {
    const socket = await connect(path);
    // What reads or writes next rejects.
    socket.on('error', () => undefined);
    return { socket, hello };
  } catch (cause) {
    const message = `no process can be asked at ${path}: ${reasonOf(cause)}`;
    throw new CodError('COD_NOT_RUNNING', message, { cause, details: { path, hasOwner: true } });
  }
}

/** Reads the lock. Without its directory, there is none. */
function lockOf(metadata: string): { readonly file: string; readonly line?: string | undefined } {
  let file = metadata;
  try {
    file = lockFileOf(metadata);
    return { file, line: readIfThere(file) };
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return { file };
    const who = errnoOf(cause) === 'EACCES' ? ' (only the user of its owner may)' : '';
    throw ioError(`read ${file}${who}`, cause, { path: file });
  }
}

// The status

type Kind = 'number' | 'string' | 'boolean' | 'object';

const KINDS: Readonly<Record<Exclude<keyof CopyStatus, 'target'>, Kind>> = {
  pid: 'number',
  state: 'string',
  size: 'number',
  blockSize: 'number',
  syncedBlocks: 'number',
  totalBlocks: 'number',
  dirtyBlocks: 'number',
  bytesPerSecond: 'number',
  rateBytesPerSecond: 'number',
  rateFile: 'string',
  secondsLeft: 'number',
  source: 'string',
  metadata: 'string',
  lastError: 'object',
  nextAttemptAt: 'string',
  retries: 'number',
  clients: 'number',
  paused: 'boolean',
  since: 'string',
  metadataBytes: 'number',
  demand: 'object',
  background: 'object',
  reads: 'object',
  writes: 'object',
  flushes: 'object',
  errors: 'object',
  map: 'string',
};

/** Takes what is known. An owner of another version may tell more or less. */
function statusOf(target: string, answer: Answer): CopyStatus {
  const status: Record<string, unknown> = { ...UNKNOWN, target };
  for (const [field, kind] of Object.entries(KINDS)) {
    const value = answer[field] ?? undefined;
    if (value === undefined) continue;
    if (typeof value !== kind) throw noStatus(target, field);
    status[field] = plain(value);
  }
  for (const field of ['state', 'pid']) if (status[field] === undefined) throw noStatus(target, field);
  return status as unknown as CopyStatus;
}

function noStatus(target: string, field: string): CodError {
  return new CodError('COD_NOT_RUNNING', `the owner of ${target} answers with a wrong field \`${field}\``, {
    details: { target, hasOwner: true },
  });
}

/** Returns a value without what does not belong into a status. */
function plain(value: unknown): unknown {
  if (typeof value === 'string') return shown(value);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [key, typeof each === 'string' ? shown(each) : each]),
  );
}
