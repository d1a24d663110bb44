/** Rates that are shared and controlled from outside, with real files and a simulated clock. */

import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { UsageError } from '../../src/cli/failure.ts';
import { type Allowance, RateControl, type RateFlags } from '../../src/cli/rate-control.ts';
import { RateFile } from '../../src/cli/rate-file.ts';
import { RateGroup } from '../../src/cli/rate-group.ts';
import { BEAT_MS, SILENT_MS } from '../../src/cli/rate-share.ts';
import { runtimeDirectory } from '../../src/cli/runtime-directory.ts';
import { thisProcess } from '../../src/fs/node-process.ts';
import { SimulatedClock } from '../../src/testing/index.ts';
import { temporaryDirectory } from './temporary.ts';

let runtime: string;

beforeEach(() => {
  runtime = temporaryDirectory();
  vi.stubEnv('XDG_RUNTIME_DIR', runtime);
  return () => vi.unstubAllEnvs();
});

/** A copy with a controlled rate. */
class Copy {
  /** The rate at the open, and every later rate. */
  readonly rates: (number | undefined)[];
  readonly allowances: Allowance[] = [];
  readonly problems: string[] = [];
  readonly control: RateControl;
  complete!: () => void;

  constructor(flags: RateFlags, clock: SimulatedClock) {
    const hooks = {
      onRate: (allowance: Allowance) => void this.allowances.push(allowance),
      onProblem: (text: string) => void this.problems.push(text),
    };
    this.control = new RateControl(flags, hooks, clock);
    this.rates = [this.control.rate];
    const hydrated = new Promise<void>((resolve) => (this.complete = resolve));
    this.control.govern({ setRate: (rate) => void this.rates.push(rate), hydrated });
    onTestFinished(() => this.control.stop());
  }

  get rate(): number | undefined {
    return this.rates.at(-1);
  }
}

describe('a rate file', () => {
  test('is followed during the copy', async () => {
    const clock = new SimulatedClock();
    const path = join(temporaryDirectory(), 'rate');
    const copy = new Copy({ rate: 500, rateFile: path }, clock);
    expect(copy.rates).toEqual([500]);
    const steps: [text: string | undefined, rate: number | undefined][] = [
      ['1000\n', 1000],
      ['8kbit', 1000],
      ['', 1000],
      ['unlimited\n', undefined],
      ['20M\n', 20 * 2 ** 20],
      [undefined, 500],
    ];
    for (const [text, rate] of steps) {
      if (text === undefined) rmSync(path);
      else writeFileSync(path, text);
      await clock.advance(BEAT_MS);
      expect(copy.rate, JSON.stringify(text)).toBe(rate);
    }
    expect(copy.rates, 'reported only when it changes').toEqual([500, 1000, undefined, 20 * 2 ** 20, 500]);
    expect(copy.allowances).toEqual(copy.rates.map((rate) => ({ rate, members: undefined })));
    expect(copy.problems).toEqual([]);
  });

  test('without a rate is reported once, and the old rate stays', async () => {
    const clock = new SimulatedClock();
    const path = join(temporaryDirectory(), 'rate');
    writeFileSync(path, '1000');
    const copy = new Copy({ rateFile: path }, clock);
    writeFileSync(path, 'fast');
    await clock.advance(5 * BEAT_MS);
    expect(copy.rates).toEqual([1000]);
    expect(copy.problems).toEqual([expect.stringContaining('"fast"')]);
  });

  test('without a rate, or unreadable, is refused at the start', () => {
    const directory = temporaryDirectory();
    const path = join(directory, 'rate');
    for (const text of ['fast', '0', '-1', '\0'.repeat(300), '1 2']) {
      writeFileSync(path, text);
      expect(() => new RateFile(path, 1).read(), JSON.stringify(text)).toThrow(UsageError);
    }
    expect(() => new RateFile(directory, 1).read()).toThrow(expect.objectContaining({ code: 'COD_TARGET_IO' }));
  });
});

describe('a group', () => {
  test('shares its rate among the members that still copy', async () => {
    const clock = new SimulatedClock();
    const flags = { rate: 1200, rateGroup: 'night' };
    const first = new Copy(flags, clock);
    expect(first.rate).toBe(1200);
    const second = new Copy(flags, clock);
    const third = new Copy({ rate: 900, rateGroup: 'night' }, clock);
    const other = new Copy({ rate: 900, rateGroup: 'day' }, clock);
    expect(third.rate).toBe(300);
    await clock.advance(BEAT_MS);
    expect([first.rate, second.rate, third.rate, other.rate]).toEqual([300, 300, 300, 900]);
    third.complete();
    await clock.advance(BEAT_MS);
    expect([first.rate, second.rate]).toEqual([600, 600]);
    second.control.stop();
    await clock.advance(BEAT_MS);
    expect(first.rate).toBe(1200);
    expect(first.allowances.map(({ members }) => members)).toEqual([1, 3, 2, 1]);
    first.control.stop();
    expect(readdirSync(join(runtime, 'copyondemand', 'rate-night'))).toEqual([]);
  });

  test('also takes its rate from a file', async () => {
    const clock = new SimulatedClock();
    const path = join(temporaryDirectory(), 'rate');
    writeFileSync(path, 'unlimited');
    const copies = [1, 2].map(() => new Copy({ rateFile: path, rateGroup: 'night' }, clock));
    expect(copies.map(({ rate }) => rate)).toEqual([undefined, undefined]);
    writeFileSync(path, '4000');
    await clock.advance(2 * BEAT_MS);
    expect(copies.map(({ rate }) => rate)).toEqual([2000, 2000]);
  });

  test('takes back the share of a stopped member, and returns it when the member continues', () => {
    const [one, stopped] = [new RateGroup('night'), new RateGroup('night')];
    stopped.beat(1000, 0);
    for (let ms = 0; ms < SILENT_MS; ms += BEAT_MS) expect(one.beat(1000, ms).share).toBe(500);
    expect(one.beat(1000, SILENT_MS)).toMatchObject({ share: 1000, gone: [expect.any(String)] });
    expect(stopped.beat(1000, SILENT_MS).share).toBe(500);
    expect(one.beat(1000, SILENT_MS + 1).share).toBe(500);
    one.leave();
    stopped.leave();
  });

  test('counts an invalid file as long as a silent member, and then removes it', () => {
    const group = new RateGroup('night');
    group.beat(1000, 0);
    const directory = join(runtime, 'copyondemand', 'rate-night');
    const texts = [
      '',
      'x',
      'null',
      '{"pid":-1}',
      '{"pid":1,"total":-5}',
      '{"pid":1e99}',
      JSON.stringify({ ...thisProcess(), startTime: 1 }),
    ];
    texts.forEach((text, index) => {
      writeFileSync(join(directory, `${index}.member`), text);
    });
    // The last file names the id of this process but another start time: its process is dead.
    expect(group.beat(1000, 1)).toMatchObject({ members: 7, gone: ['6.member'] });
    expect(group.beat(1000, 1 + SILENT_MS).members).toBe(1);
    expect(readdirSync(directory)).toHaveLength(1);
    group.leave();
  });

  test('continues when its folder is removed', () => {
    const group = new RateGroup('night');
    group.beat(1000, 0);
    rmSync(join(runtime, 'copyondemand'), { recursive: true });
    expect(group.beat(1000, 1).share).toBe(1000);
    group.leave();
    group.leave();
  });

  test('needs a rate', () => {
    expect(() => new RateControl({ rateGroup: 'night' }, { onProblem: () => undefined })).toThrow(UsageError);
    expect(existsSync(join(runtime, 'copyondemand')), 'the folder is not created').toBe(false);
  });

  test('reports a folder that it cannot use once, and keeps the rate', async () => {
    const clock = new SimulatedClock();
    const copy = new Copy({ rate: 1000, rateGroup: 'night' }, clock);
    rmSync(join(runtime, 'copyondemand'), { recursive: true });
    writeFileSync(join(runtime, 'copyondemand'), '');
    await clock.advance(5 * BEAT_MS);
    expect(copy.rates).toEqual([1000]);
    expect(copy.problems).toHaveLength(1);
  });
});

describe('the runtime folder', () => {
  test('belongs to the user alone', () => {
    const path = runtimeDirectory('rate-x');
    expect(path).toBe(join(runtime, 'copyondemand', 'rate-x'));
    chmodSync(path, 0o777);
    expect(() => runtimeDirectory('rate-x')).toThrow(expect.objectContaining({ code: 'COD_TARGET_IO' }));
    rmSync(path, { recursive: true });
    mkdirSync(join(runtime, 'elsewhere'));
    symlinkSync(join(runtime, 'elsewhere'), path);
    expect(() => runtimeDirectory('rate-x')).toThrow(expect.objectContaining({ code: 'COD_TARGET_IO' }));
  });

  test('is in the folder for temporary files if there is no other', () => {
    const temporary = temporaryDirectory();
    vi.stubEnv('XDG_RUNTIME_DIR', undefined);
    vi.stubEnv('TMPDIR', temporary);
    expect(runtimeDirectory('x')).toBe(join(temporary, `copyondemand-${process.getuid?.() ?? 'user'}`, 'x'));
  });
});

describe('a rate that is set while the copy runs', () => {
  test('applies at once', () => {
    const copy = new Copy({ rate: 500 }, new SimulatedClock());
    copy.control.set(200);
    copy.control.set(200);
    copy.control.set(undefined);
    expect(copy.rates).toEqual([500, 200, undefined]);
    expect(copy.allowances.map(({ rate }) => rate)).toEqual([200, undefined]);
    expect(copy.control.path).toBe(undefined);
  });

  test('counts less than a rate file that is there', async () => {
    const clock = new SimulatedClock();
    const path = join(temporaryDirectory(), 'rate');
    writeFileSync(path, '1000');
    const copy = new Copy({ rate: 500, rateFile: path }, clock);
    copy.control.set(200);
    expect([copy.rate, copy.control.path]).toEqual([1000, path]);
    rmSync(path);
    await clock.advance(BEAT_MS);
    expect(copy.rate).toBe(200);
  });

  test('has no effect once the copy has ended', async () => {
    const copy = new Copy({ rate: 500 }, new SimulatedClock());
    copy.complete();
    await Promise.resolve();
    copy.control.set(200);
    expect(copy.rates).toEqual([500]);
  });
});
