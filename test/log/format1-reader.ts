/** Reads format 1 as its description says, and uses nothing of our reader. */

export interface Format1State {
  /** Inclusive runs of blocks, merged. */
  readonly synced: readonly (readonly [first: number, last: number])[];
  readonly dirty: readonly { readonly block: number; readonly ranges: readonly (readonly [number, number])[] }[];
}

/** The most blocks of one bitmap. */
const SHARD = 2 ** 32 - 1;

/** Reads a checkpoint without logs beside it. Every byte of the file must have a meaning. */
export function readFormat1(bytes: Uint8Array): Format1State {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at: number): number => Number(view.getBigUint64(at, true));
  if (new TextDecoder().decode(bytes.subarray(0, 8)) !== 'COD BAK\0' || word(8) !== 1)
    throw new Error('not a checkpoint of format 1');
  let at = 16;
  const synced: [number, number][] = [];
  for (let index = 0; word(at) > 0; index++) {
    const length = word(at);
    for (const [first, last] of readRoaring(bytes.subarray(at + 8, at + 8 + length))) {
      if (last >= SHARD) throw new Error(`value ${last} of bitmap ${index} belongs to the next bitmap`);
      add(synced, index * SHARD + first, index * SHARD + last);
    }
    at += 8 + length;
  }
  at += 8;
  const dirty: { block: number; ranges: [number, number][] }[] = [];
  for (; word(at) === 1; at += 32) {
    const [block, offset, length] = [word(at + 8), word(at + 16), word(at + 24)];
    const before = dirty.at(-1);
    if (before?.block === block) before.ranges.push([offset, length]);
    else dirty.push({ block, ranges: [[offset, length]] });
  }
  if (word(at) !== 0 || at + 8 !== bytes.length) throw new Error(`the file does not end at ${at + 8}`);
  return { synced, dirty };
}

function add(runs: [number, number][], first: number, last: number): void {
  const before = runs.at(-1);
  if (before !== undefined && before[1] + 1 === first) before[1] = last;
  else runs.push([first, last]);
}

/** Reads a bitmap in portable Roaring format (RoaringFormatSpec): inclusive runs of values. */
function readRoaring(bytes: Uint8Array): [number, number][] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const cookie = view.getUint32(0, true);
  const hasRuns = (cookie & 0xffff) === 12347;
  if (!hasRuns && cookie !== 12346) throw new Error(`cookie ${cookie}`);
  const count = hasRuns ? (cookie >>> 16) + 1 : view.getUint32(4, true);
  const headers = hasRuns ? 4 + Math.ceil(count / 8) : 8;
  let at = headers + count * 4 + (hasRuns && count < 4 ? 0 : count * 4);
  const values: [number, number][] = [];
  for (let index = 0; index < count; index++) {
    const base = view.getUint16(headers + index * 4, true) * 65_536;
    const cardinality = view.getUint16(headers + index * 4 + 2, true) + 1;
    const isRun = hasRuns && ((bytes[4 + (index >> 3)]! >> (index & 7)) & 1) === 1;
    if (isRun) {
      const runs = view.getUint16(at, true);
      for (let run = 0; run < runs; run++) {
        const start = base + view.getUint16(at + 2 + run * 4, true);
        add(values, start, start + view.getUint16(at + 4 + run * 4, true));
      }
      at += 2 + runs * 4;
    } else if (cardinality <= 4096) {
      for (let value = 0; value < cardinality; value++) {
        const number = base + view.getUint16(at + value * 2, true);
        add(values, number, number);
      }
      at += cardinality * 2;
    } else {
      for (let value = 0; value < 65_536; value++)
        if ((bytes[at + (value >> 3)]! >> (value & 7)) & 1) add(values, base + value, base + value);
      at += 8192;
    }
  }
  if (at !== bytes.length) throw new Error(`the bitmap has ${bytes.length} bytes, but ends at ${at}`);
  return values;
}
