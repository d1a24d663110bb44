/**
 * Decides by search whether the history of a sector is linearizable: tries every order of its accesses. The definition
 * as a program, which src/testing/linearizability.ts is compared with. Only for a few accesses.
 */

import type { SectorCrash, SectorRequest } from '../../src/testing/index.ts';

interface Access {
  readonly isWrite: boolean;
  readonly content: number;
  readonly began: number;
  readonly ended: number;
  /** Whether the access must take effect: whether it was acknowledged. */
  readonly counts: boolean;
  readonly isDurable: boolean;
}

export interface SearchedHistory {
  readonly requests: readonly SectorRequest[];
  readonly crashes: readonly SectorCrash[];
  readonly initial: number;
}

/** Returns whether some order of the accesses explains what was read. */
export function isLinearizable(sector: number, { requests, crashes, initial }: SearchedHistory): boolean {
  const nextCut = (at: number): number => crashes.find((crash) => crash.kind === 'power' && crash.at > at)?.at ?? 1e9;
  const accesses = requests.flatMap(({ kind, firstSector, contents, began, ended, fua }): Access[] => {
    const content = contents[sector - firstSector];
    if (kind === 'flush' || content === undefined) return [];
    const flushed = requests.some(
      (flush) => flush.kind === 'flush' && flush.began > (ended ?? 1e9) && (flush.ended ?? 1e9) < nextCut(began),
    );
    const isDurable = ended !== undefined && (fua || flushed);
    return [{ isWrite: kind === 'write', content, began, ended: ended ?? 1e9, counts: ended !== undefined, isDurable }];
  });

  /**
   * Tries every order of `left`, which began before crash number `crash`.
   * `kept` are the contents since the last durable one; the last of them is the present content.
   */
  const order = (left: readonly Access[], crash: number, kept: readonly number[]): boolean => {
    if (!left.some(({ counts }) => counts) && goOn(crash, kept)) return true;
    return left.some((access) => {
      const others = left.filter((other) => other !== access);
      if (others.some(({ counts, ended }) => counts && ended < access.began)) return false;
      if (!access.isWrite) return access.content === kept.at(-1) && order(others, crash, kept);
      return order(others, crash, access.isDurable ? [access.content] : [...kept, access.content]);
    });
  };
  /** Continues after crash number `crash`. Accesses that have not taken effect by then never do. */
  const goOn = (crash: number, kept: readonly number[]): boolean => {
    if (crash === crashes.length) return true;
    const [from, until] = [crashes[crash]!.at, crashes[crash + 1]?.at ?? 1e9];
    const next = accesses.filter(({ began }) => began > from && began < until);
    if (crashes[crash]!.kind === 'process') return order(next, crash + 1, kept);
    return kept.some((content) => order(next, crash + 1, [content]));
  };
  const first = crashes[0]?.at ?? 1e9;
  return order(
    accesses.filter(({ began }) => began < first),
    0,
    [initial],
  );
}
