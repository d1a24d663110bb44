/** Which bytes of a copy are those of its source: copied, and not modified since. */

import { open, stat } from 'node:fs/promises';
import type { ByteExtent } from '../core/range-set.ts';
import { CodError, isCodError } from '../errors.ts';
import { blockDeviceBytes } from '../platform/block-device.ts';
import { ioError } from '../platform/errno.ts';
import { inspectTarget } from './inspect.ts';

/** What a target holds of its source. */
export interface Copied {
  /** Bytes of the copy. */
  readonly size: number;
  /** Ascending, and none touches another. */
  readonly ranges: readonly ByteExtent[];
  /** Whether there is metadata. Without it the target counts as a finished copy. */
  readonly hasMetadata: boolean;
  /** A block device may be larger than the image on it. */
  readonly isDevice: boolean;
}

/** @throws {@link CodError} COD_NOT_FOUND if there is neither a copy nor an image; the errors of `inspectTarget`. */
export async function copiedRanges(target: string, metadata: string | undefined): Promise<Copied> {
  const stats = await stat(target, { bigint: true }).catch((cause: unknown) => {
    throw ioError(`look at ${target}`, cause, { path: target });
  });
  const isDevice = stats.isBlockDevice();
  try {
    const { size, blockSize, synced, modified } = await inspectTarget(
      target,
      metadata === undefined ? {} : { metadata },
    );
    const ranges = without(synced, modified).map(([first, last]) => ({
      offset: first * blockSize,
      length: Math.min(size, (last + 1) * blockSize) - first * blockSize,
    }));
    return { size, ranges, hasMetadata: true, isDevice };
  } catch (error) {
    if (!isCodError(error, 'COD_NOT_FOUND') || error.details['isImage'] !== true) throw error;
    const size = isDevice ? blockDeviceBytes(stats.rdev) : Number(stats.size);
    return { size, ranges: [{ offset: 0, length: size }], hasMetadata: false, isDevice };
  }
}

/** The parts of ascending extents that lie in others, too. */
export function intersection(some: readonly ByteExtent[], others: readonly ByteExtent[]): ByteExtent[] {
  const found: ByteExtent[] = [];
  for (let [one, other] = [0, 0]; one < some.length && other < others.length; ) {
    const [a, b] = [some[one]!, others[other]!];
    const offset = Math.max(a.offset, b.offset);
    const end = Math.min(a.offset + a.length, b.offset + b.length);
    if (offset < end) found.push({ offset, length: end - offset });
    if (a.offset + a.length === end) one++;
    else other++;
  }
  return found;
}

type Blocks = readonly (readonly [first: number, last: number])[];

/** Ascending ranges of blocks without those of others. */
function without(blocks: Blocks, others: Blocks): [first: number, last: number][] {
  const left: [number, number][] = [];
  let next = 0;
  for (let [first, last] of blocks) {
    while (next < others.length && others[next]![1] < first) next++;
    for (let index = next; index < others.length && others[index]![0] <= last; index++) {
      const [from, to] = others[index]!;
      if (from > first) left.push([first, from - 1]);
      first = Math.max(first, to + 1);
    }
    if (first <= last) left.push([first, last]);
  }
  return left;
}

/** A target that is read while another process may own it. */
export interface TargetFile {
  /** @throws {@link CodError} COD_SHORT_READ, COD_TARGET_IO */
  read(into: Uint8Array, offset: number): Promise<void>;
  close(): Promise<void>;
}

/** @throws {@link CodError} COD_NOT_FOUND, COD_TARGET_IO */
export async function openTargetFile(path: string): Promise<TargetFile> {
  const failed = (cause: unknown): never => {
    throw ioError(`read ${path}`, cause, { path });
  };
  const file = await open(path, 'r').catch(failed);
  return {
    read: async (into, offset) => {
      for (let done = 0; done < into.length; ) {
        const { bytesRead } = await file.read(into, done, into.length - done, offset + done).catch(failed);
        if (bytesRead === 0)
          throw new CodError('COD_SHORT_READ', `${path} ends at ${offset + done}, before the end of the copy`);
        done += bytesRead;
      }
    },
    close: () => file.close(),
  };
}
