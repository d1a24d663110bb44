/** Each target of the coverage-guided fuzzer for some seconds, from the kept inputs on. COD_FUZZ_MS sets the time. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { effort } from '../support/effort.ts';
import { keptInputs } from './guided/corpus.ts';
import { guided } from './guided/guided.ts';
import { type GuidedBuild, guidedBuild, removeBuild } from './guided/instrumented-build.ts';
import { TARGETS, TESTED } from './guided/targets.ts';

/** All targets together take less than two minutes. */
const FOR_MS = effort('COD_FUZZ_MS', { short: 1000, long: 4000 });
const SEED = Number(process.env['COD_FUZZ_SEED'] ?? 1);

let build: GuidedBuild;
beforeAll(async () => {
  build = await guidedBuild({ entry: 'test/fuzz/guided/worker.ts', instrument: TESTED });
});
afterAll(() => removeBuild(build));

it.each(Object.keys(TARGETS))('no input of %s fails', async (target) => {
  const { failure, figures } = await guided(build, { target, seed: SEED, corpus: keptInputs(target), forMs: FOR_MS });
  const input = failure && `${failure.message}, the input in base64: ${Buffer.from(failure.input).toString('base64')}`;
  expect(input, `seed ${SEED}`).toBe(undefined);
  console.log(`${target}: ${figures.runs} inputs, ${Math.round(figures.runs / figures.seconds)} a second`);
});
