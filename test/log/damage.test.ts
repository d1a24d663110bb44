/**
 * Damaged metadata is never believed: whatever is done to any one file, opening refuses it, or every byte reads as promised.
 *
 * What cannot be noticed, by design (docs/DESIGN.md, Damage), is left out where it would be made: a log put back to an earlier state of the same
 * epoch; the content of files of format 1, which have no checksums.
 */

import { describe, expect, it } from 'vitest';
import { type CodErrorCode, isCodError } from '../../src/core/errors.ts';
import { recover } from '../../src/log/recovery.ts';
import { Slots } from '../../src/log/slots.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { type Image, type Images, MemoryFiles } from './memory-files.ts';
import { BOOT, format1State, Life, open, SIZE, type State, statesAtRest, statesInBetween, violation } from './states.ts';

const HEADER_BYTES = 512;
const METADATA = ['disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'];

type Boot = 'same' | 'other';

const core = Core.create();
const atRest = await statesAtRest();
const inBetween = await statesInBetween();

/** Opens the images and reads all of the device. Returns the code of the refusal, or what recovery found; throws what must not be. */
class Opener {
  readonly state: State;
  readonly boot: Boot;
  readonly #read = new Set<string>();
  readonly counts = { refused: 0, read: 0 };

  constructor(state: State, boot: Boot) {
    this.state = state;
    this.boot = boot;
  }

  /**
   * Recovery alone decides what is read, so the device is opened and compared once for each thing that recovery says, and else only recovered.
   */
  async check(what: string, images: Images, allowed: readonly CodErrorCode[] = []): Promise<void> {
    try {
      const slots = new Slots(this.#volume(images), 'disk');
      const found = await recover(core, slots, async () => SIZE);
      let key = 'nothing';
      if (found !== undefined) {
        const { map, dirty, epoch, bothLogs, format, session, identity } = found;
        const parts = [...dirty.blocks()].map((block) => [block, dirty.parts(block)]);
        key = JSON.stringify([[...map.extents(0, 6)], parts, epoch, bothLogs, format, session, identity]);
        map.dispose();
      }
      if (!this.#read.has(key)) await this.#readAll(images);
      this.#read.add(key);
      this.counts.read++;
    } catch (error) {
      if (isCodError(error) && (error.code === 'COD_CORRUPT' || error.code === 'COD_VERSION' || allowed.includes(error.code))) {
        this.counts.refused++;
        return;
      }
      throw new Error(`${this.state.name}, ${this.boot} boot, ${what}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** As {@link check}, where the target is not the same either. */
  async checkAnew(what: string, images: Images, allowed: readonly CodErrorCode[] = []): Promise<void> {
    this.#read.clear();
    await this.check(what, images, allowed);
    this.#read.clear();
  }

  #volume(images: Images): MemoryFiles {
    return new MemoryFiles(images, { bootId: this.boot === 'same' ? BOOT : 'another boot' });
  }

  async #readAll(images: Images): Promise<void> {
    const device = await open(this.#volume(images));
    try {
      const found = new Uint8Array(SIZE);
      await device.read(found, 0);
      const wrong = violation(this.state, found, this.boot);
      if (wrong !== undefined) throw new Error(wrong);
    } finally {
      await device.close();
    }
  }
}

function withFile(images: Images, name: string, image: Image | undefined): Images {
  const changed = new Map(images);
  if (image === undefined) changed.delete(name);
  else changed.set(name, image);
  return changed;
}

function isFormat1(image: Image): boolean {
  return image.bytes[8] === 1;
}

function metadataOf(state: State): [string, Image][] {
  return [...state.images].filter(([name, image]) => name !== 'disk' && !isFormat1(image));
}

async function flipBits(opener: Opener, stride: number): Promise<void> {
  const { images } = opener.state;
  const random = seededRandom(5);
  for (const [name, image] of metadataOf(opener.state)) {
    const used = Math.min(image.bytes.length + 16, image.size) * 8;
    const bits: number[] = [];
    for (let bit = random.below(stride); bit < used; bit += stride) bits.push(bit);
    for (let sample = 0; sample < 40 / stride && image.size * 8 > used; sample++) bits.push(used + random.below(image.size * 8 - used));
    for (const bit of bits) {
      const bytes = new Uint8Array(Math.max(image.bytes.length, (bit >> 3) + 1));
      bytes.set(image.bytes);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      await opener.check(`bit ${bit & 7} of byte ${bit >> 3} of ${name} flipped`, withFile(images, name, { bytes, size: image.size }));
    }
  }
}

async function truncate(opener: Opener, stride: number): Promise<void> {
  const { images } = opener.state;
  const random = seededRandom(6);
  for (const [name, image] of metadataOf(opener.state)) {
    const lengths = new Set<number>();
    const end = Math.min(image.size, image.bytes.length + 64);
    for (let length = 0; length < end; length += image.size < 4096 ? stride : 8 * stride) lengths.add(length);
    for (let sample = 0; sample < 20 && image.size > 4096; sample++) lengths.add(random.below(image.size));
    for (const length of lengths) {
      const cut = { bytes: image.bytes.subarray(0, length), size: length };
      // Where nothing is left that could count, the target is nobody's.
      await opener.check(`${name} cut to ${length} bytes`, withFile(images, name, cut), ['COD_EXISTS']);
    }
  }
}

async function replaceFiles(opener: Opener): Promise<void> {
  const { state } = opener;
  const { images } = state;
  const names = metadataOf(state).map(([name]) => name);
  for (const name of names) {
    await opener.check(`${name} deleted`, withFile(images, name, undefined), ['COD_EXISTS']);
    for (const other of METADATA) {
      if (other === name) continue;
      const swapped = withFile(withFile(images, name, images.get(other)), other, images.get(name));
      await opener.check(`${name} and ${other} swapped`, swapped);
      await opener.check(`${name} in place of ${other}`, withFile(images, other, images.get(name)));
    }
    for (const [version, image] of (state.earlier.get(name) ?? []).entries()) {
      if (isSameEpochsLog(name, image, images.get(name)!)) continue;
      await opener.check(`${name} put back to version ${version}`, withFile(images, name, image), ['COD_EXISTS']);
    }
    for (let seed = 0; seed < 4; seed++) {
      const size = [17, 512, 700, images.get(name)!.size][seed]!;
      const bytes = seededRandom(seed).fill(new Uint8Array(Math.min(size, 5000)));
      await opener.check(`random bytes in place of ${name}`, withFile(images, name, { bytes, size }));
    }
  }
}

/** Cannot be noticed: the log of the same epoch, with fewer frames, to the byte. */
function isSameEpochsLog(name: string, image: Image, present: Image): boolean {
  return name.startsWith('disk.wil') && Buffer.compare(image.bytes.subarray(0, HEADER_BYTES), present.bytes.subarray(0, HEADER_BYTES)) === 0;
}

describe.each(['same', 'other'] as const)('in the %s boot', (boot) => {
  it.each(atRest)('$name: every flipped bit is noticed, or does no harm', { timeout: 120_000 }, async (state) => {
    const opener = new Opener(state, boot);
    await opener.check('as it is', state.images);
    expect(opener.counts).toEqual({ refused: 0, read: 1 });
    const t = performance.now();
    await flipBits(opener, 1);
    console.log(state.name, boot, performance.now() - t, opener.counts);
    expect(opener.counts.refused).toBeGreaterThan(4 * 4096 * 0.7);
  });

  it.each(atRest)('$name: every truncation is noticed, or does no harm', { timeout: 120_000 }, async (state) => {
    const opener = new Opener(state, boot);
    await truncate(opener, 1);
    await replaceFiles(opener);
    console.log(state.name, boot, opener.counts);
  });

  it.each(inBetween)('$name: damage at each of its steps is noticed, or does no harm', { timeout: 120_000 }, async ({ name, states }) => {
    const t = performance.now();
    const failures: string[] = [];
    const total = { refused: 0, read: 0 };
    for (const state of states) {
      const opener = new Opener(state, boot);
      for (const work of [() => flipBits(opener, 41), () => truncate(opener, 7), () => replaceFiles(opener)]) {
        try {
          await work();
        } catch (error) {
          failures.push((error as Error).message);
        }
      }
      total.refused += opener.counts.refused;
      total.read += opener.counts.read;
    }
    console.log(name, boot, states.length, performance.now() - t, total);
    expect(failures).toEqual([]);
  });
});
void format1State, Life;
