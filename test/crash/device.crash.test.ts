/** A part of the campaign, on unchanged sources. `npm run test:crash` runs the whole campaign for any time. */

import { describe, expect, it } from 'vitest';
import { exploreScenario, lineOf, type Scenario, scenarios } from './campaign.ts';

const SEED = Number(process.env['COD_CRASH_SEED'] ?? 1);

/** One scenario of each device. The machines and kinds of crashes differ. */
const some = new Map<string, Scenario>();
for (const scenario of scenarios)
  if (scenario.depth === undefined && !some.has(scenario.shape.name)) some.set(scenario.shape.name, scenario);

describe('a device keeps its promises through crashes at its operations and during its recovery', () => {
  it.each([...some.values()])('$name', async (scenario) => {
    const samples = scenario.samples === undefined ? {} : { samples: 3 };
    const figures = await exploreScenario(scenario, SEED, { crashes: 2, ...samples }).catch((error: unknown) => {
      throw new Error(`${(error as Error).message}\n${lineOf(scenario, error, SEED)}`, { cause: error });
    });
    expect(figures.crashes).toBeGreaterThan(scenario.samples === undefined ? 20 : 2);
    expect(figures.bytes).toBeGreaterThan(0);
  });
});
