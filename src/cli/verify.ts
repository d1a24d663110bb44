/**
 * `copyondemand verify`: compares what was copied and not modified since, with a manifest or the source. Reads only.
 *
 * A copy may be in use. A write of a user reaches the target before its record, so a difference counts only if it is
 * still there later, and its blocks are still not modified.
 */

import { stat } from 'node:fs/promises';
import type { ByteExtent } from '../core/range-set.ts';
import { RateLimiter } from '../device/rate-limiter.ts';
import { CodError } from '../errors.ts';
import { systemClock } from '../platform/system-clock.ts';
import { type Comparison, UNIT_BYTES, withManifest, withSource } from './comparison.ts';
import { type Copied, copiedRanges, intersection, openTargetFile, type TargetFile } from './copied-ranges.ts';
import { emitError, Interrupted, UsageError } from './failure.ts';
import { checkSourceFlags, type HttpFlags } from './http-options.ts';
import { type ImageFlags, openImage } from './image.ts';
import { listenForInterruption } from './interruption.ts';
import { type Emit, jsonLines } from './json-lines.ts';
import { readManifestFile } from './manifest.ts';
import { type Progress, progressFor } from './progress.ts';
import { parseSourceUri } from './source-uri.ts';
import { counted, formatBytes } from './units.ts';

/** Parsed options of the command. */
export interface VerifyFlags extends HttpFlags, ImageFlags {
  readonly manifest?: string;
  readonly manifestRoot?: string;
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
  /** Bytes per second. */
  readonly rate?: number;
  /** Offset where an earlier run was interrupted. */
  readonly from?: number;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

const TICK_MS = 200;
/** Looks at a difference in a copy in use, and the time between two of them: a write may wait for its record. */
const LOOKS = 3;
const LOOK_AFTER_MS = 1000;

/**
 * Compares TARGET with a manifest or with SOURCE, and prints the extents that differ.
 * @param sourceText undefined: compares with the manifest alone
 * @throws {@link CodError} COD_MISMATCH; COD_SIZE_MISMATCH; {@link UsageError}; {@link Interrupted}.
 */
export async function verify(sourceText: string | undefined, target: string, flags: VerifyFlags): Promise<void> {
  const emit = jsonLines(process.stdout, { enabled: flags.json === true });
  const progress = progressFor(process.stderr, { quiet: flags.quiet === true || flags.json === true });
  const interruption = listenForInterruption();
  const closing: (() => Promise<void>)[] = [];
  try {
    const comparison = await comparisonOf(sourceText, target, flags, interruption.signal, closing);
    const file = await openTargetFile(target);
    closing.push(() => file.close());
    await new Verification({ comparison, file, target, flags, signal: interruption.signal, emit, progress }).run();
  } catch (error) {
    progress.end();
    emitError(emit, error);
    throw error;
  } finally {
    interruption.stop();
    for (const close of closing.reverse()) await close().catch(() => undefined);
  }
}

/** Adds to `closing` what must be closed at the end. */
async function comparisonOf(
  sourceText: string | undefined,
  target: string,
  flags: VerifyFlags,
  signal: AbortSignal,
  closing: (() => Promise<void>)[],
): Promise<Comparison> {
  const { manifest: path, manifestRoot: root } = flags;
  if (target === '') throw new UsageError('TARGET is empty: give the path of a copy');
  if (path === undefined && root !== undefined) throw new UsageError('--manifest-root needs --manifest');
  if (path === undefined && sourceText === undefined)
    throw new UsageError('give SOURCE and TARGET, or TARGET and --manifest');
  const uri = sourceText === undefined ? undefined : parseSourceUri(sourceText);
  if (uri !== undefined) checkSourceFlags(uri, flags);
  const manifest = path === undefined ? undefined : await readManifestFile(path, root === undefined ? {} : { root });
  if (uri === undefined) return withManifest(manifest!);
  const image = await openImage(uri, flags, signal);
  closing.push(() => image.close());
  if (manifest === undefined) return withSource(image);
  const { verifiedSource } = await import('../sources/verified.ts');
  return withSource(verifiedSource(image, manifest));
}

interface Parts {
  readonly comparison: Comparison;
  readonly file: TargetFile;
  readonly target: string;
  readonly flags: VerifyFlags;
  readonly signal: AbortSignal;
  readonly emit: Emit;
  readonly progress: Progress;
}

class Verification {
  readonly #parts: Parts;
  readonly #limiter: RateLimiter;
  /** Extents that differ and are not told yet, ascending. */
  #wrong: { offset: number; length: number }[] = [];
  #wrongExtents = 0;
  #wrongBytes = 0;
  #toldAt = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#limiter = new RateLimiter(systemClock, parts.flags.rate);
  }

  async run(): Promise<void> {
    const { comparison, target, flags, emit, progress } = this.#parts;
    const copied = await copiedRanges(target, flags.metadata);
    const from = floorToUnit(flags.from ?? 0);
    const extents = this.#comparable(copied, [{ offset: from, length: Math.max(0, comparison.size - from) }]);
    const total = lengthOf(extents);
    await progress.begin({ label: 'verifying', total, initial: 0 });
    // The owner of a copy without a lock cannot change it.
    const isInUse = copied.hasMetadata && (await isThere(`${flags.metadata ?? target}.lock`));
    let done = 0;
    let at = from;
    try {
      for await (const end of this.#compare(extents)) {
        done += end.length;
        at = end.offset;
        if (!isInUse) this.#tell(1);
        this.#progress(done, total);
      }
      if (isInUse) await this.#lookAgain();
    } catch (error) {
      const next = isInUse ? (this.#wrong[0]?.offset ?? at) : at;
      if (!isInUse) this.#tell();
      if (!(error instanceof Interrupted)) throw error;
      throw new Interrupted(`${error.message}; continue with --from ${next}`);
    }
    progress.end();
    this.#tell();
    if (this.#wrongBytes > 0) throw this.#mismatch();
    const skipped = comparison.size - total - Math.min(from, comparison.size);
    emit('done', { target, size: comparison.size, bytes: total, skippedBytes: Math.max(0, skipped) });
    if (flags.quiet || flags.json) return;
    const rest = skipped > 0 ? `; not compared: ${formatBytes(skipped)}, which are not copied or were modified` : '';
    process.stderr.write(`${target}: ${formatBytes(total)} match${rest}\n`);
  }

  /** What can be compared of extents, as far as it was copied. */
  #comparable({ size, ranges, isDevice }: Copied, extents: readonly ByteExtent[]): ByteExtent[] {
    const { comparison, target } = this.#parts;
    if (size !== comparison.size && !(isDevice && size > comparison.size)) {
      throw new CodError('COD_SIZE_MISMATCH', `${target} has ${size} bytes, but the image has ${comparison.size}`, {
        details: { target, size, imageSize: comparison.size },
      });
    }
    return intersection(ranges, extents)
      .map((extent) => comparison.comparable(extent))
      .filter(({ length }) => length > 0);
  }

  /** Compares extents, notes those that differ, and yields what was compared: where it ends, and its length. */
  async *#compare(extents: readonly ByteExtent[]): AsyncGenerator<ByteExtent> {
    const { comparison, file, signal } = this.#parts;
    for (const extent of extents) {
      let at = extent.offset;
      for await (const { length, wrong } of comparison.compare(extent, file, signal)) {
        for (const each of wrong) {
          const last = this.#wrong.at(-1);
          if (last !== undefined && last.offset + last.length === each.offset) last.length += each.length;
          else this.#wrong.push({ ...each });
        }
        at += length;
        yield { offset: at, length };
        this.#limiter.spend(length);
        await this.#limiter.wait(signal);
        signal.throwIfAborted();
      }
    }
  }

  /** Keeps of the differences only those that stay, in blocks that were not modified. */
  async #lookAgain(): Promise<void> {
    const { target, flags, signal } = this.#parts;
    for (let look = 0; look < LOOKS && this.#wrong.length > 0; look++) {
      if (look > 0) await systemClock.sleep(LOOK_AFTER_MS, signal);
      const before = this.#wrong;
      const extents = this.#comparable(await copiedRanges(target, flags.metadata), before);
      this.#wrong = [];
      try {
        for await (const _ of this.#compare(extents));
      } catch (error) {
        this.#wrong = before;
        throw error;
      }
    }
  }

  /** Tells the differences, except the last `kept` of them, which may become longer. */
  #tell(kept = 0): void {
    const { flags } = this.#parts;
    for (const { offset, length } of this.#wrong.splice(0, this.#wrong.length - kept)) {
      this.#wrongExtents++;
      this.#wrongBytes += length;
      this.#parts.emit('mismatch', { offset, length });
      if (!flags.json) process.stdout.write(`${offset} ${length}\n`);
    }
  }

  #progress(bytes: number, size: number): void {
    const now = performance.now();
    if (now - this.#toldAt < TICK_MS) return;
    this.#toldAt = now;
    this.#parts.progress.update(bytes);
    this.#parts.emit('progress', { phase: 'verifying', bytes, size });
  }

  #mismatch(): CodError {
    const { target } = this.#parts;
    const found = `${formatBytes(this.#wrongBytes)} in ${counted(this.#wrongExtents, 'extent')}`;
    return new CodError(
      'COD_MISMATCH',
      `${target}: ${found} do not match: copy the image again, or restore them from a backup`,
      { details: { target, extents: this.#wrongExtents, bytes: this.#wrongBytes } },
    );
  }
}

/** An extent of a manifest is compared as a whole. */
function floorToUnit(offset: number): number {
  return offset - (offset % UNIT_BYTES);
}

function lengthOf(extents: readonly ByteExtent[]): number {
  return extents.reduce((sum, { length }) => sum + length, 0);
}

function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
