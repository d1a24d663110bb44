/** Tests the command `npm run test:crash`. */

import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { scenarios } from './campaign.ts';
import { main } from './main.ts';

let printed: string[];

beforeEach(() => {
  printed = [];
  for (const name of ['log', 'error'] as const)
    vi.spyOn(console, name).mockImplementation((text: string) => void printed.push(text));
});
afterEach(() => {
  vi.restoreAllMocks();
});

it.each([
  ['--seed', 'x'],
  ['--crashes', '-1'],
  ['--for', '1 hour'],
  ['--faster'],
  ['--replay', 'not a line'],
  ['--replay', '{"scenario":"none","version":1,"seed":1,"crashes":[]}'],
])('refuses %s %s with exit code 2', async (...args) => {
  expect(await main(args)).toBe(2);
  expect(printed.join()).toContain('test:crash: ');
});

it('prints the figures of its run', async () => {
  expect(await main(['--for', '1s', '--workers', '1'])).toBe(0);
  expect(printed.at(-1)).toMatch(
    new RegExp(
      '^seed 1, \\d+ scenarios: \\d+ crashes in \\d+ stories of [\\d,]+ lives, ' +
        '[\\d,]+ storage operations, [\\d,]+ bytes checked; ',
    ),
  );
});

it('replays a line', async () => {
  const line = { scenario: scenarios[0]!.name, version: 1, seed: 1, crashes: [[30, 'process', 5, 1]] };
  expect(await main(['--replay', JSON.stringify(line)])).toBe(0);
  expect(printed).toEqual(['the replay does not fail']);
});
