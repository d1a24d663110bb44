/**
 * Divides the bandwidth of a group among its members. Uses no files and no clock: observations of the members and their
 * time are passed in.
 *
 * - Each member shows its name, a beat that changes while it lives, and the total that it was given.
 * - The smallest total counts, and each member takes an equal part of it.
 * - A member does not count if its process is dead or its beat has not changed for {@link SILENT_MS}. A silent member
 *   is stopped, or it died in another container, where its process cannot be looked up.
 */

/**
 * A member without a beat for this time does not count. Five beats, so that a member on a busy machine still counts.
 */
export const SILENT_MS: number = 5_000;
/** Interval at which a member writes its beat and looks at the others. */
export const BEAT_MS: number = 1_000;

/** A member as another member sees it. */
export interface SeenMember {
  readonly name: string;
  /** Changes with every beat. */
  readonly beat: string;
  /** Bytes per second for the whole group. Absent if the member was given none. */
  readonly total?: number | undefined;
  /** False if its process is known to be dead. */
  readonly mayBeAlive: boolean;
}

/** The result of one look at a group. */
export interface Shares {
  /** Bytes per second for each member. Undefined: no limit, since no member was given a total. */
  readonly share: number | undefined;
  /** Number of members that count, the viewing one included. */
  readonly members: number;
  /** Names of members that no longer count. */
  readonly gone: readonly string[];
}

interface LastBeat {
  readonly beat: string;
  readonly sinceMs: number;
}

export class GroupView {
  readonly #own: string;
  /** The last beat of each other member, and when it was first seen. */
  #beats: ReadonlyMap<string, LastBeat> = new Map();

  /** Makes the view of the member `own`, which always counts. */
  constructor(own: string) {
    this.#own = own;
  }

  /**
   * Divides the total among the members that count. The total is the smallest of `ownTotal` and those of the other
   * members.
   * @param nowMs time of a monotonic clock
   */
  look(seen: readonly SeenMember[], ownTotal: number | undefined, nowMs: number): Shares {
    const beats: Map<string, LastBeat> = new Map();
    const gone: string[] = [];
    let total = ownTotal ?? Number.POSITIVE_INFINITY;
    let members = 1;
    for (const member of seen) {
      if (member.name === this.#own) continue;
      const before = this.#beats.get(member.name);
      const since = before?.beat === member.beat ? before.sinceMs : nowMs;
      beats.set(member.name, { beat: member.beat, sinceMs: since });
      if (!member.mayBeAlive || nowMs - since >= SILENT_MS) {
        gone.push(member.name);
        continue;
      }
      members++;
      total = Math.min(total, member.total ?? total);
    }
    this.#beats = beats;
    return {
      share: total === Number.POSITIVE_INFINITY ? undefined : Math.max(1, Math.floor(total / members)),
      members,
      gone,
    };
  }
}
