/**
 * Shares links among groups of flows, max-min fair.
 *
 * All flows of a group have the same rate. A group loads each of its links with `weight × rate`: the weight is the
 * number of its flows, or 1 where one transfer feeds all of them.
 *
 * Progressive filling: all rates grow alike until a link is full, which fixes the rates of its groups. A link whose
 * groups are all bounded by it can be fixed at once: what other links do later only leaves it more. So many links are
 * fixed in one round.
 */

export interface Load {
  readonly link: number;
  readonly weight: number;
}

export interface Sharer {
  /** The most that one flow takes, in bytes per second. */
  readonly cap: number;
  readonly loads: readonly Load[];
  /** The result: bytes per second of one flow. */
  rate: number;
}

/** Two levels that differ by less than this part are equal. */
const EQUAL = 1e-12;

/**
 * Sets the rates of all sharers.
 *
 * @param capacities bytes per second of each link
 */
export function shareLinks(capacities: readonly number[], sharers: readonly Sharer[]): void {
  const left = Float64Array.from(capacities);
  const weights = new Float64Array(left.length);
  for (const { loads } of sharers) for (const { link, weight } of loads) weights[link]! += weight;
  const levelOf = (link: number): number =>
    weights[link]! > 0 ? Math.max(0, left[link]!) / weights[link]! : Number.POSITIVE_INFINITY;
  const isBinding = new Uint8Array(left.length);
  let open = [...sharers];
  while (open.length > 0) {
    isBinding.fill(1);
    const levels = left.map((_, link) => levelOf(link));
    for (const sharer of open) {
      let bound = sharer.cap;
      for (const { link } of sharer.loads) bound = Math.min(bound, levels[link]!);
      sharer.rate = bound;
      for (const { link } of sharer.loads) if (levels[link]! > bound * (1 + EQUAL)) isBinding[link] = 0;
    }
    const rest: Sharer[] = [];
    for (const sharer of open) {
      const { rate, cap, loads } = sharer;
      const isFixed =
        rate >= cap || loads.some(({ link }) => isBinding[link] === 1 && levels[link]! <= rate * (1 + EQUAL));
      if (!isFixed) rest.push(sharer);
      else
        for (const { link, weight } of loads) {
          left[link]! -= weight * rate;
          weights[link]! -= weight;
        }
    }
    open = rest;
  }
}
