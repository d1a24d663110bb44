/**
 * A long range of the disk as one stream: a few requests for long runs, and short runs read ahead side by side.
 *
 * - Long pieces of data go to the consumer as they came. Short ones and uncompressed clusters are joined to pieces.
 * - At most {@link AHEAD_BYTES} of short runs are in memory.
 */

import { CodError } from '../../errors.ts';
import { pieceBuffer, releasePages } from '../../platform/pages.ts';
import type { InternalStreamOptions } from '../source.ts';
import { type ClusterCache, unpack } from './cluster-cache.ts';
import { HostReader, piecesOf } from './host-reader.ts';
import type { Below } from './layer.ts';
import { type Run, runsOf } from './runs.ts';
import type { PackedSegment } from './segment.ts';

/** Runs up to this length are read ahead. */
const SHORT_BYTES = 2 ** 19;
const AHEAD_BYTES = 2 ** 22;
/** Short runs in flight at a time: of 64 KiB each at 20 ms, that is 25 MB/s for each stream. */
const AHEAD_RUNS = 8;
const PIECE_BYTES = 2 ** 18;
/** Pieces from this length on are not copied. */
const DIRECT_BYTES = 2 ** 17;
const ZEROS: Uint8Array = new Uint8Array(65_536);

interface Started {
  readonly run: Run;
  readonly bytes: number;
  /** The bytes of a short run. */
  readonly ahead: Promise<Uint8Array> | undefined;
}

/** Streams [offset, offset + length) of a disk, as `Source.stream` says. */
export async function* streamOf(
  disk: Below,
  clusters: ClusterCache,
  offset: number,
  length: number,
  options: InternalStreamOptions,
): AsyncGenerator<Uint8Array, void> {
  const over = new AbortController();
  const signal = options.signal === undefined ? over.signal : AbortSignal.any([over.signal, options.signal]);
  const reading = { signal, pieceBytes: options.pieceBytes };
  let buffer: Uint8Array | undefined;
  let filled = 0;
  try {
    for await (const started of aheadOf(runsOf(disk, offset, offset + length), signal)) {
      for await (const bytes of contentsOf(started, clusters, reading)) {
        if (bytes.length >= DIRECT_BYTES) {
          if (filled > 0) yield buffer!.subarray(0, filled);
          filled = 0;
          yield bytes;
          continue;
        }
        buffer ??= pieceBuffer(options.pieceBytes, PIECE_BYTES, length);
        for (let done = 0; done < bytes.length; ) {
          const part = bytes.subarray(done, done + buffer.length - filled);
          buffer.set(part, filled);
          done += part.length;
          filled += part.length;
          if (filled < buffer.length) continue;
          yield buffer;
          filled = 0;
        }
      }
    }
    if (filled > 0) yield buffer!.subarray(0, filled);
  } finally {
    over.abort(new CodError('COD_CLOSED', 'the stream has ended'));
    if (buffer !== undefined) releasePages(buffer);
  }
}

/** Starts short runs ahead of the consumer. */
async function* aheadOf(runs: AsyncGenerator<Run, void>, signal: AbortSignal): AsyncGenerator<Started> {
  const started: Started[] = [];
  for (let isDone = false; ; ) {
    // What comes after a long run has time.
    while (!isDone && started.length < AHEAD_RUNS && bytesOf(started) < AHEAD_BYTES) {
      const next = await runs.next();
      if (next.done) isDone = true;
      else started.push(start(next.value, signal));
    }
    const next = started.shift();
    if (next === undefined) return;
    yield next;
  }
}

function bytesOf(started: readonly Started[]): number {
  return started.reduce((sum, { bytes }) => sum + bytes, 0);
}

function start(run: Run, signal: AbortSignal): Started {
  const { file } = run;
  const bytes = run.end - run.start;
  if (file === undefined || bytes === 0) return { run, bytes: 0, ahead: undefined };
  if (bytes > SHORT_BYTES) return { run, bytes: Number.POSITIVE_INFINITY, ahead: undefined };
  const into = new Uint8Array(bytes);
  const ahead = file.read(into, run.start, { signal }).then(() => into);
  // The consumer reports the failure when it comes to this run.
  ahead.catch(() => undefined);
  return { run, bytes, ahead };
}

/** The bytes of the disk that a run has. */
async function* contentsOf(
  { run, ahead }: Started,
  clusters: ClusterCache,
  reading: { signal: AbortSignal; pieceBytes: number | undefined },
): AsyncGenerator<Uint8Array> {
  const { file, start, end } = run;
  const pieces = ahead !== undefined ? once(await ahead) : file && piecesOf(file, start, end, reading);
  const reader = new HostReader(pieces ?? once(new Uint8Array(0)), start);
  try {
    for (const { segment, packedBytes } of run.parts) {
      if (segment.kind === 'packed') {
        yield await unpacked(segment, packedBytes, reader, clusters);
        continue;
      }
      for (let done = 0; done < segment.length; ) {
        reading.signal.throwIfAborted();
        const left = segment.length - done;
        const bytes =
          segment.kind === 'zero' ? ZEROS.subarray(0, left) : await dataFrom(reader, segment.offset + done, left);
        yield bytes;
        done += bytes.length;
      }
    }
  } finally {
    await reader.end();
  }
}

async function dataFrom(reader: HostReader, offset: number, limit: number): Promise<Uint8Array> {
  const bytes = await reader.some(offset, limit);
  if (bytes.length === 0) throw endsEarly(offset);
  return bytes;
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** The part of a compressed cluster that the disk needs, read as `packedBytes` bytes. */
async function unpacked(
  segment: PackedSegment,
  packedBytes: number,
  reader: HostReader,
  clusters: ClusterCache,
): Promise<Uint8Array> {
  const { packing, offset, skip, length } = segment;
  const packed = await reader.all(offset, packedBytes);
  if (packed.length < packedBytes) throw endsEarly(offset + packed.length);
  let whole: Uint8Array;
  try {
    whole = unpack(packing, packed, offset);
  } catch (error) {
    if (packedBytes === segment.packedBytes) throw error;
    // The clusters overlap by more than the sector that they may share.
    whole = await clusters.get(segment);
  }
  return whole.subarray(skip, skip + length);
}

function endsEarly(offset: number): CodError {
  return new CodError('COD_SHORT_READ', `qcow2: the file ends at ${offset}, within a cluster`, { details: { offset } });
}
