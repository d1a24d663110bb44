/** The values of options of the test programs. */

export class UsageError extends Error {}

/** @throws {@link UsageError} unless the text is a whole number below 2^32 */
export function wholeNumber(text: string, name: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value >= 2 ** 32)
    throw new UsageError(`--${name} ${text}: expected a whole number below 2^32`);
  return value;
}

/** Returns the milliseconds of a text such as 90s. @throws {@link UsageError} for any other text */
export function duration(text: string): number {
  const found = /^([1-9]\d*)(s|m|h)$/.exec(text);
  if (found === null) throw new UsageError(`--for ${text}: expected a duration such as 90s, 10m or 1h`);
  return Number(found[1]) * { s: 1000, m: 60_000, h: 3_600_000 }[found[2] as 's' | 'm' | 'h'];
}
