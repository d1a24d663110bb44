/** Sorts names as people count: img2 before img10, and upper beside lower case. */

const collator = new Intl.Collator(undefined, { numeric: true });

/** Compares two names. Names that read alike are in the order of their characters. */
export function compareNames(a: string, b: string): number {
  return collator.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);
}
