/**
 * A strict reader of the portable Roaring format (github.com/RoaringBitmap/RoaringFormatSpec), for bytes from outside.
 * Bytes that pass are exactly one well-formed bitmap, which roaring-wasm can read safely.
 */
import { CodError } from '../errors.ts';
import {
  CONTAINER_BLOCKS,
  ROARING_ARRAY_LIMIT,
  ROARING_BITSET_BYTES,
  ROARING_COOKIE,
  ROARING_COOKIE_WITHOUT_RUNS,
  ROARING_MAX_CONTAINERS,
  ROARING_OFFSETS_FROM,
  SLICE_BLOCKS,
} from './layout.ts';

/** One container within portable bytes. */
export interface PortableContainer {
  /** The high 16 bits of the values. */
  readonly key: number;
  readonly kind: 'array' | 'bitset' | 'runs';
  readonly cardinality: number;
  /** The offset of the body. A body of runs begins with the number of runs. */
  readonly offset: number;
}

export interface PortableBitmap {
  readonly containers: readonly PortableContainer[];
  readonly cardinality: number;
  /** Whether runs touch: the set has a shorter form, and CRoaring would not join the runs. */
  readonly touching: boolean;
}

/**
 * Parses a bitmap and checks all of it: cookie, counts, offsets, order of keys, values and runs, cardinalities, length.
 *
 * @param where the name of the bytes in errors
 * @throws {@link CodError} COD_CORRUPT if the bytes are not exactly one bitmap
 */
export function parsePortable(bytes: Uint8Array, where: string): PortableBitmap {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const corrupt = (offset: number, what: string): CodError =>
    new CodError('COD_CORRUPT', `${where}, byte ${offset} of ${bytes.length}: ${what}`, {
      details: { offset, length: bytes.length },
    });
  const need = (offset: number, length: number, what: string): void => {
    if (offset + length > bytes.length) throw corrupt(offset, `${what} of ${length} bytes does not fit`);
  };

  need(0, 4, 'the cookie');
  const cookie = view.getUint32(0, true);
  let count: number;
  let flags = -1;
  let at: number;
  if ((cookie & 0xffff) === ROARING_COOKIE) {
    count = (cookie >>> 16) + 1;
    flags = 4;
    at = 4 + Math.ceil(count / 8);
    need(4, at - 4, 'the list of run flags');
    if (count % 8 !== 0 && bytes[at - 1]! >> (count % 8) !== 0)
      throw corrupt(at - 1, `run flags beyond the ${count} containers`);
  } else if (cookie === ROARING_COOKIE_WITHOUT_RUNS) {
    need(4, 4, 'the number of containers');
    count = view.getUint32(4, true);
    if (count > ROARING_MAX_CONTAINERS)
      throw corrupt(4, `${count} containers, at most ${ROARING_MAX_CONTAINERS} are possible`);
    at = 8;
  } else {
    throw corrupt(0, `not a Roaring bitmap: cookie 0x${cookie.toString(16)}`);
  }

  const headers = at;
  need(at, count * 4, 'the list of containers');
  at += count * 4;
  const offsets = flags < 0 || count >= ROARING_OFFSETS_FROM ? at : -1;
  if (offsets >= 0) {
    need(at, count * 4, 'the list of offsets');
    at += count * 4;
  }

  const containers: PortableContainer[] = [];
  let total = 0;
  let touching = false;
  let keyBefore = -1;
  for (let i = 0; i < count; i++) {
    const key = view.getUint16(headers + i * 4, true);
    const cardinality = view.getUint16(headers + i * 4 + 2, true) + 1;
    if (key <= keyBefore) throw corrupt(headers + i * 4, `key ${key} is not above the previous key ${keyBefore}`);
    keyBefore = key;
    if (offsets >= 0 && view.getUint32(offsets + i * 4, true) !== at) {
      throw corrupt(
        offsets + i * 4,
        `container ${i} begins at ${at}, but its offset says ${view.getUint32(offsets + i * 4, true)}`,
      );
    }
    const offset = at;
    let kind: PortableContainer['kind'];
    if (flags >= 0 && (bytes[flags + (i >> 3)]! >> (i & 7)) & 1) {
      kind = 'runs';
      need(at, 2, 'the number of runs');
      const runs = view.getUint16(at, true);
      need(at + 2, runs * 4, 'a container of runs');
      let end = -1;
      let values = 0;
      for (let place = at + 2; place < at + 2 + runs * 4; place += 4) {
        const start = view.getUint16(place, true);
        const length = view.getUint16(place + 2, true);
        if (start < end || start + length > 0xffff)
          throw corrupt(
            place,
            `run of ${length + 1} values from ${start} overlaps the run up to ${end - 1} or passes 65535`,
          );
        if (start === end) touching = true;
        end = start + length + 1;
        values += length + 1;
      }
      if (values !== cardinality)
        throw corrupt(at, `the runs of container ${i} have ${values} values, but its header says ${cardinality}`);
      at += 2 + runs * 4;
    } else if (cardinality <= ROARING_ARRAY_LIMIT) {
      kind = 'array';
      need(at, cardinality * 2, 'an array');
      let before = -1;
      for (const end = at + cardinality * 2; at < end; at += 2) {
        const value = view.getUint16(at, true);
        if (value <= before) throw corrupt(at, `value ${value} is not above the previous value ${before}`);
        before = value;
      }
    } else {
      kind = 'bitset';
      need(at, ROARING_BITSET_BYTES, 'a bitset');
      let values = 0;
      for (const end = at + ROARING_BITSET_BYTES; at < end; at += 4)
        values += populationCount(view.getUint32(at, true));
      if (values !== cardinality)
        throw corrupt(offset, `the bitset of container ${i} has ${values} values, but its header says ${cardinality}`);
    }
    containers.push({ key, kind, cardinality, offset });
    total += cardinality;
  }
  if (at !== bytes.length) throw corrupt(at, `${bytes.length - at} bytes after the last container`);
  return { containers, cardinality: total, touching };
}

/** The greatest value, or -1 if the bitmap is empty. */
export function maximumOf(bytes: Uint8Array, bitmap: PortableBitmap): number {
  const last = bitmap.containers.at(-1);
  if (!last) return -1;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const base = last.key * CONTAINER_BLOCKS;
  if (last.kind === 'array') return base + view.getUint16(last.offset + last.cardinality * 2 - 2, true);
  if (last.kind === 'runs') {
    const at = last.offset + view.getUint16(last.offset, true) * 4 - 2;
    return base + view.getUint16(at, true) + view.getUint16(at + 2, true);
  }
  let word = ROARING_BITSET_BYTES / 4 - 1;
  while (view.getUint32(last.offset + word * 4, true) === 0) word--;
  return base + word * 32 + 31 - Math.clz32(view.getUint32(last.offset + word * 4, true));
}

/** The maximal runs [start, end) of a parsed bitmap, ascending. */
export function* runsOf(bytes: Uint8Array, bitmap: PortableBitmap): Generator<[number, number]> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // The pending run: the next container may extend it.
  let start = -1;
  let end = -1;
  for (const { key, kind, cardinality, offset } of bitmap.containers) {
    const base = key * CONTAINER_BLOCKS;
    if (kind === 'runs') {
      const last = offset + 2 + view.getUint16(offset, true) * 4;
      for (let at = offset + 2; at < last; at += 4) {
        const first = base + view.getUint16(at, true);
        if (first !== end) {
          if (start >= 0) yield [start, end];
          start = first;
        }
        end = first + view.getUint16(at + 2, true) + 1;
      }
    } else if (kind === 'array') {
      for (let at = offset; at < offset + cardinality * 2; at += 2) {
        const value = base + view.getUint16(at, true);
        if (value !== end) {
          if (start >= 0) yield [start, end];
          start = value;
        }
        end = value + 1;
      }
    } else {
      for (let word = 0; word < ROARING_BITSET_BYTES / 4; word++) {
        let bits = view.getUint32(offset + word * 4, true);
        while (bits !== 0) {
          const low = 31 - Math.clz32(bits & -bits);
          const beyond = ~(bits | (bits - 1));
          const high = beyond === 0 ? 32 : 31 - Math.clz32(beyond & -beyond);
          const first = base + word * 32 + low;
          if (first !== end) {
            if (start >= 0) yield [start, end];
            start = first;
          }
          end = base + word * 32 + high;
          bits = high === 32 ? 0 : bits & (-1 << high);
        }
      }
    }
  }
  if (start >= 0) yield [start, end];
}

/**
 * Divides a parsed bitmap into bitmaps of one slice each: the index of the slice, and its bytes in portable format. The
 * values of a slice are relative to its first value. Empty slices are left out.
 */
export function* portableSlices(
  bytes: Uint8Array,
  { containers }: PortableBitmap,
): Generator<[slice: number, bytes: Uint8Array], void, undefined> {
  const perSlice = SLICE_BLOCKS / CONTAINER_BLOCKS;
  for (let first = 0; first < containers.length; ) {
    const slice = Math.floor(containers[first]!.key / perSlice);
    let after = first + 1;
    while (after < containers.length && Math.floor(containers[after]!.key / perSlice) === slice) after++;
    const end = containers[after]?.offset ?? bytes.length;
    yield [slice, joined(bytes, containers.slice(first, after), { firstKey: slice * perSlice, end })];
    first = after;
  }
}

/** The portable bytes of containers whose bodies are adjacent in `bytes` and end at `end`. */
function joined(
  bytes: Uint8Array,
  containers: readonly PortableContainer[],
  { firstKey, end }: { firstKey: number; end: number },
): Uint8Array {
  const count = containers.length;
  const hasRuns = containers.some(({ kind }) => kind === 'runs');
  const headersAt = hasRuns ? 4 + Math.ceil(count / 8) : 8;
  const offsetsAt = headersAt + count * 4;
  const bodiesAt = offsetsAt + (hasRuns && count < ROARING_OFFSETS_FROM ? 0 : count * 4);
  const from = containers[0]!.offset;
  const made = new Uint8Array(bodiesAt + end - from);
  const view = new DataView(made.buffer);
  view.setUint32(0, hasRuns ? ROARING_COOKIE + (count - 1) * 2 ** 16 : ROARING_COOKIE_WITHOUT_RUNS, true);
  if (!hasRuns) view.setUint32(4, count, true);
  for (const [index, { key, kind, cardinality, offset }] of containers.entries()) {
    if (kind === 'runs') made[4 + (index >> 3)]! |= 1 << (index & 7);
    view.setUint16(headersAt + index * 4, key - firstKey, true);
    view.setUint16(headersAt + index * 4 + 2, cardinality - 1, true);
    if (bodiesAt > offsetsAt) view.setUint32(offsetsAt + index * 4, bodiesAt + offset - from, true);
  }
  made.set(bytes.subarray(from, end), bodiesAt);
  return made;
}

/**
 * Finds the containers that CRoaring has kept as runs although an array is two bytes shorter.
 * `runOptimize` keeps a container with twice as many values as runs in its present form, be it runs or an array. This
 * is the only case in which the bytes depend on history.
 *
 * @param bytes a bitmap that CRoaring wrote after `runOptimize`
 * @returns the values of each such container
 */
export function arraysWrittenAsRuns(bytes: Uint8Array): Uint32Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: Uint32Array[] = [];
  const cookie = view.getUint32(0, true);
  if ((cookie & 0xffff) !== ROARING_COOKIE) return found;
  const count = (cookie >>> 16) + 1;
  const headers = 4 + Math.ceil(count / 8);
  let at = headers + count * (count >= ROARING_OFFSETS_FROM ? 8 : 4);
  for (let i = 0; i < count; i++) {
    const cardinality = view.getUint16(headers + i * 4 + 2, true) + 1;
    if ((bytes[4 + (i >> 3)]! >> (i & 7)) & 1) {
      const runs = view.getUint16(at, true);
      if (cardinality === 2 * runs) {
        const base = view.getUint16(headers + i * 4, true) * CONTAINER_BLOCKS;
        const values = new Uint32Array(cardinality);
        let next = 0;
        for (let place = at + 2; place < at + 2 + runs * 4; place += 4) {
          const start = base + view.getUint16(place, true);
          const last = start + view.getUint16(place + 2, true);
          for (let value = start; value <= last; value++) values[next++] = value;
        }
        found.push(values);
      }
      at += 2 + runs * 4;
    } else {
      at += cardinality <= ROARING_ARRAY_LIMIT ? cardinality * 2 : ROARING_BITSET_BYTES;
    }
  }
  return found;
}

function populationCount(word: number): number {
  word -= (word >>> 1) & 0x55555555;
  word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
  return Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
