/**
 * Runs: parts of the disk in order whose bytes follow each other in one file, so that one request brings them.
 *
 * qemu-img writes the clusters of a disk in order, with an L2 table now and then, so a run is usually long. Short runs
 * are the fragments that a running machine leaves.
 *
 * Invariant: the parts of a run ascend in its file and do not overlap.
 */

import type { Source } from '../source.ts';
import type { Below } from './layer.ts';
import type { Segment } from './segment.ts';

/** Bytes between two parts that are fetched and dropped, since a request costs more. A table has one cluster. */
const GAP_BYTES = 65_536;
/** Segments that are looked up at a time. */
const LOOKUP = 1024;
/** Parts of a run. Bounds the memory of its list. */
const MAX_PARTS = 4096;

export type Part = { readonly segment: Segment; readonly packedBytes: number };

export interface Run {
  /** Undefined: the run has zeros only. */
  file: Source | undefined;
  /** The bytes of the file, from the first part to the end of the last one. */
  start: number;
  end: number;
  readonly parts: Part[];
}

/** The runs of a range of the disk, in order. */
export async function* runsOf(disk: Below, offset: number, end: number): AsyncGenerator<Run, void> {
  let run = newRun();
  for (let at = offset; at < end; ) {
    const segments: Segment[] = [];
    at = await disk.map(at, end, segments, LOOKUP);
    for (const segment of segments) {
      if (add(run, segment)) continue;
      yield run;
      run = newRun();
      add(run, segment);
    }
  }
  if (run.parts.length > 0) yield run;
}

function newRun(): Run {
  return { file: undefined, start: 0, end: 0, parts: [] };
}

/** Appends a segment. Returns false if it does not continue the run. */
function add(run: Run, segment: Segment): boolean {
  if (run.parts.length >= MAX_PARTS) return false;
  if (segment.kind === 'zero') {
    run.parts.push({ segment, packedBytes: 0 });
    return true;
  }
  const file = segment.kind === 'data' ? segment.file : segment.packing.file;
  const bytes = segment.kind === 'data' ? segment.length : segment.packedBytes;
  if (run.file === undefined) Object.assign(run, { file, start: segment.offset, end: segment.offset });
  if (run.file !== file || segment.offset > run.end + GAP_BYTES) return false;
  if (segment.offset < run.end && !giveBack(run, run.end - segment.offset)) return false;
  run.end = segment.offset + bytes;
  run.parts.push({ segment, packedBytes: segment.kind === 'packed' ? bytes : 0 });
  return true;
}

/** Shortens the last part by what belongs to the next one: a compressed cluster ends somewhere in its last sector. */
function giveBack(run: Run, bytes: number): boolean {
  const last = run.parts.at(-1)!;
  if (bytes >= 512 || bytes >= last.packedBytes) return false;
  run.parts[run.parts.length - 1] = { segment: last.segment, packedBytes: last.packedBytes - bytes };
  return true;
}
