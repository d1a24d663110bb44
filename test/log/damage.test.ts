/**
 * Damaged metadata is never believed. With any one file damaged, the open refuses, or every byte reads as promised:
 *
 * | what is there | promised |
 * | --- | --- |
 * | the target as it was left; no damage, or a damaged checkpoint | acknowledged writes |
 * | the target as it was left; a damaged log, whose end may look like a torn tail | flushed writes |
 * | the target as of its last sync | flushed writes |
 *
 * Damage that cannot be detected (docs/DESIGN.md, "Damage and faults") is left out: `isSameEpochsLog`,
 * `isFormat1Alone`.
 */

import { describe, expect, it } from 'vitest';
import { isCodError } from '../../src/errors.ts';
import { readNamed } from '../../src/fs/inline-file.ts';
import { recover } from '../../src/log/recovery.ts';
import { Slots } from '../../src/log/slots.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import type { Counting } from '../support/byte-history.ts';
import { effort } from '../support/effort.ts';
import {
  type Damage,
  flippedBits,
  foreignFiles,
  isFormat1Alone,
  isLogDamaged,
  lostSectors,
  METADATA,
  replacements,
  swappedSlots,
  truncations,
  withFile,
} from './damages.ts';
import { type Image, type Images, MemoryFiles } from './memory-files.ts';
import { open, SIZE, type State, statesAtRest, statesInBetween, statesWithLongLog, violation } from './states.ts';

const HEADER_BYTES = 512;
/** Of the bits of a file, every so many is flipped. */
const STRIDE = effort('COD_DAMAGE_STRIDE', { short: 67, long: 1 });
/** Of the lengths of a file, every so many is tried. */
const LENGTHS = effort('COD_DAMAGE_LENGTHS', { short: 4, long: 1 });
/** The same for the hundreds of states in between. */
const SPARSE_STRIDE = effort('COD_DAMAGE_SPARSE_STRIDE', { short: 1499, long: 97 });
const SPARSE_LENGTHS = effort('COD_DAMAGE_SPARSE_LENGTHS', { short: 181, long: 29 });
/** COD_EXISTS: without committed metadata, the target is a foreign file. */
const REFUSALS: ReadonlySet<string> = new Set(['COD_CORRUPT', 'COD_VERSION', 'COD_EXISTS']);

/** Whether the target is as it was left, or as of its last sync. */
type TargetFile = 'left' | 'synced';

const core = Core.create();
const atRest = await statesAtRest();
const inBetween = await statesInBetween();
const { flushed: flushedLog, state: longLog, flushedEnd } = await statesWithLongLog();

/** Opens damaged images of a state, and collects the failures. */
class Opener {
  readonly state: State;
  readonly failures: string[] = [];
  refused = 0;
  read = 0;
  readonly #target: TargetFile;
  readonly #compared = new Set<string>();

  constructor(state: State, target: TargetFile) {
    this.state = state;
    this.#target = target;
  }

  /**
   * Expects a refusal, or the promised bytes. The result of recovery determines every read. So the device is opened and
   * compared once per distinct result; other images are only recovered.
   */
  async check(what: string, images: Images): Promise<void> {
    if (isFormat1Alone(this.state, images)) return;
    // Tens of thousands of refusals are expected, and the stack is most of the cost of an error.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    try {
      const promised = this.#promised(images);
      const said = promised + (await this.#recover(images));
      if (!this.#compared.has(said)) await this.#compare(images, promised);
      this.#compared.add(said);
      this.read++;
    } catch (error) {
      if (isCodError(error) && REFUSALS.has(error.code)) this.refused++;
      else this.failures.push(`${this.state.name}, target as ${this.#target}, ${what}: ${(error as Error).message}`);
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
    }
  }

  async checkAll(damages: Iterable<Damage> | AsyncIterable<Damage>): Promise<void> {
    for await (const { what, images } of damages) await this.check(what, images);
  }

  #promised(images: Images): Counting {
    return this.#target === 'synced' || isLogDamaged(this.state, images) ? 'durable' : 'acknowledged';
  }

  async #recover(images: Images): Promise<string> {
    const files = this.#volume(images);
    const target = {
      size: async () => SIZE,
      read: (into: Uint8Array, offset: number) => readNamed(files, 'disk', into, offset),
    };
    const found = await recover(core, new Slots(files, 'disk', { readOnly: true }), target);
    if (found === undefined) return 'nothing';
    const { state, epoch, bothLogs, format, session, identity } = found;
    const maps = [[...state.syncedRuns()], [...state.dirtyBlocks()]];
    state.dispose();
    return JSON.stringify([maps, epoch, bothLogs, format, session, identity, state.geometry]);
  }

  async #compare(images: Images, promised: Counting): Promise<void> {
    const device = await open(this.#volume(images));
    try {
      const found = new Uint8Array(SIZE);
      await device.read(found, 0);
      const wrong = violation(this.state, found, promised);
      if (wrong !== undefined) throw new Error(wrong);
    } finally {
      await device.close();
    }
  }

  #volume(images: Images): MemoryFiles {
    return new MemoryFiles(this.#target === 'left' ? images : withFile(images, 'disk', this.state.syncedTarget));
  }
}

describe.each(['left', 'synced'] as const)('with its target as %s', (target) => {
  it.each(atRest)('$name reads as promised; with any flipped bit it does so or is refused', async (state) => {
    const opener = new Opener(state, target);
    await opener.check('undamaged', state.images);
    expect(opener).toMatchObject({ failures: [], read: 1 });
    // Headers and checksums are verified alike with every target.
    await opener.checkAll(flippedBits(state, target === 'left' ? STRIDE : 5 * STRIDE));
    expect(opener.failures).toEqual([]);
    expect(opener.refused).toBeGreaterThan(opener.read);
  });

  it.each(atRest)(
    '$name reads as promised, or is refused, with any file cut, lost, swapped, stale, or replaced',
    async (state) => {
      const opener = new Opener(state, target);
      await opener.checkAll(truncations(state, target === 'left' ? LENGTHS : 3 * LENGTHS));
      await opener.checkAll(replacements(state));
      expect(opener.failures).toEqual([]);
      expect(opener.refused).toBeGreaterThan(100);
    },
  );

  it.each(atRest)('$name is refused with any file of another copy', async (state) => {
    const opener = new Opener(state, target);
    await opener.checkAll(foreignFiles(state));
    expect(opener).toMatchObject({ failures: [], read: 0, refused: 8 });
  });

  it.each(atRest.filter(({ images }) => METADATA.every((name) => images.has(name))))(
    '$name is refused with its slots swapped',
    async (state) => {
      const opener = new Opener(state, target);
      await opener.checkAll(swappedSlots(state));
      expect(opener).toMatchObject({ failures: [], read: 0, refused: 2 });
    },
  );

  it.each(atRest)('$name is refused without its target, or with one of another size', async (state) => {
    const image = target === 'left' ? state.images.get('disk')! : state.syncedTarget!;
    const promised = target === 'left' ? 'acknowledged' : 'durable';
    const outcome = async (image: Image | undefined): Promise<string> => {
      try {
        const device = await open(new MemoryFiles(withFile(state.images, 'disk', image)));
        const found = new Uint8Array(SIZE);
        await device.read(found, 0);
        await device.close();
        return violation(state, found, promised) ?? 'read';
      } catch (error) {
        return isCodError(error) ? error.code : (error as Error).message;
      }
    };
    // A new copy has no data to lose, so the open makes the target again.
    const lost = state.name === 'a new copy' ? 'read' : 'COD_CORRUPT';
    expect(await outcome(image)).toBe('read');
    expect(await outcome(undefined)).toBe(lost);
    expect(await outcome({ bytes: new Uint8Array(0), size: 0 })).toBe(lost);
    for (const size of [1, SIZE - 1])
      expect(await outcome({ bytes: image.bytes.subarray(0, size), size })).toBe('COD_CORRUPT');
    for (const size of [SIZE + 1, 2 * SIZE])
      expect(await outcome({ bytes: image.bytes, size })).toBe('COD_SIZE_MISMATCH');
  });

  it.each(inBetween)('$name reads as promised, or is refused, with damage at each of its steps', async ({ states }) => {
    for (const state of states) {
      const opener = new Opener(state, target);
      await opener.check('undamaged', state.images);
      await opener.checkAll(flippedBits(state, SPARSE_STRIDE));
      await opener.checkAll(truncations(state, SPARSE_LENGTHS));
      await opener.checkAll(replacements(state));
      expect(opener.failures).toEqual([]);
    }
  });
});

describe('a log of many sectors, some flushed', () => {
  const used = longLog.images.get('disk.wil')!.bytes.length;
  const lastSector = used - 1 - ((used - 1) % HEADER_BYTES);

  it.each(['left', 'synced'] as const)(
    'is refused without a flushed sector, and read up to a lost unflushed sector, with its target as %s',
    async (target) => {
      const opener = new Opener(longLog, target);
      await opener.check('undamaged', longLog.images);
      expect(opener).toMatchObject({ failures: [], read: 1 });
      for (const { at, what, images } of lostSectors(longLog, HEADER_BYTES, lastSector)) {
        const { refused } = opener;
        await opener.check(what, images);
        // Frames after the flush prove the sectors before its end.
        expect([opener.failures, opener.refused - refused], `sector at ${at}`).toEqual([[], at < flushedEnd ? 1 : 0]);
      }
      expect(opener.refused).toBeGreaterThan(3);
      expect(opener.read).toBeGreaterThan(3);
    },
  );

  it.each(['left', 'synced'] as const)(
    'that ends with the barrier of a flush is refused without any sector but the last, with its target as %s',
    async (target) => {
      const opener = new Opener(flushedLog, target);
      // Without its last sector, a log is as it may have been before the flush.
      const last = flushedEnd - 1 - ((flushedEnd - 1) % HEADER_BYTES);
      await opener.checkAll(lostSectors(flushedLog, HEADER_BYTES, last));
      expect(opener).toMatchObject({ failures: [], read: 0, refused: last / HEADER_BYTES - 1 });
      expect(opener.refused).toBeGreaterThan(3);
    },
  );

  it.each(['left', 'synced'] as const)(
    'is read up to bytes of any content after its last durable frame, with its target as %s',
    async (target) => {
      const opener = new Opener(longLog, target);
      const { bytes, size } = longLog.images.get('disk.wil')!;
      const random = seededRandom(8);
      for (let sample = 0; sample < 100; sample++) {
        const first = Math.ceil(flushedEnd / HEADER_BYTES) * HEADER_BYTES;
        const start = first + random.below(used + 5000 - first);
        // Up to the end of a sector: a frame proves those before it in its sector.
        const end = start - (start % HEADER_BYTES) + HEADER_BYTES * (1 + random.below(6));
        const junk = new Uint8Array(Math.max(bytes.length, end));
        junk.set(bytes);
        random.fill(junk.subarray(start, end));
        await opener.check(`junk from ${start} on`, withFile(longLog.images, 'disk.wil', { bytes: junk, size }));
      }
      expect(opener).toMatchObject({ failures: [], refused: 0, read: 100 });
    },
  );
});

it('reads as promised, undamaged, after each step of a device', async () => {
  for (const target of ['left', 'synced'] as const) {
    for (const { states } of inBetween) {
      for (const state of states) {
        const opener = new Opener(state, target);
        await opener.check('undamaged', state.images);
        // A finished target is an ordinary file.
        const isFinished = METADATA.every((name) => !state.images.has(name)) && state.images.has('disk');
        expect(opener, state.name).toMatchObject({ failures: [], read: isFinished ? 0 : 1 });
      }
    }
  }
});
