/** Checks that the campaign finds each planted bug within a bounded effort, or that its unit test does. */

import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { patchedBuild } from './patched-build.ts';
import { PLANTED_BUGS, type PlantedBug } from './planted-bugs.ts';
import { SMALL_CONSTANTS } from './small-constants.ts';

/** The campaign must find each bug within this number of crashes. */
const EFFORT = 20_000;

type Campaign = typeof import('./campaign.ts');

async function campaignWith(name: string, patches: Parameters<typeof patchedBuild>[2]): Promise<Campaign> {
  const url = await patchedBuild('test/crash/campaign.ts', name, patches);
  try {
    return (await import(/* @vite-ignore */ url)) as Campaign;
  } finally {
    await rm(new URL(url));
  }
}

/** Returns the first failure of the campaign, and the number of crashes before it. */
async function firstFailure(
  { scenarios, exploreScenario, lineOf }: Campaign,
  where: RegExp,
  samples: number | undefined,
): Promise<{ line: string; crashes: number; message: string } | undefined> {
  let crashes = 0;
  for (let seed = 1; ; seed++) {
    for (const scenario of scenarios) {
      if (!where.test(scenario.name)) continue;
      let here = 0;
      const onStory = (figures: { crashes: number }): boolean => crashes + (here = figures.crashes) < EFFORT;
      try {
        await exploreScenario(scenario, seed, { onStory, ...(samples === undefined ? {} : { samples }) });
      } catch (error) {
        const [message = ''] = String((error as Error).message).split('\n');
        return { line: lineOf(scenario, error, seed), crashes: crashes + here, message };
      }
      crashes += here;
      if (crashes >= EFFORT) return undefined;
    }
  }
}

const withTest = PLANTED_BUGS.filter(({ test }) => test !== undefined);
const withoutTest = PLANTED_BUGS.filter(({ test }) => test === undefined);

let unchanged: Promise<Campaign> | undefined;

describe('the campaign finds', () => {
  it.each(withoutTest.map((bug, index) => [bug.name, bug, index] as const))(
    '%s',
    { timeout: 300_000 },
    async (name, { where = /./, samples, patches }, index) => {
      const campaign = await campaignWith(`planted-${index}`, [...SMALL_CONSTANTS, ...patches]);
      const failure = await firstFailure(campaign, where, samples);
      expect(failure, `not found within ${EFFORT} crashes`).toBeDefined();
      // The line replays the failure.
      const { scenario: wanted, ...plan } = JSON.parse(failure!.line) as { scenario: string };
      const scenario = campaign.scenarios.find((candidate) => candidate.name === wanted)!;
      await expect(campaign.replayScenario(scenario, JSON.stringify(plan))).rejects.toThrow();
      // The bug is the cause of the failure.
      unchanged ??= campaignWith('planted-nothing', SMALL_CONSTANTS);
      const same = (await unchanged).scenarios.find((candidate) => candidate.name === wanted)!;
      await (await unchanged).replayScenario(same, JSON.stringify(plan));
      if (process.env['COD_CRASH_FIGURES']) console.log(`${name}: ${failure!.crashes} crashes, ${failure!.message}`);
    },
  );
});

/** Runs one unit test with patched sources. Returns the tests that ran, and those that failed. */
async function runPatched(
  { file, name }: NonNullable<PlantedBug['test']>,
  patches: PlantedBug['patches'],
): Promise<{ ran: number; failed: string[] }> {
  const pattern = `^${name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`;
  const args = ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', '--reporter=json', file, '-t', pattern];
  const env = { ...process.env, COD_PLANTED_PATCHES: JSON.stringify(patches) };
  const printed = await new Promise<string>((resolve) =>
    execFile(process.execPath, args, { env, maxBuffer: 2 ** 26 }, (_error, stdout) => resolve(stdout)),
  );
  const { testResults } = JSON.parse(printed.slice(printed.indexOf('{'))) as {
    testResults: { assertionResults: { fullName: string; status: string }[] }[];
  };
  const results = testResults.flatMap(({ assertionResults }) => assertionResults);
  const ran = results.filter(({ status }) => status === 'passed' || status === 'failed');
  return { ran: ran.length, failed: ran.filter(({ status }) => status === 'failed').map(({ fullName }) => fullName) };
}

describe('a unit test finds', () => {
  it.each(withTest.map((bug) => [bug.name, bug] as const))('%s', { timeout: 300_000 }, async (_name, bug) => {
    expect(await runPatched(bug.test!, bug.patches)).toEqual({ ran: 1, failed: [bug.test!.name] });
  });
});

it('fails if the line of a planted bug no longer exists', async () => {
  const patch = { file: 'src/log/checkpointer.ts', find: 'missing line', replace: '' };
  await expect(patchedBuild('test/crash/campaign.ts', 'planted-none', [patch])).rejects.toThrow(
    'not once: missing line',
  );
});
