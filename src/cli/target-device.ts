/** What `copy` and `serve` share: opening the device over a target, and reporting the progress of the copy. */

import { withSignal } from '../async/with-signal.ts';
import type { Answer } from '../control/server.ts';
import type { OpenDeviceOptions } from '../device/open.ts';
import type { Device } from '../device/types.ts';
import { CodError } from '../errors.ts';
import type { Source } from '../sources/source.ts';
import { UsageError } from './failure.ts';
import type { Emit } from './json-lines.ts';
import type { Progress } from './progress.ts';
import { type SourceUri, showSourceUri } from './source-uri.ts';
import { syncedBytes } from './synced-bytes.ts';
import { formatBytes } from './units.ts';

/** A copy that one run of the command begins or resumes. */
export interface TargetCopy {
  readonly uri: SourceUri;
  readonly source: Source;
  readonly target: string;
  readonly flags: {
    readonly order?: string;
    readonly streamWhole?: boolean;
    readonly concurrency?: number;
    readonly hydrate?: boolean;
    readonly takeOver?: boolean;
    readonly readOnly?: boolean;
    readonly quiet?: boolean;
    readonly json?: boolean;
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
    import('../index.ts'),
    import('../fs/node.ts'),
    import('../control/server.ts'),
    import('./status.ts'),
    import('./snapshot.ts'),
  ]);

/**
 * Starts loading the device's modules while the source is asked for its size. {@link openTarget} reports a failed
 * import.
 */
export function preloadDevice(): void {
  modules().catch(() => undefined);
}

interface OpenTarget extends Pick<TargetCopy, 'uri' | 'source' | 'target' | 'flags' | 'signal'> {
  readonly rate: number | undefined;
  readonly onRead?: OpenDeviceOptions['onRead'] | undefined;
  /** The target is not read before it is complete, so long writes may bypass the page cache. */
  readonly direct?: boolean;
}

/**
 * Opens the device over a target: begins a copy, or resumes it.
 * @throws {@link CodError} COD_EXISTS if the source is the target; the errors of the order file and of `openDevice`.
 */
export async function openTarget({
  uri,
  source,
  target,
  flags,
  signal,
  rate,
  onRead,
  direct = false,
}: OpenTarget): Promise<Device> {
  if (uri.kind === 'file') {
    const { refuseSameFile } = await import('./same-file.ts');
    await refuseSameFile(uri.path, target);
  }
  const [{ openDevice }, { servingFileSystem }, { serveControl }, { statusOf }, { answerSnapshot }] = await modules();
  let opened: { readonly device: Device; readonly status: () => object } | undefined;
  const opening = { target, pid: process.pid, state: 'opening' };
  const answer: Answer = (command, request) => {
    if (command === 'status') return opened?.status() ?? opening;
    if (command !== 'snapshot') return undefined;
    if (opened !== undefined) return answerSnapshot(opened.device, target, request);
    return Promise.reject(new CodError('COD_NOT_RUNNING', `${target} is being opened; try again`));
  };
  const order =
    flags.order === undefined ? [] : await (await import('./order-file.ts')).readOrder(flags.order, source.size);
  const { readOnly = false } = flags;
  const device = await openDevice({
    source,
    fileSystem: servingFileSystem(
      '.',
      { direct, readOnly },
      { serve: (socket, token) => serveControl(socket, token, answer) },
    ),
    target,
    readOnly,
    signal,
    takeOver: flags.takeOver ?? false,
    ...(onRead === undefined ? {} : { onRead }),
    hydrate: (flags.hydrate ?? true) && {
      order,
      ...(rate === undefined ? {} : { rateBytesPerSecond: rate }),
      ...(flags.concurrency === undefined ? {} : { concurrency: flags.concurrency }),
      // Without ranges, each stretch downloads everything before it again. One stretch of the whole source avoids that.
      ...(flags.streamWhole ? { concurrency: 1, extentBytes: Math.max(1, source.size) } : {}),
    },
  });
  opened = { device, status: statusOf(device, { target, source: showSourceUri(uri) }) };
  return device;
}

/**
 * Reports the start of a copy, and a source without identity. Returns the bytes that the target holds already.
 * @param verification how to verify the complete copy; undefined if this run does
 */
export function tellStart(device: Device, copy: TargetCopy, verification: string | undefined): number {
  const { uri, source, target, flags, emit } = copy;
  const { size } = device;
  const resumedBytes = syncedBytes(device.status());
  emit('start', { source: showSourceUri(uri), identity: source.identity ?? null, target, size, resumedBytes });
  if (source.identity === undefined) warn(noIdentity(uri, verification), emit);
  if (!flags.quiet && !flags.json && resumedBytes > 0) {
    process.stderr.write(`${target}: resumes at ${formatBytes(resumedBytes)} of ${formatBytes(size)}\n`);
  }
  return resumedBytes;
}

function noIdentity(uri: SourceUri, verification: string | undefined): string {
  const lacks = {
    file: 'is a block device, which has no version',
    nbd: 'is an NBD export, which has no version',
    http: 'has neither ETag nor Last-Modified',
  }[uri.kind];
  const advice = verification === undefined ? '' : `; ${verification}`;
  return `${showSourceUri(uri)} ${lacks}: if its content changes during the copy, the copy mixes both${advice}`;
}

/** Reports what may spoil the result. Printed with `--quiet` too. */
function warn(message: string, emit: Emit): void {
  emit('warning', { message });
  process.stderr.write(`copyondemand: warning: ${message}\n`);
}

/**
 * Reports progress until the copy is complete.
 * @throws the cause if the copy cannot continue; `Interrupted` after a signal.
 */
export async function followCopy(
  device: Device,
  { signal, emit, progress }: TargetCopy,
  tickMs: number,
): Promise<void> {
  const { size } = device;
  await progress.begin({ label: 'copying', total: size, initial: syncedBytes(device.status()) });
  let shown = -1;
  const tick = () => {
    const status = device.status();
    const bytes = syncedBytes(status);
    progress.update(bytes);
    if (bytes === shown) return;
    shown = bytes;
    const { sourceBytes, hydrateBytesPerSecond } = status;
    emit('progress', {
      phase: 'copying',
      bytes,
      size,
      sourceBytes,
      hydrateBytesPerSecond: Math.round(hydrateBytesPerSecond),
    });
  };
  const timer = setInterval(tick, tickMs);
  try {
    await withSignal(device.hydrated, signal);
    tick();
    progress.end();
    emit('hydrated', { bytes: size, sourceBytes: device.status().sourceBytes });
  } finally {
    clearInterval(timer);
  }
}
