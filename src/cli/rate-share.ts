/**
 * Who has which share of a bandwidth that the processes of a group have in common. No files and no clock here: what was seen of the members, and when, is handed in.
 *
 * Each member shows a name, a beat that changes while it lives, and the total that it was told. The smallest total counts, and each member takes an equal part of
 * it. A member whose process is dead does not count; nor does one whose beat has stood still for {@link SILENT_MS}: it is stopped, or died where its process cannot be looked up
 * (in another container).
 */

/** A member without a beat for so long takes nothing: five beats, so that one on a busy machine is not taken for dead. */
export const SILENT_MS: number = 5_000;
/** How often a member shows that it lives, and looks at the others. */
export const BEAT_MS: number = 1_000;

/** What can be seen of a member. */
export interface SeenMember {
  readonly name: string;
  /** Changes with every beat. */
  readonly beat: string;
  /** Bytes per second for the whole group; absent: it was told none. */
  readonly total?: number | undefined;
  /** False: its process is known to be dead. */
  readonly mayBeAlive: boolean;
}

/** What one look at a group came to. */
export interface Shares {
  /** Bytes per second for each member; undefined: no limit, as nobody was told a total. */
  readonly share: number | undefined;
  /** How many members count, the one that looks included. */
  readonly members: number;
  /** Members that do not count any more. */
  readonly gone: readonly string[];
}

interface LastBeat {
  readonly beat: string;
  readonly sinceMs: number;
}

export class GroupView {
  readonly #own: string;
  /** Of each other member, its last beat and when it was first seen. */
  #beats: ReadonlyMap<string, LastBeat> = new Map();

  /** The view of the member called `own`, which always counts. */
  constructor(own: string) {
    this.#own = own;
  }

  /** Divides `ownTotal`, or what others were told if that is less, among those who are `seen` at `nowMs`. */
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
