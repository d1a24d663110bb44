/** Damaged metadata as edits to a frozen state, so that a case is one short line that can be stored. */

import { readdirSync, readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { seededRandom } from '../../src/testing/random.ts';
import type { Core } from '../../src/wasm/core.ts';
import type { Image, Images } from '../log/memory-files.ts';

export const SUFFIXES = ['bak', 'bak.1', 'wil', 'wil.1'] as const;
export const TARGET = 'disk.raw';
const SECTOR_BYTES = 512;
const CELL_BYTES = 4096;
// Not from this module: a bundle of it is elsewhere.
const fixtures = pathToFileURL('test/fixtures/');

/** A change. Numbers that are too large are taken modulo the possible values. */
export interface Edit {
  readonly kind:
    | 'flip'
    | 'value'
    | 'zero'
    | 'random'
    | 'copy'
    | 'insert'
    | 'cut'
    | 'resize'
    | 'delete'
    | 'swap'
    | 'replace';
  /** Which of the four files, and which second file. */
  readonly file: number;
  readonly other: number;
  readonly at: number;
  readonly from: number;
  readonly length: number;
  readonly value: number;
}

/** Whether the target holds what was written after the last flush: wholly, not at all, or in every second cell. */
export type TargetKind = 'kept' | 'lost' | 'some';

export interface FuzzCase {
  readonly base: string;
  readonly target: TargetKind;
  /** Whether checksums are recomputed, so that the checks after them are reached. */
  readonly sealed: boolean;
  readonly via: 'recover' | 'inspect' | 'open';
  readonly edits: readonly Edit[];
}

export interface Base {
  readonly format: 1 | 2;
  readonly images: Images;
  /** Bytes of the device. */
  readonly size: number;
  readonly targets: Readonly<Record<TargetKind, Uint8Array>>;
}

/** The beginning of each kind of target, from runs of equal bytes. Zeros follow. */
function targetsOf(runs: readonly (readonly [offset: number, length: number, value: number])[]): Base['targets'] {
  const [lastOffset, lastLength] = runs.at(-1) ?? [0, 0];
  const kept = new Uint8Array(lastOffset + lastLength);
  for (const [offset, length, value] of runs) kept.fill(value, offset, offset + length);
  const some = kept.slice();
  for (let at = 0; at < some.length; at += 2 * CELL_BYTES) some.fill(0, at, at + CELL_BYTES);
  return { kept, some, lost: new Uint8Array(0) };
}

function loadBase(name: string): Base {
  const folder = new URL(`${name}/`, fixtures);
  const expected = JSON.parse(readFileSync(new URL('expected.json', folder), 'utf8')) as {
    size?: number;
    deviceSize?: number;
    target?: [number, number, number][];
  };
  const images = new Map<string, Image>();
  for (const file of readdirSync(folder).filter((file) => file.startsWith(TARGET))) {
    const bytes = new Uint8Array(readFileSync(new URL(file, folder)));
    // A claimed file has no header yet, which would have its length.
    const isSparse = file.includes('.wil') && bytes[8] === 2 && bytes.length >= 512;
    images.set(file, {
      bytes,
      size: isSparse ? Number(new DataView(bytes.buffer).getBigUint64(56, true)) : bytes.length,
    });
  }
  return {
    format: name.startsWith('format2') ? 2 : 1,
    images,
    size: expected.size ?? expected.deviceSize!,
    targets: targetsOf(expected.target ?? []),
  };
}

/** A checkpoint of format 1 around a bitmap of the Roaring format's own specification. */
function roaringBase(file: string): Base {
  const bitmap = readFileSync(new URL(`roaring/${file}`, fixtures));
  const bytes = new Uint8Array(16 + 8 + bitmap.length + 16);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('COD BAK\0'));
  view.setBigUint64(8, 1n, true);
  view.setBigUint64(16, BigInt(bitmap.length), true);
  bytes.set(bitmap, 24);
  return {
    format: 1,
    images: new Map([[`${TARGET}.bak`, { bytes, size: bytes.length }]]),
    size: 800_000 * 4096,
    targets: targetsOf([]),
  };
}

/** The states that are small enough for thousands of reads. */
const NAMES = [
  ...['mid-copy', 'checkpoint-under-way', 'fresh', 'standalone'].map((name) => `format2/${name}`),
  ...[
    'both-maps',
    'both-maps-torn-primary',
    'empty',
    'full',
    'log-torn-dirty',
    'log-torn-word',
    'log-zero-tail',
    'map-only',
    'odd-size',
  ].map((name) => `golden/${name}`),
];
export const BASES: ReadonlyMap<string, Base> = new Map([
  ...NAMES.map((name): [string, Base] => [name, loadBase(name)]),
  ...['bitmapwithruns.bin', 'bitmapwithoutruns.bin'].map((file): [string, Base] => [
    `roaring/${file}`,
    roaringBase(file),
  ]),
]);

/** Numbers at which a range, a size or a limit ends. */
export const VALUES: readonly bigint[] = [
  ...[0n, 1n, 2n, 3n, 7n, 8n, 40n, 504n, 511n, 512n, 4095n, 4096n, 4097n, 12_346n, 12_347n, 65_535n, 65_536n],
  ...[
    2n ** 20n,
    2n ** 28n,
    2n ** 31n - 1n,
    2n ** 31n,
    2n ** 32n - 1n,
    2n ** 32n,
    2n ** 40n,
    2n ** 52n,
    2n ** 53n - 1n,
    2n ** 53n,
    2n ** 63n,
    2n ** 64n - 1n,
  ],
  ...[1n << 56n, 2n << 56n, 3n << 56n, 4n << 56n, 5n << 56n, 6n << 56n, 7n << 56n, 8n << 56n],
];

function resized(bytes: Uint8Array, length: number): Uint8Array {
  const changed = new Uint8Array(length);
  changed.set(bytes.subarray(0, length));
  return changed;
}

/** Applies an edit to the bytes of a file. */
function editBytes(edit: Edit, image: Image, other: Image | undefined): Image {
  const { kind, value } = edit;
  const at = edit.at % (image.bytes.length + 64);
  const room = Math.max(0, Math.min(image.size, image.bytes.length + 128) - at);
  const length = Math.min(
    room,
    kind === 'copy' || kind === 'insert' ? 1 + (edit.length % 64) : 1 + (edit.length % 600),
  );
  if (kind === 'resize') {
    const sizes = [at, image.size + 8, image.size + 4096, 4096, 2 ** 20, 2 ** 28, 2 ** 31, 2 ** 40];
    const size = sizes[value % sizes.length]!;
    return { bytes: image.bytes.slice(0, size), size };
  }
  if (length === 0) return image;
  const bytes = resized(image.bytes, Math.max(image.bytes.length, at + length + 8));
  switch (kind) {
    case 'flip':
      bytes[at]! ^= 1 << (value & 7);
      break;
    case 'value': {
      const word = new Uint8Array(8);
      new DataView(word.buffer).setBigUint64(0, VALUES[value % VALUES.length]!, true);
      const width = [1, 2, 4, 8][edit.length % 4]!;
      bytes.set(word.subarray(0, width), at - (at % width));
      break;
    }
    case 'zero':
      bytes.fill(0, at, at + length);
      break;
    case 'random':
      seededRandom(value).fill(bytes.subarray(at, at + Math.min(length, 16)));
      break;
    case 'copy': {
      const source = (other ?? image).bytes;
      const from = source.length === 0 ? 0 : edit.from % source.length;
      bytes.set(source.subarray(from, from + length).slice(), at);
      break;
    }
    case 'insert':
      bytes.copyWithin(at + length, at);
      break;
    case 'cut':
      bytes.copyWithin(at, at + length);
      break;
    default:
      return image;
  }
  return { bytes: bytes.subarray(0, Math.min(bytes.length, image.size)), size: image.size };
}

function sealHeader(core: Core, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint32(500, core.crc32c(bytes.subarray(0, 500)), true);
}

/** Recomputes the checksums of the slices and of the directory of a checkpoint, as far as they are in the file. */
function sealCheckpoint(core: Core, bytes: Uint8Array, view: DataView): void {
  const identity = view.getUint32(68, true);
  const directory = SECTOR_BYTES + (identity === 0xffff_ffff ? 0 : Math.ceil(identity / 8) * 8);
  const slices = Math.ceil(Number(view.getBigUint64(40, true)) / view.getUint32(48, true) / 2 ** 24);
  const end = directory + 40 * slices;
  if (!(end <= bytes.length)) return;
  for (let entry = directory; entry < end; entry += 40) {
    const offset = Number(view.getBigUint64(entry, true));
    const [dirty, synced, modified] = [8, 12, 16].map(
      (field) => Math.ceil(view.getUint32(entry + field, true) / 8) * 8,
    );
    const length = dirty! + synced! + modified!;
    if (length === 0 || offset + length > bytes.length) continue;
    view.setUint32(entry + 20, core.crc32c(bytes.subarray(offset, offset + length)), true);
  }
  view.setUint32(64, core.crc32c(bytes.subarray(SECTOR_BYTES, end)), true);
}

/** Recomputes all checksums of a file of format 2. */
export function seal(core: Core, image: Image): Image {
  const bytes = image.bytes.slice();
  if (bytes.length < SECTOR_BYTES || bytes[8] !== 2) return image;
  const view = new DataView(bytes.buffer);
  if (bytes[4] === 'B'.charCodeAt(0)) {
    sealCheckpoint(core, bytes, view);
  } else {
    for (let at = SECTOR_BYTES; at + 40 <= bytes.length; ) {
      const left = SECTOR_BYTES - (at % SECTOR_BYTES);
      const length = view.getUint16(at, true);
      if (length < 40 || length > left || at + length > bytes.length || length % 8 !== 0) {
        at += left;
        continue;
      }
      view.setUint16(at + 2, length ^ 0xffff, true);
      view.setUint32(at + length - 8, core.crc32c(bytes.subarray(at, at + length - 8)), true);
      bytes.set(new TextEncoder().encode('end!'), at + length - 4);
      at += length;
    }
  }
  sealHeader(core, bytes);
  return { bytes, size: image.size };
}

/** The files of a case. */
export function imagesOf(core: Core, { base, sealed, edits }: FuzzCase): Images {
  const images = new Map(BASES.get(base)!.images);
  for (const edit of edits) {
    const present = SUFFIXES.map((suffix) => `${TARGET}.${suffix}`).filter((name) => images.has(name));
    const name = present[edit.file % present.length];
    if (name === undefined) break;
    const otherName = `${TARGET}.${SUFFIXES[edit.other % SUFFIXES.length]!}`;
    const [image, other] = [images.get(name)!, images.get(otherName)];
    if (edit.kind === 'delete') images.delete(name);
    else if (edit.kind === 'replace') images.set(otherName, image);
    else if (edit.kind === 'swap') {
      images.set(otherName, image);
      if (other === undefined) images.delete(name);
      else images.set(name, other);
    } else images.set(name, editBytes(edit, image, other));
  }
  if (sealed) for (const [name, image] of images) images.set(name, seal(core, image));
  return images;
}
