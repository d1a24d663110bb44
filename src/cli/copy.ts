/** `copyondemand copy`: makes a complete, durable copy of a source. The same command resumes an interrupted copy. */

import { stat } from 'node:fs/promises';
import type { Device, InlineDevice } from '../device/types.ts';
import { CodError, isCodError } from '../errors.ts';
import { bytesBeforeGrowth } from '../sources/grown.ts';
import { type Digest, type DigestFlags, digestOf, nameOf } from './checksums.ts';
import { emitError, Interrupted } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';
import { tell } from './log/told.ts';
import { progressFor } from './progress.ts';
import { RateControl, type RateFlags, rateHooks } from './rate-control.ts';
import { parseSourceUri } from './source-uri.ts';
import { syncedBytes } from './synced-bytes.ts';
import {
  checkTarget,
  followCopy,
  type GiveUp,
  openTarget,
  type TargetCopy,
  type TargetFlags,
  tellStart,
  warn,
} from './target-device.ts';
import { Troubles } from './troubles.ts';
import { formatBytes, formatDuration, formatPercent, formatRate } from './units.ts';

const TICK_MS = 200;
/** The command gives up when the copy has not got further for this time. */
const PATIENCE_MS = 120_000;
/** The command gives up when so many attempts in a row got bytes that do not match the manifest. */
const MISMATCHES = 3;

/** Parsed options of the command. */
export interface CopyFlags extends TargetFlags, RateFlags, DigestFlags {
  readonly concurrency?: number;
}

/**
 * Copies SOURCE to TARGET. Removes the metadata when the copy is complete and verified.
 * @throws the error of the options, the source or the device; {@link Interrupted} after a signal.
 */
export async function copy(sourceText: string, target: string, flags: CopyFlags): Promise<void> {
  const uri = parseSourceUri(sourceText);
  checkTarget(target);
  const emit = jsonLines(process.stdout, { enabled: flags.json === true });
  const progress = progressFor(process.stderr, { quiet: flags.quiet === true || flags.json === true });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  let device: InlineDevice | undefined;
  let rate: RateControl | undefined;
  let digest: Digest | undefined;
  const troubles = new Troubles({ target, emit, progress }, { isOpening: true });
  try {
    rate = new RateControl(flags, rateHooks(emit, target));
    digest = await digestOf(uri, flags, signal, (message) => warn(message, emit));
    const how = { ...flags, ...(flags.checksums === undefined ? {} : { ofFile: '--checksums' }) };
    device = await openTarget({ uri, target, flags: how, signal, emit, troubles, rate, direct: true, asksFirst: true });
    await run({ rate, uri, device, target, flags, digest, signal, emit, progress });
  } catch (error) {
    progress.end();
    const reported = await (isImage(error)
      ? confirm(target, error, { flags, digest, signal, emit, progress })
      : close(device, error));
    if (reported === undefined) return;
    emitError(emit, reported);
    throw reported;
  } finally {
    rate?.stop();
    interruption.stop();
  }
}

/** Whether there is an image without metadata already, as a copy that is finished is. */
function isImage(error: unknown): error is CodError {
  return isCodError(error, 'COD_EXISTS') && error.details['isImage'] === true;
}

/** Returns undefined if the digest says that the target is the finished copy, and else the error to report. */
async function confirm(
  target: string,
  error: CodError,
  { flags, digest, signal, emit, progress }: Pick<Copying, 'flags' | 'digest' | 'signal' | 'emit' | 'progress'>,
): Promise<unknown> {
  const { size: bytes, identity } = error.details as { size?: number; identity?: string };
  // A file has a size of its own.
  const isDevice = bytes !== undefined;
  try {
    if (digest === undefined) {
      const [what, remedy] = isDevice
        ? [error.message, '']
        : [`${target} exists and has no metadata`, '; otherwise name another target'];
      const message = `${what}; if it is the finished copy, confirm it with --sha256${remedy}`;
      return new CodError('COD_EXISTS', message, { details: { target } });
    }
    const started = performance.now();
    const size = isDevice ? imageBytes(bytes, identity) : (await stat(target)).size;
    const { algorithm, hex } = digest;
    const found = await hash({ target, size, digest, signal, emit, progress });
    if (found !== hex) {
      const message = `${target} exists, and its ${nameOf(digest)} is ${found}, not ${hex}: name another target`;
      return new CodError('COD_EXISTS', message, { details: { target, [algorithm]: found, expected: hex } });
    }
    emit('verified', { [algorithm]: hex });
    const seconds = Number(((performance.now() - started) / 1000).toFixed(3));
    emit('done', { bytes: size, seconds, sourceBytes: 0, bytesPerSecond: 0 });
    if (!flags.quiet && !flags.json) tell('notice', `${target}: complete already, ${nameOf(digest)} verified`);
    return undefined;
  } catch (error) {
    progress.end();
    return error;
  }
}

/** Bytes of the image at the beginning of a copy. */
function imageBytes(copyBytes: number, identity: string | undefined): number {
  return bytesBeforeGrowth(identity) ?? copyBytes;
}

/** Closes a device after an error. Returns the error to report. */
async function close(device: Device | undefined, error: unknown): Promise<unknown> {
  if (device === undefined) return error;
  const status = device.status();
  try {
    await device.close();
  } catch (closing) {
    // A failure to close is reported only if nothing else has failed.
    if (error instanceof Interrupted) return closing;
  }
  if (!(error instanceof Interrupted)) return error;
  return new Interrupted(
    `${error.message} at ${formatPercent(syncedBytes(status), status.size)}; the same command resumes`,
  );
}

interface Copying extends TargetCopy {
  readonly flags: CopyFlags;
  readonly digest: Digest | undefined;
  readonly device: InlineDevice;
  readonly rate: RateControl;
}

async function run(copying: Copying): Promise<void> {
  const { rate, device, target, flags, digest, emit } = copying;
  const started = performance.now();
  const { size } = device;
  const verification = 'verify the complete copy with --sha256';
  const resumedBytes = tellStart(device, copying, digest === undefined ? verification : undefined);
  rate.govern(device);
  await followCopy(device, copying, { tickMs: TICK_MS, giveUp: givingUp(copying) });
  const { sourceBytes } = device.status();
  if (digest !== undefined) await verify({ ...copying, size: imageBytes(size, device.identity), digest });
  await device.finish();
  const seconds = (performance.now() - started) / 1000;
  const bytesPerSecond = Math.round((size - resumedBytes) / seconds);
  emit('done', { bytes: size, seconds: Number(seconds.toFixed(3)), sourceBytes, bytesPerSecond });
  if (flags.quiet || flags.json) return;
  const verified = digest === undefined ? '' : `, ${nameOf(digest)} verified`;
  tell(
    'notice',
    `${target}: complete, ${formatBytes(size)} in ${formatDuration(seconds)} ` +
      `(${formatRate(bytesPerSecond)})${verified}`,
  );
}

/**
 * Gives up after two minutes without progress, or as `--retries` says. Waits for no source that never was the copy's in
 * this run, that does not exist, or that does not match the manifest.
 */
function givingUp({ device, flags }: Copying): GiveUp {
  const final: ReadonlySet<string> = new Set(['COD_SOURCE_CHANGED', 'COD_SIZE_MISMATCH', 'COD_NOT_FOUND']);
  return ({ type, code, ...event }, idleMs) =>
    type === 'source-changed' ||
    // The source asks twice by itself, and each attempt opens it again, perhaps at another mirror.
    (code === 'COD_MISMATCH' && 'attempt' in event && event.attempt >= MISMATCHES) ||
    // A source that retries has not failed yet.
    (flags.retries !== undefined && device.status().state === 'waiting') ||
    idleMs >= PATIENCE_MS ||
    (final.has(code) && device.status().sourceBytes === 0);
}

interface Verification extends Pick<TargetCopy, 'target' | 'signal' | 'emit' | 'progress'> {
  readonly size: number;
  readonly digest: Digest;
}

/** Returns the digest of a file, and reports the progress. */
async function hash({ target, size, digest, signal, emit, progress }: Verification): Promise<string> {
  const { hashOfFile } = await import('./hash.ts');
  await progress.begin({ label: 'verifying', total: size, initial: 0 });
  let emitted = performance.now();
  const found = await hashOfFile(digest.algorithm, target, {
    signal,
    bytes: size,
    onProgress: (bytes) => {
      const now = performance.now();
      if (now - emitted < TICK_MS) return;
      emitted = now;
      progress.update(bytes);
      emit('progress', { phase: 'verifying', bytes, size });
    },
  });
  progress.end();
  return found;
}

/**
 * Verifies the digest of the complete target.
 * @throws {@link CodError} COD_MISMATCH if the digest differs. The metadata stays, so that nothing has to be fetched
 * again.
 */
async function verify(verification: Verification): Promise<void> {
  const { target, digest, emit } = verification;
  const { algorithm, hex } = digest;
  const found = await hash(verification);
  if (found !== hex) {
    throw new CodError(
      'COD_MISMATCH',
      `the ${nameOf(digest)} of ${target} is ${found}, not ${hex}: the source has other contents; ` +
        `the copy and its metadata are kept; to start again, run \`copyondemand remove ${target}\``,
      { details: { target, [algorithm]: found, expected: hex } },
    );
  }
  emit('verified', { [algorithm]: found });
}
