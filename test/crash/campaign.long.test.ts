/** The whole campaign, as `npm run test:crash` runs it. */

import { expect, it, vi } from 'vitest';
import { main } from './main.ts';

it('a device keeps its promises through 20,000 crashes', { timeout: 1_800_000 }, async () => {
  const printed: string[] = [];
  for (const name of ['log', 'error'] as const)
    vi.spyOn(console, name).mockImplementation((text: string) => void printed.push(text));
  const exitCode = await main(process.env['COD_CRASH_SEED'] ? ['--seed', process.env['COD_CRASH_SEED']] : []);
  vi.restoreAllMocks();
  expect(exitCode, printed.join('\n')).toBe(0);
});
