/**
 * The damages of the damage suite: each yields the files of a state, of which one or two are damaged. A damage that is
 * a possible state, or that cannot be detected (docs/DESIGN.md, "Damage and faults"), is left out.
 */

import { CodError } from '../../src/index.ts';
import { seededRandom } from '../../src/testing/index.ts';
import type { Image, Images } from './memory-files.ts';
import { Life, SIZE, type State } from './states.ts';

const HEADER_BYTES = 512;
export const METADATA: readonly string[] = ['disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'];

/** Damaged files of a state. */
export interface Damage {
  readonly what: string;
  /** The damaged files, and in which way: damages of one kind differ in their place only. */
  readonly kind: string;
  readonly images: Images;
}

/** Of a log, what follows the damage may look like a torn tail. */
export function isLogDamaged(state: State, images: Images): boolean {
  return METADATA.some((name) => name.startsWith('disk.wil') && images.get(name) !== state.images.get(name));
}

function isFormat(version: number, image: Image | undefined): boolean {
  return image?.bytes[8] === version;
}

/** A log of the same epoch with fewer whole frames is a possible state, not damage. */
function isSameEpochsLog(name: string, image: Image, present: Image): boolean {
  return (
    name.startsWith('disk.wil') &&
    Buffer.compare(image.bytes.subarray(0, HEADER_BYTES), present.bytes.subarray(0, HEADER_BYTES)) === 0
  );
}

/**
 * Files of format 1 have no checksums and do not refer to each other. So the files of format 1 are not damaged here.
 * A state is excluded if its only checkpoint of format 2 is removed and one of its files of format 1 is void already.
 */
export function isFormat1Alone(state: State, images: Images): boolean {
  const all = METADATA.map((name) => images.get(name));
  const before = METADATA.filter((name) => isFormat(1, state.earlier.get(name)?.[0] ?? state.images.get(name)));
  const left = all.filter((image) => isFormat(1, image)).length;
  return left > 0 && left < before.length && !all.some((image) => isFormat(2, image) && image!.size > 504);
}

export function withFile(images: Images, name: string, image: Image | undefined): Images {
  const changed = new Map(images);
  if (image === undefined) changed.delete(name);
  else changed.set(name, image);
  return changed;
}

function damageable(state: State): [string, Image][] {
  return [...state.images].filter(([name, image]) => name !== 'disk' && !isFormat(1, image));
}

/** Flips each `stride`th bit of the used bytes and of the next frame's place, and some bits after them. */
export function* flippedBits(state: State, stride: number): Generator<Damage> {
  const { images } = state;
  const random = seededRandom(5);
  for (const [name, image] of damageable(state)) {
    const used = Math.min(image.bytes.length + 16, image.size) * 8;
    const bits: number[] = [];
    for (let bit = random.below(stride); bit < used; bit += stride) bits.push(bit);
    for (let sample = 0; sample < 40 / stride && image.size * 8 > used; sample++)
      bits.push(used + random.below(image.size * 8 - used));
    for (const bit of bits) {
      const bytes = new Uint8Array(Math.max(image.bytes.length, (bit >> 3) + 1));
      bytes.set(image.bytes);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      const flipped = withFile(images, name, { bytes, size: image.size });
      const what = `bit ${bit & 7} of byte ${bit >> 3} of ${name} flipped`;
      yield { what, kind: `a bit of ${name} flipped`, images: flipped };
    }
  }
}

/** Truncates small files to each length, and logs to each multiple of eight near the used bytes and some others. */
export function* truncations(state: State, stride: number): Generator<Damage> {
  const { images } = state;
  const random = seededRandom(6);
  for (const [name, image] of damageable(state)) {
    const isSmall = image.size < 4096;
    const lengths = new Set<number>();
    const end = Math.min(image.size, image.bytes.length + 64);
    for (let length = 0; length < end; length += isSmall ? stride : 8 * stride) lengths.add(length);
    for (let sample = 0; sample < 20 / stride && !isSmall; sample++) lengths.add(random.below(image.size));
    if (!isSmall) for (const grown of [image.size - 4096, image.size + 4096]) lengths.add(grown);
    for (const length of lengths) {
      const cut = withFile(images, name, { bytes: image.bytes.subarray(0, length), size: length });
      yield { what: `${name} of ${length} bytes`, kind: `another length of ${name}`, images: cut };
    }
  }
}

/** Loses, swaps and replaces files, and replaces sectors by zeros and by random bytes. */
export function* replacements(state: State): Generator<Damage> {
  const { images } = state;
  const damage = (what: string, replaced: Images, kind = what): Damage => ({ what, kind, images: replaced });
  for (const [name, image] of damageable(state)) {
    yield damage(`${name} deleted`, withFile(images, name, undefined));
    for (const other of METADATA) {
      if (other === name || isFormat(1, images.get(other))) continue;
      yield damage(`${name} and ${other} swapped`, withFile(withFile(images, name, images.get(other)), other, image));
      yield damage(`${name} in place of ${other}`, withFile(images, other, image));
    }
    for (const [version, earlier] of (state.earlier.get(name) ?? []).entries()) {
      if (isFormat(1, earlier) || isSameEpochsLog(name, earlier, image)) continue;
      yield damage(`${name} put back to version ${version}`, withFile(images, name, earlier));
    }
    for (const [seed, size] of [17, HEADER_BYTES, 700, image.size].entries()) {
      const bytes = seededRandom(seed).fill(new Uint8Array(Math.min(size, 5000)));
      yield damage(`${size} random bytes in place of ${name}`, withFile(images, name, { bytes, size }));
    }
    // The last sector of a log is excluded: losing whole frames gives a possible state.
    const end = name.startsWith('disk.wil') ? image.bytes.length - HEADER_BYTES : image.bytes.length;
    for (let at = 0; at < end; at += HEADER_BYTES) {
      for (const filling of ['zeroed', 'random']) {
        const bytes = image.bytes.slice();
        const sector = bytes.subarray(at, at + HEADER_BYTES);
        if (filling === 'zeroed') sector.fill(0);
        else seededRandom(at).fill(sector);
        const replaced = withFile(images, name, { bytes, size: image.size });
        yield damage(`sector at ${at} of ${name} ${filling}`, replaced, `a sector of ${name} ${filling}`);
      }
    }
  }
}

/** The files of a copy of the same source from another session, or of another source. */
async function foreign(kind: 'session' | 'size'): Promise<Images> {
  const life = new Life(new Map(), [], kind === 'session' ? { session: 9 } : { size: SIZE - 1 });
  await life.start();
  for (let round = 0; round < 3; round++) {
    await life.write(round * 5000, 5000);
    await life.checkpoint();
  }
  return life.fileSystem.images();
}

/** Puts a file of another copy in the place of each file. */
export async function* foreignFiles({ images }: State): AsyncGenerator<Damage> {
  for (const kind of ['session', 'size'] as const) {
    const others = await foreign(kind);
    for (const name of METADATA) {
      const what = `${name} of another ${kind}`;
      yield { what, kind: what, images: withFile(images, name, others.get(name)) };
    }
  }
}

/** Swaps the slots of each kind, of a state that has all four files. */
export function* swappedSlots({ images }: State): Generator<Damage> {
  for (const kind of ['disk.bak', 'disk.wil']) {
    const swapped = withFile(withFile(images, kind, images.get(`${kind}.1`)), `${kind}.1`, images.get(kind));
    yield { what: `slots of ${kind}`, kind: `slots of ${kind}`, images: swapped };
  }
}

/** Zeroes each sector of the log `disk.wil` in [start, end). */
export function* lostSectors(state: State, start: number, end: number): Generator<Damage & { at: number }> {
  for (let at = start; at < end; at += HEADER_BYTES) yield { ...withHole(state, at, at + HEADER_BYTES), at };
}

function withHole({ images }: State, start: number, end: number): Damage {
  const { bytes, size } = images.get('disk.wil')!;
  const holed = withFile(images, 'disk.wil', { bytes: bytes.slice().fill(0, start, end), size });
  return { what: `zeros at ${start}`, kind: 'a lost sector of disk.wil', images: holed };
}

/** Returns the code with which `work` rejects. Undefined: it does not. */
export async function codeOf(work: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    if (error instanceof CodError) return error.code;
    throw error;
  }
}
