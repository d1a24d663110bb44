/**
 * Manifests: the digests of an image's extents, as a tree. docs/MANIFEST.md specifies their bytes.
 *
 * The digests of a manifest that was read here match its root. Whatever a manifest says, no more memory is allocated
 * than the manifest has bytes.
 */

import { CodError, outOfMemory } from '../errors.ts';
import type { Source } from './source.ts';
import { wholeExtents } from './whole-extents.ts';

const MAGIC = new TextEncoder().encode('COD MAN\0');
const VERSION = 1;
const SHA_256 = 1;
/** Bytes of the header that the root covers. The root follows them. */
const COVERED_BYTES = 32;
const HEADER_BYTES = 64;
const DIGEST_BYTES = 32;
const MIN_EXTENT_BYTES = 4096;
const MAX_EXTENT_BYTES = 65_536;
/** Digests that one node covers. A tree of pairs has a thousand times as many nodes, each a call of WebCrypto. */
const FAN_OUT = 1024;
/** The first byte of what is hashed, so that no extent has the digest of a node. */
const LEAF = 0;
const NODE = 1;
const ROOT = 2;
/** What a source knows of its zeros is asked for in windows of this length. */
const WINDOW_BYTES = 2 ** 30;

/** The digests of an image's extents. */
export interface Manifest {
  /** Bytes of the image. */
  readonly size: number;
  /** Bytes of an extent. The last one may be shorter. */
  readonly extentBytes: number;
  /** The digest of all digests and of {@link size}, 64 hexadecimal digits. */
  readonly root: string;
  /** The manifest as a file. */
  readonly bytes: Uint8Array;
}

/** Options of {@link readManifest}. */
export interface ReadManifestOptions {
  /** Bytes of the image that the manifest must be of. Default: of any image. */
  readonly size?: number;
  /** The root that the manifest must have, 64 hexadecimal digits. Default: any. */
  readonly root?: string;
  /** Ends the call. */
  readonly signal?: AbortSignal;
}

/** Options of {@link createManifest}. */
export interface CreateManifestOptions {
  /** Bytes of an extent: a power of two from 4096 to 65,536. Default: 65,536. */
  readonly extentBytes?: number;
  /** Called with the number of bytes hashed so far. */
  readonly onProgress?: (bytes: number) => void;
  /** Ends the call. */
  readonly signal?: AbortSignal;
}

/**
 * Reads a manifest, and checks its digests against its root. Whether the root is the right one is up to the caller: get
 * it over another way than the image, and compare it or pass it as `root`.
 *
 * @throws {@link CodError} COD_CORRUPT when it is damaged or no manifest; COD_VERSION when a newer version wrote it;
 *   COD_SIZE_MISMATCH when it is of an image of another size; COD_MISMATCH when it has another root;
 *   COD_UNSUPPORTED where there is no WebCrypto; the errors of the source.
 * @throws the signal's reason when it is aborted.
 * @example
 * ```ts
 * import { bytesSource, createManifest, readManifest } from 'copyondemand';
 *
 * const { bytes, root } = await createManifest(bytesSource(new Uint8Array(2 ** 20)));
 * const manifest = await readManifest(bytesSource(bytes), { root });
 * console.log(manifest.size); // 1048576
 * ```
 */
export async function readManifest(source: Source, options: ReadManifestOptions = {}): Promise<Manifest> {
  const reading = options.signal === undefined ? {} : { signal: options.signal };
  if (source.size < HEADER_BYTES) throw damaged(`it has ${source.size} bytes, fewer than a header`);
  const header = new Uint8Array(HEADER_BYTES);
  await source.read(header, 0, reading);
  const { size, extentBytes } = decodeHeader(header);
  if (options.size !== undefined && size !== options.size) {
    throw new CodError('COD_SIZE_MISMATCH', `the manifest is of an image of ${size} bytes, not ${options.size}`, {
      details: { size: options.size, manifestSize: size },
    });
  }
  const length = fileBytes(size, extentBytes);
  if (source.size !== length) {
    throw damaged(`a manifest of ${size} bytes in extents of ${extentBytes} has ${length} bytes, not ${source.size}`);
  }
  const bytes = newBytes(length);
  await source.read(bytes, 0, reading);
  // The file may have changed since its header was read.
  if (!areEqual(bytes.subarray(0, HEADER_BYTES), header)) throw damaged('it changed while it was read');
  const root = await rootOf(bytes);
  if (!areEqual(root, bytes.subarray(COVERED_BYTES, HEADER_BYTES))) throw damaged('its digests do not match its root');
  options.signal?.throwIfAborted();
  const found = hexOf(root);
  if (options.root !== undefined && found !== options.root.toLowerCase()) {
    throw new CodError('COD_MISMATCH', `the root of the manifest is ${found}, not ${options.root}`, {
      details: { root: found, expected: options.root },
    });
  }
  return { size, extentBytes, root: found, bytes };
}

/**
 * Hashes an image. What the source knows as zeros is not read. Takes 32 bytes of memory for each extent.
 *
 * @throws {@link CodError} COD_SIZE_MISMATCH when the source is empty; COD_UNSUPPORTED where there is no WebCrypto, as
 *   in a page without TLS; the errors of the source.
 * @throws `RangeError` when `extentBytes` is wrong.
 * @throws the signal's reason when it is aborted.
 * @example
 * ```ts
 * import { bytesSource, createManifest } from 'copyondemand';
 *
 * const { root, bytes } = await createManifest(bytesSource(new Uint8Array(200_000)));
 * console.log(root.length, bytes.length); // 64 192
 * ```
 */
export async function createManifest(source: Source, options: CreateManifestOptions = {}): Promise<Manifest> {
  const { extentBytes = MAX_EXTENT_BYTES, signal, onProgress } = options;
  const { size } = source;
  if (!isExtentBytes(extentBytes))
    throw new RangeError(`extentBytes must be a power of two from 4096 to 65536, not ${extentBytes}`);
  if (size === 0) throw new CodError('COD_SIZE_MISMATCH', 'the source is empty (0 bytes): there is nothing to hash');
  const bytes = newBytes(fileBytes(size, extentBytes));
  encodeHeader(bytes, size, extentBytes);
  const [zero, lastZero] = await zeroLeaves({ size, extentBytes });
  const windowBytes = source.extents === undefined ? size : WINDOW_BYTES;
  for (let at = 0; at < size; at += windowBytes) {
    for (const { start, end, isZero } of await runsOf(source, at, Math.min(size, at + windowBytes), extentBytes)) {
      let done = start;
      if (isZero) {
        for (; done < end; done += extentBytes)
          bytes.set(done + extentBytes > size ? lastZero : zero, leafOffset(done / extentBytes));
        signal?.throwIfAborted();
        onProgress?.(end);
        continue;
      }
      let hashing: Promise<unknown> = Promise.resolve();
      for await (const piece of wholeExtents(source, { start, end, extentBytes }, signal)) {
        // One piece is hashed while the next one is read.
        await hashing;
        hashing = hashInto(bytes, piece, done, extentBytes);
        hashing.catch(() => undefined);
        done += piece.length;
        onProgress?.(done);
      }
      await hashing;
    }
  }
  const root = await rootOf(bytes);
  bytes.set(root, COVERED_BYTES);
  return { size, extentBytes, root: hexOf(root), bytes };
}

/** The offsets of the extents of `[offset, offset + bytes.length)` whose digests are not those of a manifest. */
export async function mismatches(manifest: Manifest, bytes: Uint8Array, offset: number): Promise<number[]> {
  const { extentBytes } = manifest;
  const found = new Uint8Array(leafOffset(Math.ceil(bytes.length / extentBytes)) - HEADER_BYTES);
  await hashInto(found, bytes, 0, extentBytes, 0);
  const wrong: number[] = [];
  for (let at = 0; at < bytes.length; at += extentBytes) {
    const from = (at / extentBytes) * DIGEST_BYTES;
    if (!areEqual(found.subarray(from, from + DIGEST_BYTES), leafOf(manifest, offset + at))) wrong.push(offset + at);
  }
  return wrong;
}

/** The digest of the extent at `offset`. */
export function leafOf({ bytes, extentBytes }: Manifest, offset: number): Uint8Array {
  const at = leafOffset(offset / extentBytes);
  return bytes.subarray(at, at + DIGEST_BYTES);
}

/** The digests of an extent of zeros, and of the last extent if that one is zero. */
export function zeroLeaves({
  size,
  extentBytes,
}: Pick<Manifest, 'size' | 'extentBytes'>): Promise<[zero: Uint8Array, lastZero: Uint8Array]> {
  const zeros = new Uint8Array(extentBytes);
  return Promise.all([digest(LEAF, zeros), digest(LEAF, zeros.subarray(0, size % extentBytes || extentBytes))]);
}

export function areEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

function leafOffset(index: number): number {
  return HEADER_BYTES + index * DIGEST_BYTES;
}

function fileBytes(size: number, extentBytes: number): number {
  return leafOffset(Math.ceil(size / extentBytes));
}

function isExtentBytes(bytes: number): boolean {
  return bytes >= MIN_EXTENT_BYTES && bytes <= MAX_EXTENT_BYTES && Number.isInteger(Math.log2(bytes));
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

function encodeHeader(into: Uint8Array, size: number, extentBytes: number): void {
  const view = viewOf(into);
  into.set(MAGIC);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, SHA_256, true);
  view.setBigUint64(16, BigInt(size), true);
  view.setUint32(24, extentBytes, true);
}

function decodeHeader(header: Uint8Array): { size: number; extentBytes: number } {
  const view = viewOf(header);
  if (!areEqual(header.subarray(0, MAGIC.length), MAGIC)) throw damaged('it does not begin with "COD MAN"');
  const version = view.getUint32(8, true);
  const kind = view.getUint32(12, true);
  if (version !== VERSION || kind !== SHA_256) {
    throw new CodError('COD_VERSION', `the manifest has version ${version}, digest ${kind}: use a newer package`, {
      details: { version, digest: kind },
    });
  }
  const size = Number(view.getBigUint64(16, true));
  const extentBytes = view.getUint32(24, true);
  if (size < 1 || !Number.isSafeInteger(size)) throw damaged(`it is of an image of ${size} bytes`);
  if (!isExtentBytes(extentBytes)) throw damaged(`its extents have ${extentBytes} bytes`);
  if (view.getUint32(28, true) !== 0) throw damaged('bytes 28 to 31 are not zero');
  return { size, extentBytes };
}

function damaged(why: string): CodError {
  return new CodError('COD_CORRUPT', `not a manifest, or a damaged one: ${why}`);
}

/** What is known of whole extents in `[start, end)`, merged. An extent that is zero in part is data. */
async function runsOf(
  source: Source,
  start: number,
  end: number,
  extentBytes: number,
): Promise<{ start: number; end: number; isZero: boolean }[]> {
  const runs: { start: number; end: number; isZero: boolean }[] = [];
  const add = (to: number, isZero: boolean): void => {
    const last = runs.at(-1);
    const from = last?.end ?? start;
    if (to <= from) return;
    if (last?.isZero === isZero) last.end = to;
    else runs.push({ start: from, end: to, isZero });
  };
  let at = start;
  for (const { length, zero } of (await source.extents?.(start, end - start)) ?? []) {
    if (zero) {
      add(Math.min(end, Math.ceil(at / extentBytes) * extentBytes), false);
      const stop = at + length;
      add(stop === source.size ? stop : Math.floor(stop / extentBytes) * extentBytes, true);
    }
    at += length;
  }
  add(end, false);
  return runs;
}

/** Puts the digests of whole extents into the digests that begin at byte `base` of `into`. */
async function hashInto(
  into: Uint8Array,
  bytes: Uint8Array,
  offset: number,
  extentBytes: number,
  base: number = HEADER_BYTES,
): Promise<void> {
  const hashes: Promise<void>[] = [];
  for (let at = 0; at < bytes.length; at += extentBytes) {
    const to = base + ((offset + at) / extentBytes) * DIGEST_BYTES;
    hashes.push(digest(LEAF, bytes.subarray(at, at + extentBytes)).then((leaf) => into.set(leaf, to)));
  }
  await Promise.all(hashes);
}

async function rootOf(manifest: Uint8Array): Promise<Uint8Array> {
  let level = manifest.subarray(HEADER_BYTES);
  while (level.length > DIGEST_BYTES) {
    const parents = newBytes(Math.ceil(level.length / (FAN_OUT * DIGEST_BYTES)) * DIGEST_BYTES);
    for (let to = 0; to < parents.length; to += DIGEST_BYTES)
      parents.set(await digest(NODE, level.subarray(to * FAN_OUT, (to + DIGEST_BYTES) * FAN_OUT)), to);
    level = parents;
  }
  const covered = new Uint8Array(COVERED_BYTES + DIGEST_BYTES);
  covered.set(manifest.subarray(0, COVERED_BYTES));
  covered.set(level, COVERED_BYTES);
  return digest(ROOT, covered);
}

/** Idle buffers of {@link digest}: as many as pieces of 2 MiB need. */
const idle: Uint8Array<ArrayBuffer>[] = [];
const MAX_IDLE = 32;

/** Returns the SHA-256 of a byte and of bytes, at most an extent. They are copied before the call returns. */
async function digest(prefix: number, bytes: Uint8Array): Promise<Uint8Array> {
  const { subtle } = globalThis.crypto ?? {};
  if (subtle === undefined)
    throw new CodError('COD_UNSUPPORTED', 'there is no WebCrypto here: load the page over https, or from localhost');
  const buffer = idle.pop() ?? new Uint8Array(1 + MAX_EXTENT_BYTES);
  buffer[0] = prefix;
  buffer.set(bytes, 1);
  try {
    return new Uint8Array(await subtle.digest('SHA-256', buffer.subarray(0, 1 + bytes.length)));
  } finally {
    if (idle.length < MAX_IDLE) idle.push(buffer);
  }
}

/** @throws {@link CodError} COD_NO_MEMORY */
export function newBytes(length: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(length);
  } catch (error) {
    throw outOfMemory(`${length} bytes`, error);
  }
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
