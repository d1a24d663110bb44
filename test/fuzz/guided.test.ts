/** The kept inputs of the coverage-guided fuzzer, and bugs that it must find. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keptInputs } from './guided/corpus.ts';
import { guided } from './guided/guided.ts';
import { type GuidedBuild, guidedBuild, removeBuild } from './guided/instrumented-build.ts';
import { TARGETS } from './guided/targets.ts';

describe.each(Object.keys(TARGETS))('%s', (name) => {
  it('ends each kept input with a result or an error that has a code', async () => {
    const inputs = keptInputs(name);
    expect(inputs.length).toBeGreaterThan(2);
    for (const [index, input] of inputs.entries()) {
      try {
        await TARGETS[name]!.run(input);
      } catch (error) {
        throw new Error(`input ${index} of ${name}`, { cause: error });
      }
    }
  });
});

describe('the fuzzer', () => {
  let build: GuidedBuild;
  beforeAll(async () => {
    const planted = 'test/fuzz/guided/planted-parser.ts';
    build = await guidedBuild({ entry: 'test/fuzz/guided/planted-worker.ts', instrument: [planted] });
  });
  afterAll(() => removeBuild(build));

  const fuzzed = (target: string) =>
    guided(build, { target, seed: 1, corpus: [new Uint8Array(32)], runs: 200_000, hangMs: 1000 });

  it.each([
    ['magic', 'the error without a code'],
    ['nested', 'Maximum call stack size exceeded'],
    ['text', 'the error behind a word'],
    ['memory', 'allocation of'],
    ['rejection', 'the error that nothing awaits'],
    ['loop', 'the input does not end'],
    ['never', 'the input never ends'],
  ])('finds the planted bug of the target %s', async (target, message) => {
    const { failure, figures } = await fuzzed(target);
    expect(failure?.message).toContain(message);
    expect(figures.runs).toBeLessThan(200_000);
  });

  it('finds nothing in a sound target, and keeps the inputs that reach something', async () => {
    const corpusBefore = [new Uint8Array(32)];
    const { failure, corpus, figures } = await guided(build, {
      target: 'sound',
      seed: 1,
      corpus: corpusBefore,
      runs: 20_000,
    });
    expect(failure).toBe(undefined);
    expect(figures.reached).toBeGreaterThan(figures.reachedAtFirst);
    expect(corpus.length).toBeGreaterThan(corpusBefore.length);
  });

  it('does the same with the same seed', async () => {
    const [one, other] = [await fuzzed('magic'), await fuzzed('magic')];
    expect(one.figures.runs).toBe(other.figures.runs);
    expect(one.failure?.input).toEqual(other.failure?.input);
  });
});
