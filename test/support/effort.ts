/** How much of the tests `npm test` does. */

/** Whether this is `npm run test:long`. */
const isLong: boolean = process.env['COD_TEST_LONG'] === '1';

/**
 * Returns every `short`-th case in `npm test`, and all cases in `npm run test:long`.
 * @param variable an environment variable that overrides `short`
 */
export function some<T>(cases: readonly T[], variable: string, short: number): T[] {
  const every = effort(variable, { short, long: 1 });
  return cases.filter((_, index) => index % every === 0);
}

/**
 * Returns how many rounds a randomized test runs.
 * @param variable an environment variable that overrides both numbers
 * @param rounds `short` in `npm test`, `long` in `npm run test:long`
 */
export function effort(variable: string, { short, long }: { short: number; long: number }): number {
  const given = process.env[variable];
  return given === undefined ? (isLong ? long : short) : Number(given);
}
