/**
 * Parts of a read that follow each other in a file, so that one request brings them. qemu-img writes compressed
 * clusters in order, and a request for each would cost a latency each.
 */

import type { Source } from '../source.ts';
import type { Segment } from './segment.ts';

/** Bytes between two parts that are fetched and dropped, since a request costs more. */
const GAP_BYTES = 16_384;
/** A group is in memory as a whole. */
const MAX_GROUP_BYTES = 2 ** 19;

type Stored = Exclude<Segment, { kind: 'zero' }>;

/** A segment, and where its bytes go. */
export interface Part {
  readonly into: Uint8Array;
  readonly segment: Stored;
}

export interface Group {
  readonly file: Source;
  /** The bytes of the file, from the first part to the end of the last one. */
  readonly start: number;
  end: number;
  readonly parts: Part[];
}

/** Groups parts in their order. A part that `isKept` needs no request. */
export function groupsOf(parts: readonly Part[], isKept: (segment: Stored) => boolean): Group[] {
  const groups: Group[] = [];
  let last: Group | undefined;
  for (const part of parts) {
    const { segment } = part;
    const file = segment.kind === 'data' ? segment.file : segment.packing.file;
    const start = segment.offset;
    const end = start + (segment.kind === 'data' ? segment.length : segment.packedBytes);
    const isAlone = isKept(segment);
    if (
      last !== undefined &&
      !isAlone &&
      file === last.file &&
      start >= last.start &&
      start <= last.end + GAP_BYTES &&
      end <= last.start + MAX_GROUP_BYTES
    ) {
      last.end = Math.max(last.end, end);
      last.parts.push(part);
      continue;
    }
    const group: Group = { file, start, end, parts: [part] };
    groups.push(group);
    last = isAlone ? undefined : group;
  }
  return groups;
}

/** Returns a function that returns bytes of a group, which is requested once, when the first bytes are needed. */
export function readerOf({ file, start, end }: Group): (offset: number, length: number) => Promise<Uint8Array> {
  let reading: Promise<Uint8Array> | undefined;
  const read = async (): Promise<Uint8Array> => {
    const bytes = new Uint8Array(end - start);
    await file.read(bytes, start);
    return bytes;
  };
  return async (offset, length) => {
    const bytes = await (reading ??= read());
    return bytes.subarray(offset - start, offset - start + length);
  };
}
