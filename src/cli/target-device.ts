/**
 * What `copy`, `serve` and `finish` share: opening the device over a target, and reporting the progress of the copy.
 */

import { stat } from 'node:fs/promises';
import { withSignal } from '../async/with-signal.ts';
import type { OpenDeviceOptions } from '../device/open.ts';
import { patienceOf } from '../device/patience.ts';
import type { Device, DeviceEvent, InlineDevice } from '../device/types.ts';
import { CodError, type CodErrorCode } from '../errors.ts';
import { blockDeviceBytes } from '../platform/block-device.ts';
import { ioError } from '../platform/errno.ts';
import { grownSource } from '../sources/grown.ts';
import type { RetryReport } from '../sources/retry.ts';
import { UsageError } from './failure.ts';
import { checkSourceFlags, type HttpFlags } from './http-options.ts';
import { type ImageFlags, openImage } from './image.ts';
import type { Emit } from './json-lines.ts';
import { tell, tellEvent } from './log/told.ts';
import { timedTarget } from './metrics/timed-target.ts';
import type { Progress } from './progress.ts';
import type { RateControl } from './rate-control.ts';
import { withRepairAdvice } from './repair-advice.ts';
import { type SourceUri, showSourceUri } from './source-uri.ts';
import { syncedBytes } from './synced-bytes.ts';
import { Troubles } from './troubles.ts';
import { formatBytes } from './units.ts';
import { verifier } from './verifier.ts';

/** Parsed options that `copy` and `serve` share. */
export interface TargetFlags extends HttpFlags, ImageFlags {
  /** Path of an order file, which says what to copy first. */
  readonly order?: string;
  readonly sameSource?: boolean;
  /** Path of a manifest that all bytes of the source must match. */
  readonly manifest?: string;
  /** The root that it must have, in hex. */
  readonly manifestRoot?: string;
  /** Path of an older image. */
  readonly seed?: string;
  readonly takeOver?: boolean;
  /** The copy has the size of its target, a block device. */
  readonly grow?: boolean;
  readonly overwrite?: boolean;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** A copy that one run of the command begins or resumes. */
export interface TargetCopy {
  /** Undefined: a copy that exists is used without its source. */
  readonly uri: SourceUri | undefined;
  readonly target: string;
  readonly flags: TargetFlags & {
    readonly concurrency?: number;
    readonly hydrate?: boolean;
    readonly readOnly?: boolean;
  };
  readonly signal: AbortSignal;
  readonly emit: Emit;
  readonly progress: Progress;
}

/** @throws {@link UsageError} if the path is empty. */
export function checkTarget(target: string): void {
  if (target === '') throw new UsageError('TARGET is empty: give a path that does not exist yet, or a copy to resume');
}

const modules = () =>
  Promise.all([
    import('../device/open.ts'),
    import('../device/diagnostics.ts'),
    import('../platform/environment.ts'),
    import('../fs/node.ts'),
    import('./owner-answers.ts'),
  ]);

interface OpenTarget extends Pick<TargetCopy, 'uri' | 'target' | 'flags' | 'signal'> {
  /** Reports warnings before the device is open. Default: no events. */
  readonly emit?: Emit;
  /** Reports failures before the device is open. Default: they are not reported. */
  readonly troubles?: Troubles;
  /** Undefined: no background copy, or one that nothing limits. */
  readonly rate?: RateControl | undefined;
  /** Called with the size of a new copy, before anything is made. If it rejects, no copy begins. */
  readonly onSize?: (size: number) => Promise<void>;
  readonly onRead?: OpenDeviceOptions['onRead'] | undefined;
  /** The target is not read before it is complete, so long writes may bypass the page cache. */
  readonly direct?: boolean;
  /** As of `openDeviceIn`. */
  readonly asksFirst?: boolean;
  readonly patienceMs?: number;
  /** Returns the number of clients that use the copy. Default: nothing serves it. */
  readonly clients?: () => number;
}

/**
 * Opens the device over a target: begins a copy, or resumes it. A copy that exists does not wait for its source.
 * @throws {@link CodError} COD_EXISTS if the source is the target; the errors of the order file and of `openDevice`.
 * {@link UsageError} for options that the source does not have.
 */
export async function openTarget({
  uri,
  target,
  flags,
  signal,
  emit = () => undefined,
  troubles,
  rate,
  onSize,
  onRead,
  direct = false,
  asksFirst = false,
  patienceMs,
  clients,
}: OpenTarget): Promise<InlineDevice> {
  if (uri !== undefined) checkSourceFlags(uri, flags);
  if (uri !== undefined && flags.insecure) warn(`${showSourceUri(uri)}: the certificate is not verified`, emit);
  if (uri?.kind === 'file') {
    const { refuseSameFile } = await import('./same-file.ts');
    await refuseSameFile(uri.path, target, flags.metadata);
  }
  const [{ openDeviceIn }, { Diagnostics }, { systemEnvironment }, { localFileSystem }, { OwnerAnswers }] =
    await modules();
  const orders = flags.order === undefined ? undefined : await import('./order-file.ts');
  const order = await orders?.readOrder(flags.order!);
  const checkSize = async (size: number): Promise<void> => {
    if (order !== undefined) orders!.checkOrderSize(order, size);
    await onSize?.(size);
  };
  const verified = await verifier({ uri, target, flags, signal });
  const grownBytes = flags.grow ? await deviceBytes(target) : undefined;
  const { readOnly = false } = flags;
  const answers = new OwnerAnswers(target, { source: shownSource(uri), rate, clients });
  let device: InlineDevice | undefined;
  const source =
    uri &&
    (async () => {
      let isOpen = false;
      // The device reports the retries of a source that it has.
      const onRetry = (report: RetryReport): void => {
        if (isOpen) return;
        troubles?.retry(report);
        answers.retry(report);
      };
      const image = await openImage(
        uri,
        { ...flags, onRetry, ...(patienceMs === undefined ? {} : { patienceMs }) },
        signal,
      );
      isOpen = true;
      // The device tells of a source that it opens again.
      if (device === undefined) answers.recovered();
      try {
        const content = await verified(image);
        const opened = grownBytes === undefined ? content : grownSource(content, Math.max(grownBytes, image.size));
        if (device === undefined) await checkSize(opened.size);
        return opened;
      } catch (error) {
        await image.close();
        throw error;
      }
    });
  const options: OpenDeviceOptions = {
    source,
    sameSource: flags.sameSource ?? false,
    fileSystem: timedTarget(localFileSystem('.', { direct, readOnly }, { control: answers.control }), target),
    target,
    metadata: flags.metadata,
    overwrite: flags.overwrite ?? false,
    readOnly,
    signal,
    takeOver: flags.takeOver ?? false,
    ...(onRead === undefined ? {} : { onRead }),
    hydrate: (flags.hydrate ?? true) && {
      ...(order === undefined ? {} : { order: order.extents }),
      ...(rate?.rate === undefined ? {} : { rateBytesPerSecond: rate.rate }),
      ...(flags.concurrency === undefined ? {} : { concurrency: flags.concurrency }),
      // Without ranges, each stretch downloads everything before it again. One stretch of the whole source avoids that.
      ...(flags.streamWhole ? { concurrency: 1, extentBytes: Number.MAX_SAFE_INTEGER } : {}),
    },
  };
  const diagnostics = new Diagnostics(target, systemEnvironment.clock);
  device = await openDeviceIn(systemEnvironment, options, {
    asksFirst,
    patience: patienceMs === undefined ? undefined : patienceOf(patienceMs),
    diagnostics,
  }).catch(async (error: unknown) => {
    answers.failed();
    throw await withRepairAdvice(error, target, flags.metadata);
  });
  answers.opened(device, flags);
  try {
    await checkSize(device.size);
  } catch (error) {
    await device.close().catch(() => undefined);
    throw error;
  }
  return device;
}

/** Returns the size of a block device. @throws {@link UsageError} if the target is something else. */
async function deviceBytes(target: string): Promise<number> {
  const stats = await stat(target, { bigint: true }).catch((cause: unknown) => {
    throw ioError(`look at ${target}`, cause, { path: target });
  });
  if (!stats.isBlockDevice()) throw new UsageError('--grow needs a block device as TARGET');
  return blockDeviceBytes(stats.rdev);
}

/** Returns a source without secrets. */
export function shownSource(uri: SourceUri | undefined): string | null {
  return uri === undefined ? null : showSourceUri(uri);
}

/**
 * Reports the start of a copy, and a source without identity. Returns the bytes that the target holds already.
 * @param verification how to verify the complete copy; undefined if this run does
 */
export function tellStart(device: InlineDevice, copy: TargetCopy, verification: string | undefined): number {
  const { uri, target, flags, emit } = copy;
  const { size, identity } = device;
  const resumedBytes = syncedBytes(device.status());
  emit('start', { source: shownSource(uri), identity: identity ?? null, target, size, resumedBytes });
  if (uri !== undefined && identity === undefined) warn(noIdentity(uri, verification), emit);
  if (!flags.quiet && !flags.json && resumedBytes > 0) {
    tellEvent('info', `${target}: resumes at ${formatBytes(resumedBytes)} of ${formatBytes(size)}`);
  }
  return resumedBytes;
}

function noIdentity(uri: SourceUri, verification: string | undefined): string {
  const lacks = {
    file: 'is a block device, which has no version',
    nbd: 'is an NBD export, which has no version',
    http: 'has neither ETag nor Last-Modified',
    s3: 'has neither ETag nor Last-Modified',
  }[uri.kind];
  const advice = verification === undefined ? '' : `; ${verification}`;
  return `${showSourceUri(uri)} ${lacks}: if its content changes during the copy, the copy mixes both${advice}`;
}

/** Reports what may spoil the result. Printed with `--quiet` too. */
export function warn(message: string, emit: Emit): void {
  emit('warning', { message });
  tell('warning', `copyondemand: warning: ${message}`);
}

/** Decides whether a copy is given up after a failure, given the time since it got further. */
export type GiveUp = (event: DeviceEvent & { type: 'retry' | 'source-changed' }, idleMs: number) => boolean;

/**
 * Reports progress until the copy is complete.
 * @param tickMs milliseconds between two looks at the progress; undefined: nothing shows it
 * @param giveUp default: never
 * @throws the cause if the copy cannot continue, or is given up; `Interrupted` after a signal.
 */
export async function followCopy(
  device: Device,
  copy: TargetCopy,
  { tickMs, giveUp = () => false }: { readonly tickMs: number | undefined; readonly giveUp?: GiveUp },
): Promise<void> {
  const { signal, emit, progress } = copy;
  const { size } = device;
  let progressedAt = performance.now();
  await progress.begin({ label: 'copying', total: size, initial: syncedBytes(device.status()) });
  let shown = -1;
  const tick = () => {
    const status = device.status();
    const bytes = syncedBytes(status);
    progress.update(bytes);
    if (bytes === shown) return;
    shown = bytes;
    progressedAt = performance.now();
    const { sourceBytes, hydrateBytesPerSecond } = status;
    emit('progress', {
      phase: 'copying',
      bytes,
      size,
      sourceBytes,
      hydrateBytesPerSecond: Math.round(hydrateBytesPerSecond),
    });
  };
  const timer = tickMs === undefined ? undefined : setInterval(tick, tickMs);
  const over = new AbortController();
  void tellLackOfRoom(device, copy, over.signal);
  const failures = tellFailures(device, copy, over.signal, (event) => {
    tick();
    if (event.code === UsageError.name) throw new UsageError(event.message);
    if (giveUp(event, performance.now() - progressedAt)) throw errorOf(event);
  });
  try {
    await withSignal(Promise.race([device.hydrated, failures]), signal);
    tick();
    progress.end();
    emit('hydrated', { bytes: size, sourceBytes: device.status().sourceBytes });
  } finally {
    clearInterval(timer);
    over.abort();
  }
}

/** Warns if the copy does not fit on its disk. It begins meanwhile: a slow source may be asked for its zeros. */
async function tellLackOfRoom(device: Device, copy: TargetCopy, signal: AbortSignal): Promise<void> {
  const { uri, target, flags, emit } = copy;
  if (uri === undefined || flags.hydrate === false || flags.readOnly) return;
  try {
    const { lackOfRoom } = await import('./room.ts');
    const warning = await lackOfRoom(device, target, signal);
    if (warning !== undefined && !signal.aborted) warn(warning, emit);
  } catch {
    // Without the numbers there is no warning. The copy reports its own failures.
  }
}

function errorOf({ code, message }: { code: string; message: string }): Error {
  return code.startsWith('COD_')
    ? new CodError(code as CodErrorCode, message)
    : Object.assign(new Error(message), { name: code });
}

/** Reports failed attempts. Rejects as `check` throws. */
async function tellFailures(
  device: Device,
  copy: TargetCopy,
  signal: AbortSignal,
  check: (event: DeviceEvent & { type: 'retry' | 'source-changed' }) => void,
): Promise<never> {
  const troubles = new Troubles(copy);
  for await (const event of device.events({ signal })) {
    if (event.type === 'recovered') troubles.recovered();
    if (event.type !== 'retry' && event.type !== 'source-changed') continue;
    check(event);
    if (event.type === 'retry') troubles.retry(event);
    else troubles.changed(event);
  }
  // The device is closed, or its copy complete: `hydrated` tells.
  return new Promise<never>(() => undefined);
}
