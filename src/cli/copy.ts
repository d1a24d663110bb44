/** `copyondemand copy`: a complete, durable copy of a source, that can be interrupted and goes on where it was. */

import { CodError } from '../core/errors.ts';
import type { Device, DeviceStatus } from '../device/device.ts';
import type { Source } from '../device/source.ts';
import { failureOf, Interrupted, UsageError } from './failure.ts';
import { listenForInterruption, orInterrupted } from './interruption.ts';
import { type Emit, jsonLines } from './json-lines.ts';
import { type Progress, progressFor } from './progress.ts';
import { RateControl, type RateFlags, rateHooks } from './rate-control.ts';
import { type HttpFlags, openSource, parseSourceUri, type SourceUri, showSourceUri } from './source-uri.ts';
import { formatBytes, formatDuration, formatPercent, formatRate } from './units.ts';

const TICK_MS = 200;

/** Options of the command, parsed. */
export interface CopyFlags extends HttpFlags, RateFlags {
  /** Lower-case hex. */
  readonly sha256?: string;
  readonly concurrency?: number;
  /** An order file: what to copy first. */
  readonly order?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Copies SOURCE to TARGET and removes the metadata once that is complete and verified. Errors as they come. */
export async function copy(sourceText: string, target: string, flags: CopyFlags): Promise<void> {
  const uri = parseSourceUri(sourceText);
  if (target === '') throw new UsageError('TARGET is empty; it is a path where nothing is yet, or the copy to go on with');
  const emit = jsonLines(process.stdout, { enabled: flags.json === true });
  const progress = progressFor(process.stderr, { quiet: flags.quiet === true || flags.json === true });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  let source: Source | undefined;
  let device: Device | undefined;
  let rate: RateControl | undefined;
  try {
    rate = new RateControl(flags, rateHooks(emit));
    source = await orInterrupted(openSource(uri, flags, signal), signal);
    device = await open({ uri, source, target, flags, signal, rate: rate.rate });
    await run({ rate, uri, source, device, target, flags, signal, emit, progress });
  } catch (error) {
    progress.end();
    const reported = await close(device, error);
    const { exitCode: _, ...fields } = failureOf(reported);
    emit('error', fields);
    throw reported;
  } finally {
    rate?.stop();
    await source?.close();
    interruption.stop();
  }
}

/** Closes a device after an error; returns what is to be said. */
async function close(device: Device | undefined, error: unknown): Promise<unknown> {
  if (device === undefined) return error;
  const { size, ...status } = device.status();
  try {
    await device.close();
  } catch (closing) {
    // A failure to close matters only if nothing else went wrong before.
    if (error instanceof Interrupted) return closing;
  }
  if (!(error instanceof Interrupted)) return error;
  return new Interrupted(
    `${error.message} at ${formatPercent(syncedBytes({ size, ...status }), size)}; the same command again goes on from there`,
  );
}

interface Opening extends Pick<Run, 'uri' | 'source' | 'target' | 'flags' | 'signal'> {
  readonly rate: number | undefined;
}

async function open({ uri, source, target, flags, signal, rate }: Opening): Promise<Device> {
  if (uri.kind === 'file') {
    const { refuseSameFile } = await import('./same-file.ts');
    await refuseSameFile(uri.path, target);
  }
  const [{ openDevice }, { nodeFileSystem }, { readOrder }] = await Promise.all([
    import('../index.ts'),
    import('../fs/node.ts'),
    import('./order-file.ts'),
  ]);
  const order = flags.order === undefined ? [] : await readOrder(flags.order, source.size);
  return openDevice({
    source,
    fileSystem: nodeFileSystem(),
    target,
    signal,
    hydrate: {
      order,
      ...(rate === undefined ? {} : { rateBytesPerSecond: rate }),
      ...(flags.concurrency === undefined ? {} : { concurrency: flags.concurrency }),
      // Without ranges each stretch costs all that lies before it.
      ...(flags.streamWhole ? { concurrency: 1, extentBytes: Math.max(1, source.size) } : {}),
    },
  });
}

interface Run {
  readonly rate: RateControl;
  readonly uri: SourceUri;
  readonly source: Source;
  readonly device: Device;
  readonly target: string;
  readonly flags: CopyFlags;
  readonly signal: AbortSignal;
  readonly emit: Emit;
  readonly progress: Progress;
}

async function run({ rate, uri, source, device, target, flags, signal, emit, progress }: Run): Promise<void> {
  const started = performance.now();
  const { size } = device;
  const resumedBytes = syncedBytes(device.status());
  emit('start', { source: showSourceUri(uri), identity: source.identity ?? null, target, size, resumedBytes });
  rate.govern(device);
  if (!flags.quiet && !flags.json && resumedBytes > 0) {
    process.stderr.write(`${target}: goes on from ${formatBytes(resumedBytes)} of ${formatBytes(size)}\n`);
  }
  await progress.begin({ label: 'copying', total: size, initial: resumedBytes });
  let shown = -1;
  const tick = () => {
    const status = device.status();
    const bytes = syncedBytes(status);
    progress.update(bytes);
    if (bytes === shown) return;
    shown = bytes;
    emit('progress', { phase: 'copying', bytes, size, sourceBytes: status.sourceBytes });
  };
  const timer = setInterval(tick, TICK_MS);
  try {
    await orInterrupted(device.hydrated, signal);
  } finally {
    clearInterval(timer);
  }
  tick();
  progress.end();
  const { sourceBytes } = device.status();
  emit('hydrated', { bytes: size, sourceBytes });
  if (flags.sha256 !== undefined) await verify({ target, size, sha256: flags.sha256, signal, emit, progress });
  await device.finish();
  const seconds = (performance.now() - started) / 1000;
  const bytesPerSecond = Math.round((size - resumedBytes) / seconds);
  emit('done', { bytes: size, seconds: Number(seconds.toFixed(3)), sourceBytes, bytesPerSecond });
  if (flags.quiet || flags.json) return;
  const verified = flags.sha256 === undefined ? '' : ', its SHA-256 is as given';
  process.stderr.write(
    `${target}: complete, ${formatBytes(size)} in ${formatDuration(seconds)} (${formatRate(bytesPerSecond)})${verified}\n`,
  );
}

/** Bytes that the target has; the last block may be short. */
function syncedBytes({ size, blockSize, totalBlocks, syncedBlocks }: DeviceStatus): number {
  return syncedBlocks === totalBlocks ? size : Math.min(size, syncedBlocks * blockSize);
}

interface Verification extends Pick<Run, 'target' | 'signal' | 'emit' | 'progress'> {
  readonly size: number;
  readonly sha256: string;
}

/** @throws {@link CodError} COD_CORRUPT if the target is not what was asked for. Its metadata stays, so that nothing need be fetched again. */
async function verify({ target, size, sha256, signal, emit, progress }: Verification): Promise<void> {
  const { sha256OfFile } = await import('./hash.ts');
  await progress.begin({ label: 'verifying', total: size, initial: 0 });
  let emitted = performance.now();
  const found = await sha256OfFile(target, {
    signal,
    onProgress: (bytes) => {
      const now = performance.now();
      if (now - emitted < TICK_MS) return;
      emitted = now;
      progress.update(bytes);
      emit('progress', { phase: 'verifying', bytes, size });
    },
  });
  progress.end();
  if (found !== sha256) {
    throw new CodError(
      'COD_CORRUPT',
      `the SHA-256 of ${target} is ${found}, not ${sha256} as asked for: the source is another one; the copy was kept with its metadata, remove both to begin anew`,
      { details: { target, sha256: found, expected: sha256 } },
    );
  }
  emit('verified', { sha256: found });
}
