/**
 * The checker of linearizability: known violations, and small random histories that a search decides too.
 *
 * COD_LINEAR_SEED=… runs the random histories of that seed only; COD_LINEAR_ROUNDS=… sets the number of seeds.
 */

import { describe, expect, test } from 'vitest';
import {
  checkLinearizable,
  type LinearizabilityViolation,
  type Random,
  SectorHistory,
  seededRandom,
} from '../../src/testing/index.ts';
import { effort } from '../support/effort.ts';
import { isLinearizable } from '../support/linear-search.ts';

const ROUNDS = effort('COD_LINEAR_ROUNDS', { short: 2500, long: 200_000 });
const ONLY_SEED = process.env['COD_LINEAR_SEED'];

/** A history of a disk with sectors of one byte, all of which are 0 at first. */
function smallHistory(): SectorHistory {
  return new SectorHistory({ sectorBytes: 1 });
}

const bytes = (...values: number[]): Uint8Array => new Uint8Array(values);

describe('an explanation is found for', () => {
  test('an empty history, and reads of the initial content', () => {
    const history = new SectorHistory({ initial: bytes(7, 8, 9), sectorBytes: 1 });
    expect(checkLinearizable(history)).toBeUndefined();
    history.beginRead(1, 3)(bytes(8, 9, 0));
    expect(checkLinearizable(history)).toBeUndefined();
  });

  test('a write in flight that one read sees and an earlier one does not', () => {
    const history = smallHistory();
    history.beginWrite(bytes(1), 0);
    history.beginRead(0, 1)(bytes(0));
    history.beginRead(0, 1)(bytes(1));
    expect(checkLinearizable(history)).toBeUndefined();
  });

  test('a write of two sectors that is seen in one of them first', () => {
    const history = smallHistory();
    history.beginWrite(bytes(1, 2), 0);
    history.beginRead(0, 2)(bytes(1, 0));
    expect(checkLinearizable(history)).toBeUndefined();
  });

  test('a power cut that leaves any content since the last flush', () => {
    for (const left of [1, 2, 3]) {
      const history = smallHistory();
      history.beginWrite(bytes(1), 0)();
      history.beginFlush()();
      for (const value of [2, 3]) history.beginWrite(bytes(value), 0)();
      history.crash('power');
      history.beginRead(0, 1)(bytes(left));
      expect(checkLinearizable(history)).toBeUndefined();
    }
  });

  test('a write whose answer comes after the crash, as a write without an answer', () => {
    const history = smallHistory();
    const late = history.beginWrite(bytes(1), 0);
    history.crash('process');
    late();
    history.beginRead(0, 1)(bytes(0));
    expect(checkLinearizable(history)).toBeUndefined();
    expect(history.requests[0]).toMatchObject({ number: 1, kind: 'write', ended: undefined });
  });
});

describe('no explanation is found for', () => {
  test('a stale read after an acknowledged write', () => {
    const history = smallHistory();
    history.beginWrite(bytes(1), 5, { by: 'a' })();
    history.beginRead(5, 1, { by: 'b' })(bytes(0));
    expect(checkLinearizable(history)).toEqual({
      sector: 5,
      reason: 'order',
      requests: [history.requests[0], history.requests[1]],
      message:
        'sector 5: the initial content precedes write 1 by a, as it was there first and write 1 by a began at 2; ' +
        'write 1 by a precedes the initial content, as write 1 by a ended at 3 ' +
        'and read 2 by b of the initial content began at 4',
    });
  });

  test('a read of a content that was never written', () => {
    const history = smallHistory();
    history.beginWrite(bytes(1), 0)();
    history.beginRead(0, 1)(bytes(2));
    expect(checkLinearizable(history)).toEqual({
      sector: 0,
      reason: 'unwritten',
      requests: [history.requests[1]],
      message: 'sector 0: read 2 returned a content that the sector never had',
    });
  });

  test('a read of what was written to another sector', () => {
    const history = smallHistory();
    history.beginWrite(bytes(1), 0)();
    history.beginRead(1, 1)(bytes(1));
    expect(checkLinearizable(history)?.message).toBe(
      'sector 1: read 2 returned a content that the sector never had, but write 1 wrote it to another sector',
    );
  });

  test('a read that ends before the write of its content begins', () => {
    const history = smallHistory();
    history.beginRead(0, 1)(bytes(1));
    history.beginWrite(bytes(1), 0)();
    expect(checkLinearizable(history)).toMatchObject({
      reason: 'early',
      message: 'sector 0: read 1 of write 2 ended at 3, before write 2 began at 4',
    });
  });

  test('an acknowledged write that a process crash has lost', () => {
    const history = smallHistory();
    history.beginWrite(bytes(1), 0)();
    history.crash('process');
    history.beginRead(0, 1)(bytes(0));
    expect(checkLinearizable(history)).toMatchObject({ reason: 'order', message: /\(process crash at 4\)$/ });
  });

  test.each(['power', 'loss'] as const)('a flushed write that is gone (%s)', (kind) => {
    const history = smallHistory();
    history.beginWrite(bytes(1), 0)();
    history.beginFlush()();
    history.crash(kind);
    history.beginRead(0, 1)(bytes(0));
    expect(checkLinearizable(history)).toEqual({
      sector: 0,
      reason: 'lost',
      requests: history.requests,
      message:
        'sector 0: read 3 found the initial content after the power cut at 6; the initial content precedes write 1, ' +
        'as it was there first and write 1 began at 2; write 1 was durable by flush 2 (power crash at 6)',
    });
  });

  test('a write with FUA that a power cut has lost', () => {
    const history = smallHistory();
    history.beginWrite(bytes(1), 0, { fua: true })();
    history.crash('power');
    history.beginRead(0, 1)(bytes(0));
    expect(checkLinearizable(history)?.message).toContain('write 1 was durable by FUA');
  });

  test('a content left by a power cut that a third content separates from a durable one', () => {
    const history = smallHistory();
    const first = history.beginWrite(bytes(1), 0);
    history.beginWrite(bytes(2), 0)();
    const durable = history.beginWrite(bytes(3), 0, { fua: true });
    first();
    history.beginRead(0, 1)(bytes(2));
    durable();
    history.crash('power');
    history.beginRead(0, 1)(bytes(1));
    expect(checkLinearizable(history)).toEqual({
      sector: 0,
      reason: 'lost',
      requests: history.requests,
      message:
        'sector 0: read 5 found write 1 after the power cut at 10; ' +
        'write 1 precedes write 2, as write 1 ended at 6 and read 4 of write 2 began at 7; ' +
        'write 2 precedes write 3, as write 2 ended at 4 and write 3 began at 5; ' +
        'write 3 was durable by FUA (power crash at 10)',
    });
  });

  test('two readers that see two concurrent writes in opposite orders', () => {
    const history = smallHistory();
    for (const value of [1, 2]) history.beginWrite(bytes(value), 0);
    const second = history.beginRead(0, 1, { by: 'b' });
    history.beginRead(0, 1, { by: 'a' })(bytes(1));
    second(bytes(2));
    const last = history.beginRead(0, 1, { by: 'b' });
    history.beginRead(0, 1, { by: 'a' })(bytes(2));
    expect(checkLinearizable(history)).toBeUndefined();
    last(bytes(1));
    expect(checkLinearizable(history)).toMatchObject({ sector: 0, reason: 'order' });
  });

  test('a power cut after which two reads find different old contents', () => {
    const history = smallHistory();
    for (const value of [1, 2]) history.beginWrite(bytes(value), 0)();
    history.crash('power');
    history.beginRead(0, 1)(bytes(1));
    history.beginRead(0, 1)(bytes(2));
    expect(checkLinearizable(history)?.message).toBe(
      'sector 0: the power cut at 6 left write 1, but also write 2 (power crash at 6)',
    );
  });

  test('a second power cut that takes back what the first one left', () => {
    const history = smallHistory();
    history.beginWrite(bytes(1), 0)();
    history.crash('power');
    history.beginRead(0, 1)(bytes(1));
    history.crash('power');
    history.beginRead(0, 1)(bytes(0));
    expect(checkLinearizable(history)?.message).toContain('left write 1, but also the initial content');
  });
});

test('the violation with the fewest requests is reported', () => {
  const history = smallHistory();
  history.beginWrite(bytes(1, 1), 0)();
  history.beginRead(0, 1)(bytes(0));
  history.beginRead(1, 1)(bytes(9));
  expect(checkLinearizable(history)).toMatchObject({ sector: 1, reason: 'unwritten' });
});

test('a history refuses parts of sectors, repeated contents, and reads of another length', () => {
  const history = new SectorHistory({ initial: new Uint8Array(512).fill(3) });
  expect(() => history.beginWrite(bytes(1), 0)).toThrow(RangeError);
  expect(() => history.beginRead(1, 512)).toThrow(RangeError);
  expect(() => history.beginRead(0, 1)).toThrow(RangeError);
  expect(() => history.beginWrite(new Uint8Array(512).fill(3), 0)).toThrow(RangeError);
  history.beginWrite(new Uint8Array(512).fill(1), 0);
  expect(() => history.beginWrite(new Uint8Array(512).fill(1), 0)).toThrow(
    'a write of sector 0 has the same bytes as an earlier write, or the initial ones',
  );
  expect(() => history.beginRead(0, 512)(new Uint8Array(513))).toThrow('a read of 512 bytes ended with 513 bytes');
});

const SECTORS = 2;

/** A disk whose requests take effect at a random moment. With `lies` it sometimes breaks its promises. */
class RandomDisk {
  readonly history: SectorHistory = smallHistory();
  readonly #random: Random;
  readonly #lies: boolean;
  readonly #clients: number;
  /** Of each sector, the contents since the last durable one. The last of them is the present content. */
  #kept: number[][] = Array.from({ length: SECTORS }, () => [0]);
  /** Of each sector, all contents that it has had. */
  readonly #had: number[][] = Array.from({ length: SECTORS }, () => [0]);
  #values = 0;
  /** Requests in flight: each call makes one step. The last step returns false. */
  #inFlight: (() => boolean)[] = [];
  /** Writes in flight that have not taken effect. */
  #undone: (() => void)[] = [];

  constructor(random: Random, lies: boolean) {
    this.#random = random;
    this.#lies = lies;
    this.#clients = 1 + random.below(5);
  }

  step(): void {
    const random = this.#random;
    if (random.oneIn(12)) this.#crash(random.oneIn(2) ? 'process' : 'power');
    else if (this.#inFlight.length < this.#clients && random.oneIn(2)) this.#inFlight.push(this.#begin());
    else if (this.#inFlight.length > 0) {
      const index = random.below(this.#inFlight.length);
      // A client may go away.
      if (!this.#inFlight[index]!() || random.oneIn(30)) this.#inFlight.splice(index, 1);
    } else if (this.#undone.length > 0) this.#undone.pop()!();
  }

  #begin(): () => boolean {
    const random = this.#random;
    const sector = random.below(SECTORS);
    const count = random.oneIn(3) ? SECTORS - sector : 1;
    if (random.oneIn(6)) return this.#flush();
    return random.oneIn(2) ? this.#write(sector, count) : this.#read(sector, count);
  }

  #write(sector: number, count: number): () => boolean {
    const random = this.#random;
    const values = Array.from({ length: count }, () => ++this.#values);
    const fua = random.oneIn(4);
    const end = this.history.beginWrite(bytes(...values), sector, { fua });
    const effects = values.map((value, index) => () => {
      this.#kept[sector + index]!.push(value);
      this.#had[sector + index]!.push(value);
    });
    this.#undone.push(...effects);
    return () => {
      const next = effects.pop();
      if (next !== undefined) {
        if (this.#undone.includes(next)) {
          this.#undone.splice(this.#undone.indexOf(next), 1);
          next();
        }
        return true;
      }
      for (const [index, value] of values.entries()) if (fua) this.#settle(sector + index, value);
      end();
      return false;
    };
  }

  #read(sector: number, count: number): () => boolean {
    const found: number[] = [];
    const end = this.history.beginRead(sector, count);
    return () => {
      if (found.length < count) {
        const lie = this.#lies && this.#random.oneIn(4);
        found.push(lie ? this.#lie(sector + found.length) : this.#kept[sector + found.length]!.at(-1)!);
        return true;
      }
      end(bytes(...found));
      return false;
    };
  }

  #flush(): () => boolean {
    const end = this.history.beginFlush();
    const covered = this.#kept.map((kept) => kept.at(-1)!);
    return () => {
      for (const [sector, value] of covered.entries()) this.#settle(sector, value);
      end();
      return false;
    };
  }

  /** Makes a content durable, if it is not lost or replaced. */
  #settle(sector: number, value: number): void {
    const kept = this.#kept[sector]!;
    kept.splice(0, Math.max(0, kept.indexOf(value)));
  }

  #crash(kind: 'process' | 'power'): void {
    const random = this.#random;
    for (const effect of random.shuffle(this.#undone)) if (random.oneIn(2)) effect();
    this.#inFlight = [];
    this.#undone = [];
    this.history.crash(kind);
    if (kind === 'process' && !(this.#lies && random.oneIn(4))) return;
    this.#kept = this.#kept.map((kept, sector) => {
      const lie = this.#lies && random.oneIn(4);
      return [lie ? this.#lie(sector) : kept[random.below(kept.length)]!];
    });
  }

  /** Returns a content that the sector has had, or sometimes any. */
  #lie(sector: number): number {
    const had = this.#had[sector]!;
    return this.#random.oneIn(20) ? this.#random.below(this.#values + 2) : had[this.#random.below(had.length)]!;
  }
}

type Verdict = 'linearizable' | LinearizabilityViolation['reason'];

/** Returns what the checker says. Throws if the search does not agree. */
function verdictOn({ history }: RandomDisk): Verdict {
  const { requests, crashes } = history;
  const search = (sector: number, among = requests): boolean =>
    isLinearizable(sector, { requests: among, crashes, initial: history.initialContent(sector) });
  const violation = checkLinearizable(history);
  if (violation === undefined) {
    for (let sector = 0; sector < SECTORS; sector++)
      if (!search(sector)) throw new Error(`nothing explains sector ${sector} of ${JSON.stringify(requests)}`);
    return 'linearizable';
  }
  const { sector, message } = violation;
  if (search(sector)) throw new Error(`an order of the accesses explains them: ${message}`);
  if (search(sector, violation.requests)) throw new Error(`the requests alone are explained: ${message}`);
  return violation.reason;
}

describe('random histories', () => {
  test('are judged as by a search of all orders, and the requests of a violation suffice for it', () => {
    const seeds = ONLY_SEED === undefined ? Array.from({ length: ROUNDS }, (_, round) => round) : [Number(ONLY_SEED)];
    const counts = { linearizable: 0, unwritten: 0, early: 0, order: 0, lost: 0 };
    for (const seed of seeds) {
      const random = seededRandom(seed);
      const lies = random.below(3) > 0;
      const disk = new RandomDisk(random, lies);
      for (let steps = 10 + random.below(50); steps > 0; steps--) disk.step();
      try {
        const verdict = verdictOn(disk);
        counts[verdict]++;
        if (!lies && verdict !== 'linearizable') throw new Error(`a disk that keeps its promises: ${verdict}`);
      } catch (error) {
        throw new Error(`seed ${seed} (COD_LINEAR_SEED=${seed}): ${(error as Error).message}`, { cause: error });
      }
    }
    if (process.env['COD_LINEAR_FIGURES']) console.log(counts);
    if (ONLY_SEED === undefined)
      for (const count of Object.values(counts)) expect(count).toBeGreaterThan(ROUNDS / 1000);
  });
});
