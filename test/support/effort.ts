/** How much the randomized tests do. */

/** Whether this is `npm run test:long`. */
export const isLong: boolean = process.env['COD_TEST_LONG'] === '1';

/**
 * Returns how many rounds a randomized test runs.
 * @param variable an environment variable that overrides both numbers
 * @param rounds `short` in `npm test`, `long` in `npm run test:long`
 */
export function effort(variable: string, { short, long }: { short: number; long: number }): number {
  const given = process.env[variable];
  return given === undefined ? (isLong ? long : short) : Number(given);
}
